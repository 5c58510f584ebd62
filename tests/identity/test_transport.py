"""Signing in over real HTTP, and what a revocation does to a socket that is open."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from resolvers.identity.authentication import Recogniser
from resolvers.kernel.context import Context
from resolvers.schema import schema
from resolvers.transport.app import TransportSettings, routes
from resolvers.transport.caller import Caller, OperationInfo
from tests.identity.conftest import PASSWORD, Person, second_process, with_token
from tests.world import World

People = Callable[..., Person]
DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class Server:
    """The cloud over HTTP on a port of its own."""

    port: int

    def ask(self, document: str, token: str | None = None, **variables: Any) -> dict[str, Any]:
        headers = {"user-agent": "curl/8"} | ({"authorization": f"Bearer {token}"} if token else {})
        body = {"query": document, "variables": variables}
        url = f"http://127.0.0.1:{self.port}/graphql"
        answer: dict[str, Any] = httpx2.post(url, json=body, headers=headers, timeout=DEADLINE_S).json()
        return answer


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    """The world, served."""
    world.clock.at = datetime.now(UTC)  # the transport ends sockets by the machine's clock
    recogniser = Recogniser(world.db)

    async def context(identity: Any, caller: Caller, info: OperationInfo) -> Context:
        return Context(await identity.current(caller, info.request_id), world.services)

    app = Starlette(routes=routes(schema(), TransportSettings(), recogniser.authenticate, context))
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[listener])), daemon=True)
    thread.start()
    yield Server(listener.getsockname()[1])
    running.should_exit = True
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    listener.close()


SIGN_IN = """mutation($input: SessionCreateInput!) { sessionCreate(input: $input) { token expiresAt user { name }
  session { address userAgent } userErrors { code message path } } }"""
WHO = "{ viewer { user { name } } }"


def test_signing_in_over_http(server: Server, person: People) -> None:
    person("ada")
    refused = server.ask(SIGN_IN, input={"username": "ada", "password": "wrong"})["data"]["sessionCreate"]
    assert refused["userErrors"] == [
        {"code": "UNAUTHENTICATED", "message": "The name or the password is wrong.", "path": None}
    ]
    done = server.ask(SIGN_IN, input={"username": "ada", "password": PASSWORD})["data"]["sessionCreate"]
    assert done["session"] == {"address": "127.0.0.1", "userAgent": "curl/8"}
    assert server.ask(WHO, done["token"])["data"] == {"viewer": {"user": {"name": "ada"}}}
    assert server.ask(WHO)["data"] == {"viewer": None}
    bad = server.ask(WHO, done["token"][:-1])
    assert [each["extensions"]["code"] for each in bad["errors"]] == ["UNAUTHENTICATED"]
    assert "data" not in bad


def _closing_code(open_socket: ClientConnection) -> int | None:
    """Reads on until the server closes."""
    try:
        while True:
            open_socket.recv(timeout=DEADLINE_S)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_revocation_closes_an_open_socket_within_a_second(
    world: World,
    server: Server,
    person: People,
    elsewhere: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    token = person("ada").sign_in()
    other = second_process(world) if elsewhere else replace(world)
    with connect(f"ws://127.0.0.1:{server.port}/graphql", subprotocols=["graphql-transport-ws"]) as open_socket:  # type: ignore[list-item]  # a NewType of str
        open_socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}))
        assert json.loads(open_socket.recv(timeout=DEADLINE_S)) == {"type": "connection_ack"}
        open_socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": WHO}}))
        while (told := json.loads(open_socket.recv(timeout=DEADLINE_S)))["type"] == "ping":
            open_socket.send(json.dumps({"type": "pong"}))
        assert told["payload"]["data"] == {"viewer": {"user": {"name": "ada"}}}
        with_token(other, token).do("sessionRevoke", "sessions { id }")
        revoked_at = time.monotonic()
        code = _closing_code(open_socket)
        assert time.monotonic() - revoked_at < 1.0
        assert code == 4403
    if elsewhere:
        other.db.close()
