"""One subscription over one WebSocket (``graphql-transport-ws``), which outlives broken connections.

A socket that closes without the protocol's ``complete`` is opened again, and the subscription goes on: behind the last
cursor where its document takes one as ``after``. A refusal by the cloud (no token, a wrong document) is final. Nothing
is buffered beyond what the library reads ahead, so a slow consumer slows the sender down.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from gateway.client import problem
from gateway.client.problem import Problem, Unreachable

_OPEN_S: Final = 10.0
_MAX_MESSAGE_BYTES: Final = 8 << 20
_PAUSES_S: Final = (0.1, 0.2, 0.5, 1.0)
_REFUSED: Final = {4400: "BAD_REQUEST", 4401: "UNAUTHENTICATED", 4403: "FORBIDDEN", 4406: "NOT_A_CLOUD"}
_TAKES_CURSOR: Final = re.compile(r"\$after\s*:")


class _Broken(Exception):  # noqa: N818 - caught within this module
    """The connection ended, and may be opened again."""


@dataclass(slots=True)
class _Patience:
    """How long one may still wait: for a broken connection, and for the whole."""

    reconnect_s: float
    deadline: float | None
    since: float | None = None
    attempt: int = 0

    def well(self) -> None:
        """Something arrived: the connection is good."""
        self.since = None
        self.attempt = 0

    def pause(self, why: str) -> None:
        """Wait a moment before the next try. Raises Unreachable when there is no time for one."""
        now = time.monotonic()
        self.since = self.since if self.since is not None else now
        seconds = _PAUSES_S[min(self.attempt, len(_PAUSES_S) - 1)]
        self.attempt += 1
        if now + seconds > self.since + self.reconnect_s:
            raise Unreachable(f"The subscription's connection is lost: {why}.")
        self.left()
        time.sleep(seconds)

    def left(self) -> float | None:
        """Seconds until the deadline. Raises Unreachable when it has passed."""
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Unreachable("What was waited for did not happen in time.", code="TIMEOUT")
        return left


@dataclass(slots=True)
class Stream:
    """What a subscription needs to know of the cloud."""

    url: str
    token: str | None
    tls: ssl.SSLContext | None
    proxied: bool = True
    operation: str | None = None

    def values(
        self, document: str, variables: dict[str, Any], *, reconnect_s: float, deadline_s: float | None
    ) -> Iterator[dict[str, Any]]:
        """See :meth:`gateway.client.client.Client.subscribe`."""
        deadline = time.monotonic() + deadline_s if deadline_s is not None else None
        patience = _Patience(reconnect_s, deadline)
        resumes = _TAKES_CURSOR.search(document) is not None
        while True:
            try:
                for data in self._once(document, variables, patience):
                    patience.well()
                    if resumes:
                        variables["after"] = _cursor(data) or variables.get("after")
                    yield data
            except _Broken as broken:
                patience.pause(str(broken))
            else:
                return

    def _once(self, document: str, variables: Mapping[str, Any], patience: _Patience) -> Iterator[dict[str, Any]]:
        """What is pushed over one connection. Raises _Broken when it ended early."""
        try:
            with self._connected() as socket:
                _introduce(socket, self.token)
                payload = {"query": document, "variables": dict(variables), "operationName": self.operation}
                socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
                yield from _received(socket, patience)
        except ConnectionClosed as closed:
            received = closed.rcvd
            if received is not None and received.code in _REFUSED:
                raise Problem(_REFUSED[received.code], received.reason or "The cloud closed the connection.") from None
            raise _Broken(str(closed)) from closed
        except InvalidStatus as refused:
            status = refused.response.status_code
            if status >= 500 or status == 429:  # noqa: PLR2004 - HTTP's own numbers
                raise _Broken(f"HTTP {status}") from refused
            raise Problem("NOT_A_CLOUD", f"{self.url} refused the WebSocket with HTTP {status}.") from None
        except (InvalidHandshake, InvalidMessage, OSError, EOFError, TimeoutError) as error:
            raise _Broken(str(error) or type(error).__name__) from error

    def _connected(self) -> ClientConnection:
        made = connect(
            "ws" + self.url.removeprefix("http") + "/graphql",
            ssl=self.tls,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            open_timeout=_OPEN_S,
            close_timeout=1.0,
            max_size=_MAX_MESSAGE_BYTES,
            proxy=True if self.proxied else None,
            user_agent_header="stratograph-client",
        )
        assert isinstance(made, ClientConnection)  # noqa: S101 - with legacy arguments it could be an iterator
        return made


def _introduce(socket: ClientConnection, token: str | None) -> None:
    payload = {"authorization": f"Bearer {token}"} if token is not None else {}
    socket.send(json.dumps({"type": "connection_init", "payload": payload}))
    until = time.monotonic() + _OPEN_S
    while True:
        message = json.loads(socket.recv(timeout=max(0.0, until - time.monotonic())))
        if message["type"] == "connection_ack":
            return
        if message["type"] == "ping":
            socket.send('{"type":"pong"}')


def _received(socket: ClientConnection, patience: _Patience) -> Iterator[dict[str, Any]]:
    while True:
        left = patience.left()
        try:
            text = socket.recv(timeout=left)
        except TimeoutError:
            continue  # the deadline: told by patience
        message = json.loads(text)
        match message["type"]:
            case "next":
                payload = message["payload"]
                if payload.get("errors"):
                    raise problem.of_errors(payload["errors"])
                yield payload["data"]
            case "error":
                raise problem.of_errors(message["payload"])
            case "complete":
                return
            case "ping":
                socket.send('{"type":"pong"}')
            case _:
                pass


def _cursor(data: Mapping[str, Any]) -> str | None:
    for value in data.values():
        if isinstance(value, dict) and isinstance(value.get("cursor"), str):
            return str(value["cursor"])
    return None
