"""GraphQL over server-sent events, "distinct connections" mode: one request, one stream, one operation.

Invariant: a stream begins at once, ends with ``complete`` when its operation did, and ends **without** it when the
server stops or the token is no longer good, so that the client's retry picks up from its last cursor. The single
connection mode (PUT a token, many operations) is deliberately absent: WebSocket does that.
"""

from __future__ import annotations

import asyncio
from asyncio import FIRST_COMPLETED
from contextlib import aclosing
from typing import Final

from starlette.types import Receive, Send

from resolvers.transport.answers import Answer, refused_answer
from resolvers.transport.errors import ErrorCode, RequestRefused, refusal
from resolvers.transport.execution import Engine, Ready
from resolvers.transport.lives import Tally, at_once, disconnected, ended
from resolvers.transport.vigil import Bells, Vigil

_COMPLETE: Final = b"event: complete\ndata: \n\n"
_PING: Final = b":\n\n"


class EventStreams:
    """The event streams of one engine. ``tally`` is shared with the sockets: one caller, one allowance."""

    def __init__(self, engine: Engine, tally: Tally) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._tally = tally
        self._tokens = Vigil(engine.settings.validity_poll_seconds)
        self._stopping = Bells(engine.settings.stopping)

    async def serve(self, ready: Ready, receive: Receive, send: Send) -> None:
        """Streams the operation until it completes, the client leaves, the token ends or the server stops.

        Raises :class:`RequestRefused` (TOO_MANY_CONNECTIONS) before anything is sent.
        """
        with self._tally.slot(ready.identity.key):
            await _begin(send, ready.caller.request_id)
            with self._tokens.over(ready.identity) as expired, self._stopping.rung() as stopping:
                work = [asyncio.create_task(each) for each in (self._pump(ready, send), disconnected(receive))]
                pinging = asyncio.create_task(self._pings(send))
                try:
                    done, _ = await asyncio.wait((*work, pinging, expired, stopping), return_when=FIRST_COMPLETED)
                finally:
                    await ended([*work, pinging])
                for task in (*work, pinging):
                    if task in done:
                        task.result()
                if expired in done:
                    await self._tell_expired(ready, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def tell(self, answer: Answer, request_id: str, send: Send) -> None:
        """A stream of one answer: how a refused document reaches a client that only reads streams."""
        await _begin(send, request_id)
        await _next(send, answer.encoded())
        await send({"type": "http.response.body", "body": _COMPLETE, "more_body": False})

    async def _pump(self, ready: Ready, send: Send) -> None:
        def offer(body: bytes) -> bool:
            return at_once(_next(send, body))

        try:
            async with aclosing(self._engine.stream(ready, offer)) as answers:
                async for answer in answers:
                    await _next(send, answer.encoded())
        except Exception as error:  # noqa: BLE001 - the stream has begun: whatever happens is told inside it, masked
            request_id = ready.caller.request_id
            await _next(send, refused_answer(refusal(error, request_id), request_id).encoded())
        await _chunk(send, _COMPLETE)

    async def _tell_expired(self, ready: Ready, send: Send) -> None:
        refused = RequestRefused(ErrorCode.UNAUTHENTICATED, "The token expired or was revoked.")
        await _next(send, refused_answer(refused, ready.caller.request_id).encoded())

    async def _pings(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._settings.ping_seconds)
            await _chunk(send, _PING)


async def _begin(send: Send, request_id: str) -> None:
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
        (b"x-request-id", request_id.encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await _chunk(send, _PING)


async def _next(send: Send, body: bytes) -> None:
    await _chunk(send, b"event: next\ndata: " + body + b"\n\n")


async def _chunk(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
