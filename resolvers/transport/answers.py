"""The response of one operation and its JSON.

Invariant: a request error has no ``data`` member, an executed operation has one (perhaps null), and every response has
``extensions.cost`` once the cost is known. Encoding never fails on text: the output is pure ASCII JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphql import GraphQLError

from resolvers.transport.errors import RequestRefused, present

_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Answer:
    """``data`` is a mapping, None, or the ready JSON text of the data; it counts only when ``executed``. ``ready`` is
    the whole response as JSON, where it was made for several at once.
    """

    data: Mapping[str, Any] | bytes | None = None
    executed: bool = False
    errors: Sequence[Mapping[str, Any]] = ()
    extensions: Mapping[str, Any] = field(default_factory=dict)
    ready: bytes | None = None

    def encoded(self) -> bytes:
        """The response as JSON."""
        if self.ready is not None:
            return self.ready
        rest: dict[str, Any] = {}
        if self.errors:
            rest["errors"] = list(self.errors)
        if isinstance(self.data, bytes):
            head = encoded(rest)[:-1] + b"," if rest else b"{"
            tail = b"," + encoded({"extensions": dict(self.extensions)})[1:] if self.extensions else b"}"
            return b'%s"data":%s%s' % (head, self.data, tail)
        if self.executed:
            rest["data"] = self.data
        if self.extensions:
            rest["extensions"] = dict(self.extensions)
        return encoded(rest)


def encoded(value: object) -> bytes:
    """Compact JSON. Raises ValueError or TypeError for what JSON cannot say (NaN, an object without a form)."""
    return _ENCODER.encode(value).encode("ascii")


def refused_answer(refused: RequestRefused, request_id: str) -> Answer:
    """The response to a request that was refused as a whole."""
    return Answer(
        errors=presented(refused.errors, request_id), extensions={"cost": refused.cost} if refused.cost else {}
    )


def presented(errors: Sequence[GraphQLError], request_id: str) -> list[dict[str, Any]]:
    """Errors as they are sent."""
    return [present(error, request_id) for error in errors]
