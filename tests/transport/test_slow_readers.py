"""Clients that do not read, among a thousand that do: nobody waits for them, they hold little, and they miss nothing;
and one that never reads again is cut off.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import strawberry
import uvicorn
from starlette.applications import Starlette
from strawberry.types import Info

from resolvers.transport import prompt, websocket
from resolvers.transport.app import TransportSettings, routes
from resolvers.transport.audience import Tail
from resolvers.transport.packets import WholeResponses
from resolvers.transport.prompt import PromptSockets
from tests.transport.toy_identity import Desk

pytestmark = pytest.mark.timeout(300)
READERS, DEAF, ITEMS = 1_000, 10, 40
TEXT = "x" * 2_000
BUFFER_BYTES = 16_384
HIGH_WATER_BYTES = 65_536
SECONDS = 120


@dataclass
class Board:
    """What is told, and how many look at it by themselves or together."""

    items: list[News] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    together: int = 0

    async def tell(self) -> None:
        async with self.changed:
            self.items.append(News(number=len(self.items) + 1))
            self.changed.notify_all()

    async def behind(self, place: int) -> News:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.items) > place)
            return self.items[place]


@strawberry.type
class News:
    """One item."""

    number: int

    @property
    def place(self) -> int:
        return self.number

    @strawberry.field
    def text(self) -> str:
        return TEXT


@dataclass
class Context:
    """All see alike."""

    board: Board
    together: bool = False
    standing: str = "anybody"
    viewer: str = "anybody"
    personal: bool = False

    def typical(self) -> Context:
        return Context(self.board)


@strawberry.type
class Query:
    """Nothing."""

    nothing: int = 0


@strawberry.type
class Subscription:
    """The news."""

    @strawberry.subscription
    async def news(self, info: Info[Context, None]) -> AsyncGenerator[News, None]:
        board, place = info.context.board, 0
        while True:
            while place < len(board.items):
                yield board.items[place]
                place += 1
            board.together += 1
            tail = Tail("news", place, partial(_live, board, place))
            yield tail  # type: ignore[misc]  # the transport's own
            board.together -= 1
            place = tail.place


async def _live(board: Board, place: int, contexts: Callable[[], Awaitable[Any]]) -> AsyncGenerator[News, None]:
    while True:
        item = await board.behind(place)
        await contexts()
        yield item
        place = item.number


class Reader(asyncio.Protocol):
    """A socket that subscribes and notes the numbers that it is told. A deaf one does not read until it is told to."""

    def __init__(self, *, deaf: bool) -> None:
        self.told: list[int] = []
        self.lost = asyncio.get_running_loop().create_future()
        self._deaf = deaf
        self._bytes = bytearray()
        self._shaken = False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(
            b"GET /graphql HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        )

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        if not self._shaken:
            end = self._bytes.find(b"\r\n\r\n")
            if end < 0:
                return
            self._shaken = True
            del self._bytes[: end + 4]
            self._say({"type": "connection_init"})
            self._say({"type": "subscribe", "id": "1", "payload": {"query": "subscription { news { number text } }"}})
        while (message := self._message()) is not None:
            if message["type"] == "ping":
                self._say({"type": "pong"})
            elif message["type"] == "next":
                self.told.append(message["payload"]["data"]["news"]["number"])
            elif message["type"] == "connection_ack" and self._deaf:
                self.transport.pause_reading()

    def _message(self) -> Any:
        held = self._bytes
        if len(held) < 4:
            return None
        size, start = held[1], 2
        if size == 126:
            size, start = struct.unpack("!H", held[2:4])[0], 4
        if len(held) < start + size:
            return None
        text = bytes(held[start : start + size])
        del held[: start + size]
        return json.loads(text)

    def _say(self, message: Any) -> None:
        body = json.dumps(message).encode()
        assert len(body) < 126
        self.transport.write(bytes([0x81, 0x80 | len(body)]) + b"\0\0\0\0" + body)


@asynccontextmanager
async def served(board: Board, **settings: Any) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """A port, and the server; its sockets have small buffers, so that little fills them."""
    desk = Desk()
    schema = strawberry.Schema(Query, subscription=Subscription)
    given = TransportSettings(
        connections_per_identity=READERS + DEAF, pending_connections_per_address=READERS + DEAF, **settings
    )
    app = Starlette(routes=routes(schema, given, desk.authenticate, lambda *_: Context(board)))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    config = uvicorn.Config(
        app, http=WholeResponses, ws=PromptSockets, ws_per_message_deflate=False, log_level="error", lifespan="off"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1], server
    finally:
        server.force_exit = server.should_exit = True
        await running


async def reader(port: int, *, deaf: bool = False) -> Reader:
    """A new one."""
    loop = asyncio.get_running_loop()
    made = socket.socket()
    made.setblocking(False)
    if deaf:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    await loop.sock_connect(made, ("127.0.0.1", port))
    return (await loop.create_connection(lambda: Reader(deaf=deaf), sock=made))[1]


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - sockets tell of it, not one event
        await asyncio.sleep(0.01)


def test_who_does_not_read_holds_nobody_up_holds_little_and_misses_nothing() -> None:
    async def run() -> None:
        board = Board()
        async with asyncio.timeout(SECONDS), served(board, ping_seconds=SECONDS) as (port, server):
            deaf = [await reader(port, deaf=True) for _ in range(DEAF)]
            quick = [await reader(port) for _ in range(READERS)]
            await until(lambda: board.together == READERS + DEAF)
            for number in range(1, ITEMS + 1):
                await board.tell()
                await until(lambda number=number: all(each.told[-1:] == [number] for each in quick))  # type: ignore[misc]  # mypy cannot infer a defaulted lambda
            assert all(each.told == [*range(1, ITEMS + 1)] for each in quick)
            held = [each.transport.get_write_buffer_size() for each in server.server_state.connections]
            assert sum(size > 0 for size in held) == DEAF, "those who do not read are behind"
            assert max(held) <= HIGH_WATER_BYTES + 2 * len(TEXT), "what they were not sent is in the log alone"
            for each in deaf:
                each.transport.resume_reading()
            await until(lambda: all(len(each.told) == ITEMS for each in deaf))
            assert all(each.told == [*range(1, ITEMS + 1)] for each in deaf)
            await until(lambda: board.together == READERS + DEAF)
            for each in [*quick, *deaf]:
                each.transport.abort()

    asyncio.run(run())


def test_who_never_reads_again_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot even be told so: what it did not read stands before that."""
    monkeypatch.setattr(prompt, "FAREWELL_S", 0.1)
    monkeypatch.setattr(websocket, "_FAREWELL_SECONDS", 0.1)

    async def run() -> None:
        board = Board()
        async with asyncio.timeout(SECONDS), served(board, ping_seconds=1) as (port, server):
            deaf, quick = await reader(port, deaf=True), await reader(port)
            await until(lambda: board.together == 2)
            other: Any = next(each for each in server.server_state.connections if _client(each) == _name(deaf))
            while other.transport.get_write_buffer_size() == 0:
                await board.tell()
                await until(lambda: quick.told[-1:] == [len(board.items)])
            await until(lambda: other not in server.server_state.connections)
            await board.tell()
            await until(lambda: quick.told[-1:] == [len(board.items)])
            deaf.transport.resume_reading()
            await deaf.lost
            quick.transport.abort()

    asyncio.run(run())


def _client(of: Any) -> Any:
    return of.client


def _name(of: Reader) -> Any:
    return of.transport.get_extra_info("sockname")
