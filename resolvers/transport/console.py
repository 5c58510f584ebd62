"""A byte stream carried over a WebSocket: binary messages one way and the other, as VNC clients in browsers want it.

Invariant: no more than a few pieces of 64 KiB are held here in each direction, for each end is read only when the other
took what came before; a client that reads slowly slows its console and nothing else. Whatever ends first ends both, the
socket with a code that says why: 1000 the console is over, 1001 the server stops, 1003 a text message, 1009 a message
too long, 4403 no longer allowed, 4408 nobody did anything for long. It knows nothing of what goes over it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from resolvers.transport.lives import ended

SUBPROTOCOL: Final = "binary"
PIECE_BYTES: Final = 1 << 16
MESSAGE_BYTES_MOST: Final = 1 << 16


class CarriageEnd(Exception):  # noqa: N818 - a decision, not an error
    """Why a console ended, as a close code with its reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def carry(
    websocket: WebSocket,
    line: socket.socket,
    reasons: Mapping[asyncio.Future[None], tuple[int, str]],
    idle_seconds: float,
) -> CarriageEnd | None:
    """Carry bytes between an accepted WebSocket and a connected stream until one of them ends, a future of ``reasons``
    is done, or nothing went either way for ``idle_seconds``. Closes the stream. Answers why; None: the client left.
    """
    line.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=line, limit=PIECE_BYTES)
    loop = asyncio.get_running_loop()
    ways: list[asyncio.Task[None]] = []
    try:
        async with asyncio.timeout(idle_seconds) as patience:
            carriage = _Carriage(websocket, reader, writer, lambda: patience.reschedule(loop.time() + idle_seconds))
            ways = [asyncio.create_task(carriage.out()), asyncio.create_task(carriage.back())]
            done, _ = await asyncio.wait((*ways, *reasons), return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        return CarriageEnd(4408, "Nothing went over it for too long")
    finally:
        writer.transport.abort()  # what is still in the buffer is for nobody
        await ended(ways)
    for future, reason in reasons.items():
        if future in done:
            return CarriageEnd(*reason)
    for way in ways:
        if way in done:
            error = way.exception()
            if isinstance(error, CarriageEnd):
                return error
            if error is not None and not isinstance(error, WebSocketDisconnect):
                raise error
    return None


class _Carriage:
    """The two directions. ``moved`` is called whenever something arrived at its other end."""

    def __init__(
        self,
        websocket: WebSocket,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        moved: Callable[[], None],
    ) -> None:
        self._websocket = websocket
        self._reader = reader
        self._writer = writer
        self._moved = moved

    async def out(self) -> None:
        """From the console to the client. Raises CarriageEnd when the console is over."""
        while piece := await self._heard():
            await self._websocket.send_bytes(piece)
            self._moved()
        raise CarriageEnd(1000, "The console is over")

    async def _heard(self) -> bytes:
        try:
            return await self._reader.read(PIECE_BYTES)
        except OSError:  # reset by the other side: over as well
            return b""

    async def back(self) -> None:
        """From the client to the console. Raises WebSocketDisconnect when the client left, CarriageEnd."""
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1006))
            body = message.get("bytes")
            if body is None:
                raise CarriageEnd(1003, "Binary messages only")
            if len(body) > MESSAGE_BYTES_MOST:
                raise CarriageEnd(1009, f"At most {MESSAGE_BYTES_MOST} bytes in a message")
            self._writer.write(body)
            try:
                await self._writer.drain()
            except OSError:
                raise CarriageEnd(1000, "The console is over") from None
            self._moved()
