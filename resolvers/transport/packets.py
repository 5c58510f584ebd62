"""HTTP responses leave whole: uvicorn's protocol, with what one turn of the event loop writes sent at once.

uvicorn writes a response's head and its body each by a system call of its own, and a client is woken by either: a
twelfth of what reading one server costs. A response's parts still leave in their order and in the turn in which they
were written, so that a stream's head does not wait for its first event.

A WebSocket keeps its own transport.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


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


class WholeResponses(HttpToolsProtocol):
    """uvicorn's protocol on a gathering transport."""

    def connection_made(self, transport: Any) -> None:
        """A client came."""
        super().connection_made(Gathering(transport, self.loop))  # type: ignore[arg-type]  # it has what is used of one

    def handle_websocket_upgrade(self) -> None:
        """It goes on as a WebSocket, which writes for itself."""
        transport: Any = self.transport
        self.transport = transport.bare
        super().handle_websocket_upgrade()
        del self.parser  # it knows us: without this, only a collection of garbage would find either
