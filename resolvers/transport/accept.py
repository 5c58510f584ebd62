"""What the client wants to read: the Accept header against the three media types that we write.

Invariant: an explicit q decides, then the order in which the client lists; a wildcard, like a missing header, means
application/json, as GraphQL over HTTP says for its legacy clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from resolvers.transport.errors import ErrorCode, RequestRefused

GRAPHQL_RESPONSE: Final = "application/graphql-response+json"
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
_MEANS: Final = {
    GRAPHQL_RESPONSE: GRAPHQL_RESPONSE,
    JSON: JSON,
    EVENT_STREAM: EVENT_STREAM,
    "*/*": JSON,
    "application/*": JSON,
}
_LARGEST_HEADER_CHARS: Final = 2_048


@dataclass(frozen=True, slots=True)
class Accepted:
    """``primary`` is the type to answer in; ``event_stream`` says that a stream would be read too."""

    primary: str
    event_stream: bool = False


def accepted(header: bytes) -> Accepted:
    """The best of what the Accept header allows. Raises :class:`RequestRefused` (NOT_ACCEPTABLE)."""
    return _accepted(header[:_LARGEST_HEADER_CHARS])


@lru_cache(maxsize=256)
def _accepted(header: bytes) -> Accepted:
    text = header.decode("latin-1")
    if not text.strip():
        return Accepted(JSON)
    best: dict[str, float] = {}
    for part in text.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        media = _MEANS.get(name)
        if media is not None and _in_utf8(parameters):
            best.setdefault(media, _quality(parameters))
    wanted = {media: quality for media, quality in best.items() if quality > 0}
    if not wanted:
        raise RequestRefused(
            ErrorCode.NOT_ACCEPTABLE,
            f"We answer in {GRAPHQL_RESPONSE}, {JSON} or, as a stream, {EVENT_STREAM}; all in UTF-8.",
        )
    primary = max(wanted, key=lambda media: wanted[media])
    return Accepted(primary, EVENT_STREAM in wanted)


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0


def _in_utf8(parameters: Sequence[str]) -> bool:
    charsets = [
        value.strip(' "') for name, _, value in (each.partition("=") for each in parameters) if name == "charset"
    ]
    return all(charset in {"utf-8", "utf8"} for charset in charsets)
