"""The bench's clients: GraphQL over one kept HTTP connection, and a follower of events over a WebSocket.

They are made to cost little, since they share the machine with what they measure: bodies are sent as they stand, and an
answer is only parsed where somebody reads it.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from tests.servers.daemon import ServerError

USER_OF_BENCH, PASSWORD_OF_BENCH = "bench", "a-password-of-the-bench"
JSON = {"Content-Type": "application/json", "Accept": "application/json"}


class Caller:
    """Somebody signed in, with one connection. Not thread-safe."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=60)
        self.headers = {**JSON, **({"Authorization": f"Bearer {token}"} if token else {})}

    def post(self, body: bytes, path: str = "/graphql") -> bytes:
        """Send a body and answer with what came back. Raises ServerError unless it was 200."""
        self._connection.request("POST", path, body, self.headers)
        answer = self._connection.getresponse()
        found = answer.read()
        if answer.status != 200:
            raise ServerError(f"{answer.status}: {found[:2000]!r}")
        return found

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """Run one operation; its data. Raises ServerError with the errors."""
        found = json.loads(self.post(body(query, **variables)))
        if found.get("errors"):
            raise ServerError(str(found["errors"])[:2000])
        data: dict[str, Any] = found["data"]
        return data

    def do(self, mutation: str, selection: str, **given: Any) -> dict[str, Any]:
        """Send one mutation that must not be refused; its payload."""
        kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
        text = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ {selection} userErrors {{ message }} }} }}"
        payload: dict[str, Any] = self.ask(text, input=given)[mutation]
        if payload["userErrors"]:
            raise ServerError(f"{mutation} was refused: {payload['userErrors']}")
        return payload

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()


def body(query: str, **variables: Any) -> bytes:
    """The body of an operation."""
    return json.dumps({"query": query, "variables": variables}).encode()


def sign_in(address: str, username: str, password: str) -> str:
    """A token."""
    caller = Caller(address)
    try:
        token: str = caller.do("sessionCreate", "token", username=username, password=password)["token"]
    finally:
        caller.close()
    return token


EVENTS = """subscription { events(filter: {nouns: ["server"]})
  { objectId object { ... on Server { status statusReason } } } }"""


@dataclass(slots=True)
class Follower:
    """Hears of every server over one subscription, and keeps when each was first seen ACTIVE (monotonic seconds)."""

    socket: ClientConnection
    active: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _news: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None

    @classmethod
    def open(cls, address: str, token: str) -> Self:
        """Subscribe and begin to listen."""
        socket = connect(f"ws://{address}/graphql", subprotocols=["graphql-transport-ws"])  # type: ignore[list-item]  # a plain text is a subprotocol
        socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}))
        if json.loads(socket.recv(10))["type"] != "connection_ack":
            raise ServerError("the subscription was not accepted")
        socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": EVENTS}}))
        made = cls(socket)
        made._thread = threading.Thread(target=made._listen, daemon=True)
        made._thread.start()
        return made

    def wait(self, server: str, seconds: float = 60.0) -> float:
        """When the server was seen ACTIVE. Raises ServerError when it failed or was not seen in time."""
        with self._news:
            self._news.wait_for(lambda: server in self.active or server in self.failed, seconds)
            if server not in self.active:
                raise ServerError(self.failed.get(server, f"{server} was not ACTIVE within {seconds:.0f} s"))
            return self.active[server]

    def close(self) -> None:
        """End the subscription."""
        self.socket.close()

    def _listen(self) -> None:
        for text in self.socket:
            now = time.monotonic()
            message = json.loads(text)
            if message["type"] == "ping":
                self.socket.send('{"type":"pong"}')
            if message["type"] != "next":
                continue
            event = message["payload"]["data"]["events"]
            shown = event["object"] or {}
            if shown.get("status") in ("ACTIVE", "ERROR"):
                with self._news:
                    if shown["status"] == "ACTIVE":
                        self.active.setdefault(event["objectId"], now)
                    else:
                        self.failed[event["objectId"]] = str(shown.get("statusReason"))
                    self._news.notify_all()
