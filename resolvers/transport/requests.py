"""The one shape of a GraphQL request, whichever transport brought it, and the strict reading of JSON.

Invariant: past this module every parameter has its type; no body, however odd, gives anything but a request or a
BAD_REQUEST. Unknown members are ignored, as GraphQL over HTTP asks. A list of requests (batching) and multipart are
deliberately not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from resolvers.transport.errors import ErrorCode, RequestRefused

T = TypeVar("T")
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class GraphQLRequest(NamedTuple):
    """One request. ``persisted_hash`` is Apollo's ``extensions.persistedQuery.sha256Hash``."""

    query: str | None = None
    variables: Mapping[str, Any] = MappingProxyType({})
    operation_name: str | None = None
    document_id: str | None = None
    persisted_hash: str | None = None


def request_of(value: object) -> GraphQLRequest:
    """The request in a decoded JSON value. Raises :class:`RequestRefused` (BAD_REQUEST) naming the wrong member."""
    if isinstance(value, list):
        raise _bad("Batching is off: the body must be one JSON object.")
    if not isinstance(value, dict):
        raise _bad("The body must be a JSON object.")
    extensions = _member(value, "extensions", dict, "an object")
    return GraphQLRequest(
        _member(value, "query", str, "a string"),
        _member(value, "variables", dict, "an object") or {},
        _member(value, "operationName", str, "a string") or None,
        _member(value, "documentId", str, "a string"),
        _persisted_hash(extensions) if extensions else None,
    )


def _member(value: Mapping[str, Any], name: str, kind: type[T], called: str) -> T | None:
    found = value.get(name)
    if found is None:
        return None
    if not isinstance(found, kind):
        raise _bad(f"{name} must be {called} or null.")
    return found


def _persisted_hash(extensions: Mapping[str, Any]) -> str | None:
    persisted = extensions.get("persistedQuery")
    if persisted is None:
        return None
    if not isinstance(persisted, dict) or persisted.get("version") != 1:
        raise _bad("extensions.persistedQuery must be an object with version 1.")
    digest = persisted.get("sha256Hash")
    if not isinstance(digest, str):
        raise _bad("extensions.persistedQuery.sha256Hash must be a string.")
    return digest


def decoded(raw: bytes | str) -> object:
    """The JSON value in ``raw``: UTF-8, no NaN or Infinity, no half of a surrogate pair, nothing deeper than Python
    reads. Raises :class:`RequestRefused` (BAD_REQUEST).
    """
    try:
        text = raw if isinstance(raw, str) else raw.decode("utf-8")
        value: object = _DECODER.decode(text)
        if "\\u" in text and _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise _bad("The body is not valid JSON in UTF-8.") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


def _bad(message: str) -> RequestRefused:
    return RequestRefused(ErrorCode.BAD_REQUEST, message)
