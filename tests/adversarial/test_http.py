"""HTTP and WebSocket that no client should send, against a live gateway: each is refused with a status of its own,
never with 500, nothing of the inside is shown, and the process is as well afterwards as it was before.
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.adversarial.corpus import (
    BAD_CURSORS,
    BAD_IDS,
    BODIES,
    CONTENT_TYPES,
    FRAMES,
    HEAD,
    IDS,
    LISTS,
    PATHS,
    QUERIES,
    QUERY_STRINGS,
    WIRES,
)
from tests.adversarial.live import INSIDE, JSON, post, sane
from tests.end_to_end.processes import Gateway, asked, cloud, status

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that must outlive all of it."""
    with cloud(tmp_path_factory.mktemp("adversarial")) as made:
        yield made.gateways[0]


@pytest.fixture(autouse=True)
def stays_well(gateway: Gateway) -> Iterator[None]:
    """After each test the process answers, and has logged no bug."""
    seen = len(gateway.told())
    yield
    assert status(f"{gateway.url}/readyz") == 200
    assert asked(f"{gateway.url}/healthz")["status"] == "ok"
    wrong = [line for line in gateway.told()[seen:].splitlines() if '"level": "error"' in line or "Traceback" in line]
    assert wrong == []


@pytest.fixture(scope="module")
def token(gateway: Gateway) -> str:
    """An operator's: what it may ask reaches furthest."""
    with gateway.client() as client:
        assert client.token is not None
        return client.token


def _ask(gateway: Gateway, token: str | None, query: str, **variables: Any) -> Any:
    return sane(post(gateway, json.dumps({"query": query, "variables": variables}).encode(), token))


@pytest.mark.parametrize("what", BODIES)
def test_bodies(gateway: Gateway, what: str) -> None:
    sane(post(gateway, BODIES[what]))


@pytest.mark.parametrize("what", QUERIES)
def test_documents(gateway: Gateway, token: str, what: str) -> None:
    assert _ask(gateway, token, QUERIES[what])["errors"]


def test_garbled_bodies(gateway: Gateway, token: str) -> None:
    good = json.dumps({"query": IDS, "variables": {"id": "server_0"}, "operationName": None}).encode()
    chance = random.Random(os.environ.get("STRATOGRAPH_TEST_SEED", "1"))  # noqa: S311 - to vary, not to hide
    with httpx2.Client(trust_env=False, timeout=30) as client:
        for _ in range(300):
            body = bytearray(good)
            for _ in range(chance.randint(1, 6)):
                at = chance.randrange(len(body))
                body[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            headers = {**JSON, "authorization": f"Bearer {token}"}
            sane(client.post(f"{gateway.url}/graphql", content=bytes(body), headers=headers))


def test_ids_and_cursors(gateway: Gateway, token: str) -> None:
    for each in BAD_IDS:
        body = _ask(gateway, token, IDS, id=each)
        assert body["data"] == {"node": None, "server": None, "job": None, "nodes": [None]}, (each, body)
    for name in LISTS:
        query = f"query($c: String) {{ {name}(after: $c) {{ totalCount nodes {{ id }} }} }}"
        for each in BAD_CURSORS:
            for error in _ask(gateway, token, query, c=each).get("errors", []):
                assert error["extensions"]["code"] == "INVALID", (name, each, error)


def test_headers(gateway: Gateway) -> None:
    good = b'{"query": "{ __typename }"}'
    for kind in CONTENT_TYPES:
        assert post(gateway, good, **{"content-type": kind}).status_code in {200, 400, 415}, kind
    for bearer in ("Bearer", "Basic Og==", "Bearer " + "a" * 5000, "Bearer a.b.c", "x"):
        response = post(gateway, good, authorization=bearer)
        assert response.status_code in {200, 401}, (bearer, response.text)
    for accept in ("x", "*/*;q=0", "text/html", ",;=", "application/json;q=x", "a" * 5000):
        sane(post(gateway, good, accept=accept))
    for encoding in ("gzip", "br", "x"):
        sane(post(gateway, good, **{"content-encoding": encoding}))


def test_addresses_and_methods(gateway: Gateway) -> None:
    with httpx2.Client(trust_env=False, timeout=30) as client:
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW"):
            assert client.request(method, f"{gateway.url}/graphql").status_code in {200, 400, 405}, method
        for query in QUERY_STRINGS:
            sane(client.get(f"{gateway.url}/graphql{query}"))
        for path in PATHS:
            response = client.get(f"{gateway.url}{path}")
            assert response.status_code < 500, path
            assert not INSIDE.search(response.text), path


def _wire(gateway: Gateway) -> socket.socket:
    parts = urlsplit(gateway.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


@pytest.mark.parametrize("what", WIRES)
@pytest.mark.parametrize("leaving", ["half closed", "reset"])
def test_broken_connections(gateway: Gateway, what: str, leaving: str) -> None:
    for _ in range(5):
        with _wire(gateway) as wire, suppress(ConnectionError):
            wire.sendall(WIRES[what])
            if leaving == "half closed":
                wire.shutdown(socket.SHUT_WR)
                answer = wire.recv(65536)
                assert not answer.startswith(b"HTTP/1.1 5"), answer[:300]
            else:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def test_slow_bodies_do_not_hold_others_up(gateway: Gateway) -> None:
    slow = [_wire(gateway) for _ in range(150)]
    try:
        for each in slow:
            each.sendall(HEAD + b"content-length: 1000\r\n\r\n{")
        assert _ask(gateway, None, "{ __typename }")["data"] == {"__typename": "Query"}
        answer = slow[0].recv(65536)
        assert answer.startswith(b"HTTP/1.1 408"), answer[:200]
    finally:
        for each in slow:
            each.close()


@pytest.mark.parametrize("frames", FRAMES, ids=lambda frames: frames[-1][:40])
def test_frames(gateway: Gateway, frames: list[str]) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    address = f"ws{gateway.url.removeprefix('http')}/graphql"
    with connect(address, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as wire:
        heard: list[str] = []
        with suppress(ConnectionClosed, TimeoutError):
            for each in frames:
                wire.send(each)
            while True:
                heard.append(str(wire.recv(timeout=2)))
        assert wire.close_code != 1011, heard
    assert not INSIDE.search("".join(heard))


def test_every_wire_is_closed_afterwards(gateway: Gateway) -> None:
    """What was broken off leaves no socket open in the process."""
    folder = f"/proc/{gateway.pid}/fd"
    until = time.monotonic() + 30
    while True:
        count = sum(1 for each in os.listdir(folder) if _is_socket(f"{folder}/{each}"))  # noqa: PTH208 - names are enough
        if count < 20:
            return
        assert time.monotonic() < until, count
        time.sleep(0.2)


def _is_socket(path: str) -> bool:
    read: Callable[[str], str] = os.readlink
    try:
        return read(path).startswith("socket:")
    except FileNotFoundError:
        return False
