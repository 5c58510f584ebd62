"""Short ways for tests to call a server over HTTP and WebSocket."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.transport.conftest import DEADLINE_SECONDS, Server

STRICT = "application/graphql-response+json"


def post(server: Server, body: object, *, accept: str | None = STRICT, **headers: str) -> httpx2.Response:
    """POSTs ``body`` as JSON (bytes go as they are); header names are given with underscores."""
    sent = {"content-type": "application/json", "accept": accept or "*/*"}
    sent.update({name.replace("_", "-"): value for name, value in headers.items()})
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.post(server.url, content=content, headers=sent, timeout=DEADLINE_SECONDS)


def query(server: Server, text: str, variables: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    """The decoded response to a query."""
    answer: dict[str, Any] = post(server, {"query": text, "variables": variables}, **headers).json()
    return answer


def code(answer: httpx2.Response | Mapping[str, Any]) -> str:
    """The code of the only error."""
    errors = (answer.json() if isinstance(answer, httpx2.Response) else answer)["errors"]
    assert len(errors) == 1, errors
    found: str = errors[0]["extensions"]["code"]
    return found


class Socket:
    """A graphql-transport-ws client that hides nothing; ping and pong are answered and skipped."""

    def __init__(self, connection: ClientConnection) -> None:
        self.raw = connection

    def send(self, **message: Any) -> None:
        self.raw.send(json.dumps(message))

    def receive(self, seconds: float = DEADLINE_SECONDS) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(self.raw.recv(timeout=seconds))
            if message["type"] == "ping":
                self.send(type="pong")
            else:
                return message

    def subscribe(self, text: str, operation_id: str = "1", **more: Any) -> None:
        self.send(type="subscribe", id=operation_id, payload={"query": text, **more})

    def until_closed(self, seconds: float = DEADLINE_SECONDS) -> tuple[int, str]:
        """Reads on until the server closes; its code and reason."""
        with pytest.raises(ConnectionClosed) as raised:
            self._read_on(seconds)
        assert raised.value.rcvd is not None
        return raised.value.rcvd.code, raised.value.rcvd.reason

    def _read_on(self, seconds: float) -> None:
        while True:
            self.receive(seconds)


@contextmanager
def raw_socket(server: Server, *, subprotocol: str = "graphql-transport-ws", **options: Any) -> Iterator[Socket]:
    """An open socket before ``connection_init``."""
    with connect(server.websocket_url, subprotocols=[subprotocol], **options) as connection:  # type: ignore[list-item]  # a plain str is a Subprotocol
        yield Socket(connection)


@contextmanager
def socket(server: Server, token: str | None = None, **options: Any) -> Iterator[Socket]:
    """An acknowledged socket of the bearer of ``token``."""
    with raw_socket(server, **options) as opened:
        payload = {} if token is None else {"authorization": f"Bearer {token}"}
        opened.send(type="connection_init", payload=payload)
        assert opened.receive() == {"type": "connection_ack"}
        yield opened


def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    """Waits until ``condition`` holds; fails at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)
