"""WebSockets that can be told at once: uvicorn's protocol, with a short way for what thousands are sent.

An application finds a function in the scope's extensions (:data:`PROMPT`) that hands a finished frame to the kernel, or
says that it would have to wait. Without it each socket would have each message framed for itself, through a coroutine
and five calls: as much CPU again as the kernel takes for sending it.

Invariant: a frame leaves between two messages and never inside one, only on an open connection, and only when nothing
is waiting to leave; so nothing is buffered here for a client that does not read. A connection whose application has
ended is gone some seconds later, whatever its client does: one that does not read is cut off.

A socket mostly waits, so what it holds meanwhile counts: what only the handshake needed is let go of after it, its
queue and its gate are smaller than asyncio's, and it leaves no cycles behind that a collection of garbage would have to
find among the objects of thousands of others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

PROMPT: Final = "stratograph.prompt"
"""The name of the extension; its value is a :data:`Prompt` under the key ``send``."""
FAREWELL_S: Final = 10.0
"""So long a client has for reading what is there once its application has ended."""
_MOST_PREFIXES: Final = 16

Prompt = Callable[[bytes], bool]
"""Sends a frame if that can be done without waiting; whether it was sent."""

_quiet = logging.getLogger("uvicorn.error.websocket")
_quiet.setLevel(logging.WARNING)  # each connection is no news, as no request over HTTP is


class PromptSockets(WebSocketsSansIOProtocol):
    """uvicorn's protocol; see the module."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.logger = self.conn.logger = _quiet
        self.queue = _Letters(self.loop)  # type: ignore[assignment]  # it has what is used of one
        self.writable = _Gate(self.loop)  # type: ignore[assignment]  # likewise
        self._end: asyncio.TimerHandle | None = None

    def handle_connect(self, event: Request) -> None:
        """A handshake came: offer the short way with it."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self.scope["extensions"] = {**(self.scope["extensions"] or {}), PROMPT: {"send": self.prompt}}

    def prompt(self, frame: bytes) -> bool:
        """Send a frame; False if that must wait, or cannot be done any more."""
        if not self.writable.is_set() or self.conn.state is not State.OPEN or self.conn.extensions:
            return False
        if self.close_sent or not self.handshake_complete or self.transport.is_closing():
            return False
        self.transport.write(frame)
        return True

    def start_keepalive(self) -> None:
        """The handshake is over. Pings are the application's."""
        del self.request, self.response

    async def run_asgi(self) -> None:
        """Serve the application, then see that the connection ends."""
        try:
            await super().run_asgi()
        finally:
            if not self.disconnected:
                self._end = self.loop.call_later(FAREWELL_S, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)
        self.conn.parser.close()  # it knows us
        if hasattr(self, "scope"):  # not where the handshake was refused before the application heard of it
            self.scope["extensions"] = {}  # so does this


class _Letters:
    """What came and was not asked for yet, for one who asks."""

    __slots__ = ("_came", "_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._came: list[Any] = []
        self._loop = loop
        self._waiting: asyncio.Future[None] | None = None

    def put_nowait(self, letter: Any) -> None:
        self._came.append(letter)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def get(self) -> Any:
        while not self._came:
            self._waiting = self._loop.create_future()
            await self._waiting
        self._waiting = None
        return self._came.pop(0)

    def empty(self) -> bool:
        return not self._came


class _Gate:
    """Open, or shut for all who wait."""

    __slots__ = ("_loop", "_open", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open = True
        self._waiting: set[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        return self._open

    def set(self) -> None:
        self._open = True
        for each in self._waiting or ():
            if not each.done():
                each.set_result(None)

    def clear(self) -> None:
        self._open = False

    async def wait(self) -> bool:
        while not self._open:
            future = self._loop.create_future()
            self._waiting = self._waiting or set()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)
                if not self._waiting:
                    self._waiting = None
        return True


def frame_of(text: bytes) -> bytes:
    """A whole text message as a server sends it, without extensions."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)


class Frames:
    """The frames of the body that is being given out, by what stands before it: thousands of sockets use a few
    different operation ids.
    """

    __slots__ = ("_body", "_by_prefix")

    def __init__(self) -> None:
        self._body = b""
        self._by_prefix: dict[bytes, bytes] = {}

    def of(self, prefix: bytes, body: bytes) -> bytes:
        """The frame of ``prefix``, ``body`` and a closing brace."""
        if body is not self._body:
            self._body, self._by_prefix = body, {}
        frame = self._by_prefix.get(prefix)
        if frame is None:
            frame = frame_of(b"%s%s}" % (prefix, body))
            if len(self._by_prefix) < _MOST_PREFIXES:
                self._by_prefix[prefix] = frame
        return frame
