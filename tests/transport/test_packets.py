"""What leaves the socket when uvicorn's writes are gathered: all of it, in order, and never late."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect

from resolvers.transport.packets import WHOLE, WholeResponses

LARGE = b"x" * 5_000_000
go_on = asyncio.Event()
"""Set when the stream may go on."""
SECONDS = 20


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers by path: once, in parts with a wait for the client between them, much, and over a WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        return
    await receive()
    body = LARGE if scope["path"] == "/large" else b"hello"
    streaming = scope["path"] == "/stream"
    headers = [] if streaming else [(b"content-length", b"%d" % len(body))]
    if scope["path"] in ("/whole", "/wrapped"):
        through = send if scope["path"] == "/whole" else partial(send)
        if scope["extensions"][WHOLE]["send"](through, headers, body):
            return
        headers.append((b"x-way", b"long"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if streaming:
        await go_on.wait()
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """A port."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=WholeResponses,
        log_level="error",
        lifespan="off",
        ws="websockets-sansio",
        access_log=False,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it by nothing else
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


def in_time(work: Callable[[int], Awaitable[None]]) -> None:
    """Run with a served port."""

    async def whole() -> None:
        async with asyncio.timeout(SECONDS), served() as port:
            await work(port)

    asyncio.run(whole())


def request(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n{more}\r\n".encode()


def test_head_and_body_leave_together_on_one_connection_again_and_again() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(request("/"))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(5) == b"hello"
        writer.write(request("/") + request("/"))  # one behind the other, without waiting
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(5) == b"hello"
        writer.close()

    in_time(work)


def test_the_short_way_says_the_same_and_leaves_to_the_long_one_what_is_not_plain() -> None:
    async def work(port: int) -> None:
        async def head_of(path: str, more: str = "") -> bytes:
            writer.write(request(path, more))
            head = await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(5) == b"hello"
            return head

        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        short, usual = await head_of("/whole"), await head_of("/")
        assert re.sub(rb"date: [^\r]+", b"", short) == re.sub(rb"date: [^\r]+", b"", usual)
        long = await head_of("/wrapped")  # somebody wants to see what is sent
        assert long.replace(b"x-way: long\r\n", b"").partition(b"date")[0] == usual.partition(b"date")[0] != b""
        assert b"x-way" in long
        writer.write(request("/whole") * 3)  # one behind the other, without waiting
        for _ in range(3):
            assert b" 200 OK\r\n" in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(5) == b"hello"
        assert b"x-way" in await head_of("/whole", "connection: close\r\n")
        assert await reader.read(-1) == b""
        writer.close()

    in_time(work)


@pytest.mark.parametrize("path", ["/", "/large"])
def test_all_of_it_comes_before_the_connection_ends(path: str) -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(path, "connection: close\r\n"))
        found = await reader.read(-1)
        assert found.partition(b"\r\n\r\n")[2] == (LARGE if path == "/large" else b"hello")
        writer.close()

    in_time(work)


def test_a_streams_head_waits_for_nothing() -> None:
    async def work(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/stream"))
        assert b"chunked" in await reader.readuntil(b"\r\n\r\n")
        go_on.set()
        assert await reader.readuntil(b"0\r\n\r\n") == b"5\r\nhello\r\n0\r\n\r\n"
        writer.close()

    in_time(work)


def test_a_client_that_leaves_in_the_middle_harms_nobody() -> None:
    async def work(port: int) -> None:
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request("/large"))
            writer.transport.abort()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("/", "connection: close\r\n"))
        assert (await reader.read(-1)).endswith(b"hello")
        writer.close()

    in_time(work)


def test_a_websocket_goes_on_by_itself() -> None:
    async def work(port: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/") as socket:
            for text in ("one", "two"):
                await socket.send(text)
                assert await socket.recv() == text.upper()

    in_time(work)
