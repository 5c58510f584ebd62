"""Connections leave nothing behind: no task, no slot, no open source.

STRATOGRAPH_TEST_CONNECTS says how many of each kind: 1,000 sockets and 200 streams by default, 10,000 of each when
`make clients CONNECTS=10000` asks. What a whole gateway holds of the machine is weighed in tests/clients.
"""

from __future__ import annotations

import asyncio
import json
import os

import httpx2
import pytest
from websockets.asyncio.client import connect

from tests.transport.calls import wait_until
from tests.transport.conftest import Serve, Server

pytestmark = pytest.mark.timeout(600)
CONNECTS = int(os.environ.get("STRATOGRAPH_TEST_CONNECTS", "1000"))
STREAMS = int(os.environ.get("STRATOGRAPH_TEST_CONNECTS", "200"))
AT_ONCE = 40
SUBSCRIBE = {"type": "subscribe", "id": "1", "payload": {"query": "subscription { forever }"}}


async def _connect(server: Server, number: int, gate: asyncio.Semaphore) -> None:
    """One client; every fourth leaves early, completes, is cut, or closes politely."""
    async with gate, connect(server.websocket_url, subprotocols=["graphql-transport-ws"]) as opened:  # type: ignore[list-item]  # a plain str is a Subprotocol
        if number % 4 == 0:
            return
        await opened.send(json.dumps({"type": "connection_init"}))
        await opened.send(json.dumps(SUBSCRIBE))
        while json.loads(await opened.recv())["type"] != "next":
            pass
        if number % 4 == 1:
            await opened.send(json.dumps({"type": "complete", "id": "1"}))
        elif number % 4 == 2:
            opened.transport.abort()


async def _stream(server: Server, gate: asyncio.Semaphore, client: httpx2.AsyncClient) -> None:
    body = {"query": "subscription { forever }"}
    async with gate, client.stream("POST", server.url, json=body, headers={"accept": "text/event-stream"}) as response:
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                return


async def _connect_all(server: Server) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(_connect(server, number, gate) for number in range(CONNECTS)))


async def _stream_all(server: Server) -> None:
    gate = asyncio.Semaphore(AT_ONCE)
    async with httpx2.AsyncClient(timeout=60) as client:
        await asyncio.gather(*(_stream(server, gate, client) for _ in range(STREAMS)))


def test_sockets_leave_nothing_behind(serve: Serve) -> None:
    server = serve(connections_per_identity=CONNECTS, pending_connections_per_address=CONNECTS)
    before = server.tasks()
    asyncio.run(_connect_all(server))
    wait_until(lambda: server.tasks() == before)
    assert server.room.contexts == CONNECTS * 3 // 4 * 2  # the source's and the first event's
    assert server.room.open_streams == 0


def test_streams_leave_nothing_behind(serve: Serve) -> None:
    server = serve(connections_per_identity=CONNECTS, pending_connections_per_address=CONNECTS)
    before = server.tasks()
    asyncio.run(_stream_all(server))
    wait_until(lambda: server.tasks() == before)
    assert server.room.contexts == STREAMS * 2
    assert server.room.open_streams == 0
