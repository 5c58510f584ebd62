"""HTTP responses leave whole: uvicorn's protocol, with what one turn of the event loop writes sent at once.

uvicorn writes a response's head and its body each by a system call of its own, and a client is woken by either: a
twelfth of what reading one server costs. A response's parts still leave in their order and in the turn in which they
were written, so that a stream's head does not wait for its first event.

An answer that is there as a whole has a shorter way still: an application finds a function in the scope's extensions
(:data:`WHOLE`) that writes it without the two coroutines and the parsing of headers that a message each would take (a
twentieth of reading one server). It does so only where nothing stands between application and socket.

A WebSocket keeps its own transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

WHOLE: Final = "stratograph.whole"
"""The name of the extension; its value is a :class:`Whole` under the key ``send``."""


class Gathering:
    """A transport that gathers what is written within one turn of the loop. All else is the transport's own."""

    __slots__ = ("_call_soon", "_kept", "bare")

    def __init__(self, bare: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.bare = bare
        self._call_soon = loop.call_soon
        self._kept: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send this at the end of the turn."""
        if not self._kept:
            self._call_soon(self._send)
        self._kept.append(data)

    def write_now(self, data: bytes) -> None:
        """Send this at once, unless something is waiting to leave before it."""
        if self._kept:
            self._kept.append(data)
        else:
            self.bare.write(data)

    def close(self) -> None:
        """Send what is there, and close."""
        self._send()
        self.bare.close()

    def _send(self) -> None:
        if not self._kept:
            return
        data = b"".join(self._kept)
        self._kept.clear()
        if not self.bare.is_closing():
            self.bare.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


class Whole:
    """The short way for the answers of one connection."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol: HttpToolsProtocol | None = protocol

    def __call__(self, send: Any, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write an answer of status 200 in place of ``send``; whether that was done. Names and values of headers are
        the caller's own and sane, and tell the body's length.
        """
        cycle = None if self._protocol is None else self._protocol.cycle
        if cycle is None or send != cycle.send or cycle.response_started or cycle.disconnected:
            return False
        if not cycle.keep_alive or cycle.flow.write_paused or cycle.access_log:
            return False
        cycle.response_started = cycle.response_complete = True
        lines = [b"%s: %s\r\n" % each for each in (*cycle.default_headers, *headers)]
        transport: Any = cycle.transport
        transport.write_now(b"".join((b"HTTP/1.1 200 OK\r\n", *lines, b"\r\n", body)))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def end(self) -> None:
        """The connection is gone. Nobody holds it through us any more."""
        self._protocol = None


class WholeResponses(HttpToolsProtocol):
    """uvicorn's protocol on a gathering transport, with the short way."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._whole = Whole(self)
        self._extensions: dict[str, dict[object, object]] = {WHOLE: {"send": self._whole}}

    def connection_made(self, transport: Any) -> None:
        """A client came."""
        super().connection_made(Gathering(transport, self.loop))  # type: ignore[arg-type]  # it has what is used of one

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        super().connection_lost(exc)
        self._whole.end()

    def on_message_begin(self) -> None:
        """A request begins: offer the short way with it."""
        super().on_message_begin()
        self.scope["extensions"] = self._extensions

    def handle_websocket_upgrade(self) -> None:
        """It goes on as a WebSocket, which writes for itself."""
        self._whole.end()
        transport: Any = self.transport
        self.transport = transport.bare
        super().handle_websocket_upgrade()
        del self.parser  # it knows us: without this, only a collection of garbage would find either
