"""Carrying a stream over a WebSocket: nothing is lost, and no more is held than a few pieces, whoever is slow."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest
from starlette.websockets import WebSocket

from resolvers.transport.console import PIECE_BYTES, CarriageEnd, carry

MIB = 1 << 20
MOST_HELD = 2 * MIB
"""What sockets and buffers on the way may hold together; without a bound all of it would be taken."""
PATIENCE_S = 20.0
Message = MutableMapping[str, Any]


class Client:
    """The client's end of an ASGI WebSocket: what it sends is queued, and it takes what comes when it may."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.taking = asyncio.Event()
        self.taking.set()
        self.got = bytearray()
        self.heard = 0

    async def receive(self) -> Message:
        message = await self.sent.get()
        self.heard += 1
        return message

    async def send(self, message: Message) -> None:
        await self.taking.wait()
        self.got += message.get("bytes", b"")

    def say(self, body: bytes) -> None:
        """Send a binary message."""
        self.sent.put_nowait({"type": "websocket.receive", "bytes": body})

    async def socket(self) -> WebSocket:
        """Its WebSocket at the server's side, accepted."""
        scope = {"type": "websocket", "path": "/", "headers": [], "subprotocols": []}
        made = WebSocket(scope, self.receive, self.send)
        self.sent.put_nowait({"type": "websocket.connect"})
        await made.accept()
        self.heard = 0
        return made


Carried = Callable[[Client, socket.socket, "asyncio.Task[CarriageEnd | None]"], Awaitable[None]]


def carried(work: Carried, *, idle_seconds: float = PATIENCE_S) -> CarriageEnd | None:
    """Carry between a client and a console while ``work`` drives both; why it ended."""

    async def run() -> CarriageEnd | None:
        client = Client()
        line, far = socket.socketpair()
        far.setblocking(False)
        with line, far:
            task = asyncio.create_task(carry(await client.socket(), line, {}, idle_seconds))
            await work(client, far, task)
            return await asyncio.wait_for(task, PATIENCE_S)

    return asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def test_a_client_that_takes_nothing_stops_its_console() -> None:
    body = bytes(range(256)) * (16 * MIB // 256)

    async def work(client: Client, far: socket.socket, _task: asyncio.Task[CarriageEnd | None]) -> None:
        client.taking.clear()
        loop = asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(far, body))
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done, "all was taken, though nobody reads"
        client.taking.set()
        await sending
        await until(lambda: len(client.got) == len(body))
        assert client.got == body
        far.shutdown(socket.SHUT_WR)

    end = carried(work)
    assert end is not None
    assert (end.code, end.reason) == (1000, "The console is over")


def test_a_console_that_takes_nothing_stops_its_client() -> None:
    pieces = 16 * MIB // PIECE_BYTES

    async def work(client: Client, far: socket.socket, _task: asyncio.Task[CarriageEnd | None]) -> None:
        for number in range(pieces):
            client.say(bytes([number % 256]) * PIECE_BYTES)
        await until(lambda: client.heard > 0)
        loop = asyncio.get_running_loop()
        for _ in range(500):  # as long as it takes anything it has had its turns
            await asyncio.sleep(0)
        assert client.heard * PIECE_BYTES <= MOST_HELD
        got = bytearray()
        while len(got) < pieces * PIECE_BYTES:
            got += await loop.sock_recv(far, MIB)
        assert got == b"".join(bytes([number % 256]) * PIECE_BYTES for number in range(pieces))
        client.sent.put_nowait({"type": "websocket.disconnect", "code": 1001})

    assert carried(work) is None


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "websocket.receive", "text": "hello"}, 1003),
        ({"type": "websocket.receive", "bytes": bytes(PIECE_BYTES + 1)}, 1009),
    ],
)
def test_messages_that_are_no_messages(message: Message, code: int) -> None:
    async def work(client: Client, _far: socket.socket, _task: asyncio.Task[CarriageEnd | None]) -> None:
        client.sent.put_nowait(message)

    end = carried(work)
    assert end is not None
    assert end.code == code


def test_a_console_that_breaks_off_is_over() -> None:
    async def work(client: Client, far: socket.socket, _task: asyncio.Task[CarriageEnd | None]) -> None:
        client.say(b"unread")
        await until(lambda: client.heard == 1)
        far.close()  # with data unread: the other end is reset, not just closed

    end = carried(work)
    assert end is not None
    assert end.code == 1000


def test_a_console_over_which_nothing_goes_is_closed() -> None:
    async def work(client: Client, far: socket.socket, _task: asyncio.Task[CarriageEnd | None]) -> None:
        client.say(b"x")
        assert await asyncio.get_running_loop().sock_recv(far, 1) == b"x"

    end = carried(work, idle_seconds=0.2)
    assert end is not None
    assert end.code == 4408
