"""GraphQL over HTTP, as a bare ASGI endpoint.

Invariant: whatever arrives, what leaves is a GraphQL response in JSON with a request id, or an event stream; never a
text page, never a 500 for what a client sent. POST carries application/json in UTF-8 alone, which no HTML form and no
cross-origin page can send without a preflight, and callers are known by their Authorization header only: there is
nothing to forge. GET runs queries. Batching, multipart and incremental delivery are deliberately off.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qs

from graphql import OperationType
from starlette.types import Receive, Scope, Send

from resolvers.transport.accept import EVENT_STREAM, GRAPHQL_RESPONSE, JSON, Accepted, accepted
from resolvers.transport.answers import Answer, refused_answer
from resolvers.transport.caller import (
    Authenticate,
    Caller,
    Identity,
    Transport,
    bearer_token,
    new_request_id,
    request_id_from,
)
from resolvers.transport.errors import OF_THE_DOCUMENT, ErrorCode, RequestRefused, refusal
from resolvers.transport.execution import Engine, Ready
from resolvers.transport.packets import WHOLE
from resolvers.transport.requests import GraphQLRequest, decoded, request_of
from resolvers.transport.rounds import Rounds, Visit
from resolvers.transport.sse import EventStreams

ALLOW: Final = "GET, POST"
_BY_GET: Final = frozenset({OperationType.QUERY})
_BY_POST: Final = frozenset({OperationType.QUERY, OperationType.MUTATION})
_LARGEST_TYPE_CHARS: Final = 256
_COMPRESSED_FROM_BYTES: Final = 4096
_COMPRESSED_ASIDE_FROM_BYTES: Final = 131_072
_GZIP_WINDOW: Final = 31
_REPEATED: Final = frozenset({b"accept", b"authorization"})
_MEDIA: Final = {
    each: (b"content-type", b"%s; charset=utf-8" % each.encode("latin-1"))
    for each in (JSON, GRAPHQL_RESPONSE, EVENT_STREAM)
}
_OK: Final = 200
_NO_STORE: Final = (b"cache-control", b"no-store")
_NO_SNIFF: Final = (b"x-content-type-options", b"nosniff")
_VARY: Final = (b"vary", b"Accept")
_VARY_PACKED: Final = (b"vary", b"Accept, Accept-Encoding")
_QUERY_PARAMETERS: Final = ("query", "variables", "operationName", "extensions", "documentId")


class ClientGone(Exception):  # noqa: N818 - an event, not an error
    """The client hung up before its request was complete."""


@dataclass(slots=True)
class Exchange:
    """One HTTP request and the way to answer it."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Mapping[bytes, bytes]
    request_id: str
    compressing: bool
    visit: Visit

    def header(self, name: bytes) -> str:
        """A header's text; empty when it is not there."""
        return self.headers.get(name, b"").decode("latin-1")

    async def respond(self, status: int, media: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Sends a whole response, packed where the client takes that and it pays.

        Callers are known by a header that no foreign page can make a browser send, so lengths betray nothing.
        """
        raw = [
            _MEDIA[media],
            (b"x-request-id", self.request_id.encode("latin-1")),
            _NO_STORE,
            _VARY_PACKED if self.compressing else _VARY,
            _NO_SNIFF,
        ]
        if (
            self.compressing
            and len(body) >= _COMPRESSED_FROM_BYTES
            and b"gzip" in self.headers.get(b"accept-encoding", b"")
        ):
            body = _packed(body) if len(body) < _COMPRESSED_ASIDE_FROM_BYTES else await asyncio.to_thread(_packed, body)
            raw.append((b"content-encoding", b"gzip"))
        raw.append((b"content-length", b"%d" % len(body)))
        if headers:
            raw += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        elif status == _OK and self._sent_whole(raw, body):
            return
        await self.send({"type": "http.response.start", "status": status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})

    def _sent_whole(self, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Sends the response the short way, where there is one; whether it did."""
        offered = (self.scope.get("extensions") or {}).get(WHOLE)
        return offered is not None and offered["send"](self.send, headers, body)


class GraphQLEndpoint:
    """The HTTP side of one engine; mount it as the endpoint of a Starlette Route without ``methods``."""

    def __init__(self, engine: Engine, authenticate: Authenticate, streams: EventStreams) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._authenticate = authenticate
        self._streams = streams
        self._rounds = Rounds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        headers = _headers(scope)
        visit = self._rounds.enter(receive)
        shown = headers.get(b"x-request-id")
        request_id = new_request_id() if shown is None else request_id_from(shown.decode("latin-1"))
        exchange = Exchange(scope, receive, send, headers, request_id, self._settings.compression, visit)
        media = Accepted(JSON)
        try:
            _check_method(scope["method"])
            media = accepted(headers.get(b"accept", b""))
            await self._serve(exchange, media)
        except ClientGone:
            return
        except RequestRefused as refused:
            await self._refuse(exchange, media, refused)
        except Exception as error:  # noqa: BLE001 - the last line: a bug is masked, logged and still answered as JSON
            await self._refuse(exchange, media, refusal(error, exchange.request_id))
        finally:
            self._rounds.leave(visit)

    async def _serve(self, exchange: Exchange, media: Accepted) -> None:
        by_get = exchange.scope["method"] == "GET"
        request = self._from_query(exchange) if by_get else await self._from_body(exchange)
        caller = _caller(exchange, Transport.SSE if media.primary == EVENT_STREAM else Transport.HTTP)
        identity = await self._identity(caller)
        ready = await self._ready(request, identity, caller, by_get=by_get, media=media)
        if media.primary == EVENT_STREAM or ready.operation.kind is OperationType.SUBSCRIPTION:
            await self._streams.serve(ready, exchange.receive, exchange.send)
            return
        answer = await self._answer(exchange, ready)
        await exchange.respond(200, media.primary, _encoded(answer, exchange.request_id))

    async def _answer(self, exchange: Exchange, ready: Ready) -> Answer:
        """The answer; a query whose client hangs up is cancelled, a mutation is finished."""
        if ready.operation.kind is OperationType.MUTATION:
            return await self._engine.answer(ready)
        visit = exchange.visit
        visit.within(self._settings.operation_deadline_seconds, watched=True)
        try:
            return await self._engine.unhurried(ready)
        except asyncio.CancelledError:
            if visit.expired:
                return self._engine.timed_out(ready)
            if visit.gone:
                raise ClientGone from None
            raise
        finally:
            await visit.over()

    async def _identity(self, caller: Caller) -> Identity:
        try:
            return await self._authenticate(caller)
        except Exception as error:
            raise refusal(error, caller.request_id) from error

    async def _ready(
        self, request: GraphQLRequest, identity: Identity, caller: Caller, *, by_get: bool, media: Accepted
    ) -> Ready:
        kinds = _BY_GET if by_get else _BY_POST
        if media.event_stream:
            kinds |= {OperationType.SUBSCRIPTION}
        try:
            return await self._engine.prepare(request, identity, caller, kinds=kinds)
        except RequestRefused as refused:
            if by_get and (refused.errors[0].extensions or {}).get("kind") == OperationType.MUTATION.value:
                raise RequestRefused(
                    ErrorCode.METHOD_NOT_ALLOWED, "A mutation needs POST.", headers={"allow": "POST"}
                ) from refused
            raise

    async def _refuse(self, exchange: Exchange, media: Accepted, refused: RequestRefused) -> None:
        lenient = refused.code in OF_THE_DOCUMENT
        answer = refused_answer(refused, exchange.request_id)
        if media.primary == EVENT_STREAM and lenient:
            await self._streams.tell(answer, exchange.request_id, exchange.send)
            return
        status = 200 if lenient and media.primary == JSON else refused.status
        shown = GRAPHQL_RESPONSE if media.primary == GRAPHQL_RESPONSE else JSON
        await exchange.respond(status, shown, answer.encoded(), refused.headers)

    def _from_query(self, exchange: Exchange) -> GraphQLRequest:
        try:
            found = parse_qs(
                exchange.scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=50,
            )
        except ValueError:
            raise RequestRefused(ErrorCode.BAD_REQUEST, "The query string is not valid.") from None
        members: dict[str, object] = {}
        for name in _QUERY_PARAMETERS:
            values = found.get(name, [])
            if len(values) > 1:
                raise RequestRefused(ErrorCode.BAD_REQUEST, f"{name} is given several times.")
            if values and values[0]:
                members[name] = decoded(values[0]) if name in {"variables", "extensions"} else values[0]
        return request_of(members)

    async def _from_body(self, exchange: Exchange) -> GraphQLRequest:
        _check_content(exchange.headers)
        return request_of(decoded(await self._body(exchange)))

    async def _body(self, exchange: Exchange) -> bytes:
        limit, seconds = self._settings.body_size_max_bytes, self._settings.body_deadline_seconds
        announced = exchange.headers.get(b"content-length", b"")
        if announced.isdigit() and (len(announced) > 15 or int(announced) > limit):  # noqa: PLR2004 - digits of a petabyte
            raise _too_large(limit)
        visit = exchange.visit
        visit.within(seconds)
        try:
            return await _whole(exchange.receive, limit)
        except asyncio.CancelledError:
            if not visit.expired:
                raise
            raise RequestRefused(
                ErrorCode.REQUEST_TIMEOUT,
                f"The body did not arrive within {seconds:g} seconds.",
                headers={"connection": "close"},
                deadlineSeconds=seconds,
            ) from None
        finally:
            await visit.over()


async def _whole(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join((*chunks, chunk)) if chunks else chunk
        chunks.append(chunk)


def _check_method(method: str) -> None:
    if method not in {"GET", "POST"}:
        raise RequestRefused(
            ErrorCode.METHOD_NOT_ALLOWED, "GraphQL is served by GET and POST.", headers={"allow": ALLOW}
        )


def _headers(scope: Scope) -> dict[bytes, bytes]:
    """The request's headers by name: the first of each, but for those that a client may repeat."""
    given = scope["headers"]
    found: dict[bytes, bytes] = dict(given)
    if len(found) == len(given):
        return found
    found = {}
    for name, value in given:
        if name not in found:
            found[name] = value
        elif name in _REPEATED:
            found[name] += b", " + value
    return found


def _packed(body: bytes) -> bytes:
    packing = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)
    return packing.compress(body) + packing.flush()


def _check_content(headers: Mapping[bytes, bytes]) -> None:
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding != b"identity" or not _is_json_in_utf8(headers.get(b"content-type", b"")[:_LARGEST_TYPE_CHARS]):
        raise RequestRefused(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            "POST takes application/json in UTF-8, not compressed.",
            headers={"accept": JSON},
        )


@lru_cache(maxsize=256)
def _is_json_in_utf8(content_type: bytes) -> bool:
    text = content_type.decode("latin-1")
    parsed = Message()
    parsed["content-type"] = text
    named = text.partition(";")[0].strip().lower()
    return named == JSON and parsed.get_content_charset("utf-8") in {"utf-8", "utf8"}


def _too_large(limit: int) -> RequestRefused:
    return RequestRefused(
        ErrorCode.PAYLOAD_TOO_LARGE, f"The body is over {limit} bytes.", headers={"connection": "close"}, limit=limit
    )


def _caller(exchange: Exchange, transport: Transport) -> Caller:
    client = exchange.scope.get("client")
    return Caller(
        token=bearer_token(exchange.header(b"authorization")) if b"authorization" in exchange.headers else None,
        ip=client[0] if client else None,
        user_agent=exchange.header(b"user-agent")[:512] or None,
        request_id=exchange.request_id,
        transport=transport,
    )


def _encoded(answer: Answer, request_id: str) -> bytes:
    try:
        return answer.encoded()
    except (TypeError, ValueError) as error:
        raise refusal(error, request_id) from error
