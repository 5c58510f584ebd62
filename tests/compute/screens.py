"""Consoles over a real socket: a gateway that serves the world's, and a VNC client of a few lines."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from gateway.dashboard.routes import routes as dashboard_routes
from resolvers.compute.console_route import routes
from tests.servers.daemon import wait_until
from tests.world import Client, World
from workers.compute.live import Live

SECONDS = 20.0
GREETING = b"RFB 003.008\n"
CREATE = "url websocketUrl protocol expiresAt server { id }"


@dataclass
class Gateway:
    """A running gateway of a world."""

    world: World
    port: int
    stopping: asyncio.Event
    loop: asyncio.AbstractEventLoop

    def ticket(self, who: Client, server: str, **given: Any) -> str:
        """A new ticket."""
        made = who.do("serverConsoleCreate", CREATE, id=server, **given)
        address: str = made["websocketUrl"]
        return address.partition("?ticket=")[2]

    def dial(self, ticket: str, *, origin: str | None = None, subprotocols: tuple[str, ...] = ("binary",)) -> Screen:
        """Open a console with that ticket."""
        address = f"ws://127.0.0.1:{self.port}/console/socket?ticket={ticket}"
        return dial(address, origin=origin, subprotocols=subprotocols)

    def open(self, who: Client, server: str, **given: Any) -> Screen:
        """A new console of that server."""
        return self.dial(self.ticket(who, server, **given))

    def stop(self) -> None:
        """Tell it to stop, as the end of the process does."""
        self.loop.call_soon_threadsafe(self.stopping.set)


@dataclass
class Screen:
    """A VNC client on a WebSocket."""

    wire: ClientConnection
    kept: bytearray = field(default_factory=bytearray)

    def read(self, count: int) -> bytes:
        """So many bytes, however they were cut into messages."""
        while len(self.kept) < count:
            message = self.wire.recv(SECONDS)
            assert isinstance(message, bytes)
            self.kept += message
        found = bytes(self.kept[:count])
        del self.kept[:count]
        return found

    def greet(self) -> tuple[int, int, str]:
        """Go through RFB's greeting; width, height and title of the screen."""
        assert self.read(len(GREETING)) == GREETING
        self.wire.send(GREETING)
        assert 1 in self.read(self.read(1)[0])
        self.wire.send(b"\1")
        assert self.read(4) == b"\0\0\0\0"
        self.wire.send(b"\1")
        width, height, length = struct.unpack(">HH16xI", self.read(24))
        return width, height, self.read(length).decode()

    def ask(self, area: tuple[int, int, int, int], *, again: bool = False) -> None:
        """Ask for an area of the screen; ``again``: when it changed."""
        self.wire.send(struct.pack(">BB4H", 3, again, *area))

    def update(self) -> bytes:
        """The next update's pixels, which must be one raw rectangle."""
        kind, count, _, _, width, height, encoding = struct.unpack(">BxH4Hi", self.read(16))
        assert (kind, count, encoding) == (0, 1, 0)
        return self.read(width * height * 4)

    def key(self, *symbols: int) -> None:
        """Press keys one after the other, and let go of them."""
        for down, each in [*((1, each) for each in symbols), *((0, each) for each in reversed(symbols))]:
            self.wire.send(struct.pack(">BBxxI", 4, down, each))

    def end(self) -> tuple[int, str]:
        """How the gateway closed it, after whatever else came."""
        with suppress(ConnectionClosed):
            while True:
                self.wire.recv(SECONDS)
        assert self.wire.close_code is not None
        return self.wire.close_code, self.wire.close_reason or ""


def dial(address: str, *, origin: str | None = None, subprotocols: tuple[str, ...] = ("binary",)) -> Screen:
    """Open the console of an address."""
    wire = connect(
        address,
        additional_headers={"origin": origin} if origin is not None else {},
        subprotocols=[Subprotocol(each) for each in subprotocols] or None,
        max_size=None,
        compression=None,
        open_timeout=SECONDS,
        legacy=True,
    )
    return Screen(wire)


@contextmanager
def serving(world: World) -> Iterator[Gateway]:
    """The world's consoles and pages on a port of their own."""
    listener = socket.create_server(("127.0.0.1", 0))
    stopping = asyncio.Event()
    live = Live(world.db, world.hosts)
    app = Starlette(routes=[*routes(world.db, world.settings, live, stopping), *dashboard_routes()])
    config = uvicorn.Config(
        app, log_config=None, ws_ping_interval=None, ws_max_size=1 << 20, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listener])

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="consoles")
    thread.start()
    try:
        wait_until(lambda: server.started, SECONDS, "the gateway serves")
        yield Gateway(world, listener.getsockname()[1], stopping, loops[0])
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        listener.close()
