"""Large answers are packed for clients that ask, small ones and event streams never."""

from __future__ import annotations

import gzip
import json

import httpx2
import pytest

from tests.transport.calls import STRICT
from tests.transport.conftest import DEADLINE_SECONDS, Serve, Server

HELLO = "query($name: String!) { hello(name: $name) }"
LARGE = "lamp " * 2000


def ask(server: Server, name: str, accept: str = STRICT, encoding: str = "gzip") -> tuple[httpx2.Response, bytes]:
    """The response with its body as it came over the wire."""
    body = {"query": HELLO, "variables": {"name": name}}
    headers = {"accept": accept, "accept-encoding": encoding}
    with httpx2.stream("POST", server.url, json=body, headers=headers, timeout=DEADLINE_SECONDS) as response:
        return response, b"".join(response.iter_raw())


def test_a_large_answer_is_packed(server: Server) -> None:
    response, packed = ask(server, LARGE)
    assert (response.status_code, response.headers["content-encoding"]) == (200, "gzip")
    assert response.headers["content-type"] == f"{STRICT}; charset=utf-8"
    assert {each.strip().lower() for each in response.headers["vary"].split(",")} == {"accept", "accept-encoding"}
    assert int(response.headers["content-length"]) == len(packed) < 1000
    _, plain = ask(server, LARGE, encoding="identity")
    assert LARGE in json.loads(plain)["data"]["hello"]
    assert json.loads(gzip.decompress(packed))["data"] == json.loads(plain)["data"]


@pytest.mark.parametrize("encoding", ["identity", "br", "deflate"])
def test_nobody_gets_what_they_did_not_ask_for(server: Server, encoding: str) -> None:
    response, body = ask(server, LARGE, encoding=encoding)
    assert "content-encoding" not in response.headers
    assert LARGE in json.loads(body)["data"]["hello"]
    assert "accept-encoding" in response.headers["vary"].lower()


def test_a_small_answer_is_sent_as_it_is(server: Server) -> None:
    plain = len(ask(server, "", encoding="identity")[1])
    for more, packed in ((4095 - plain, False), (4096 - plain, True)):
        response, _ = ask(server, "a" * more)
        assert ("content-encoding" in response.headers) is packed, more


def test_an_event_stream_is_never_packed(server: Server) -> None:
    response, body = ask(server, LARGE, accept="text/event-stream")
    assert (response.status_code, "content-encoding" in response.headers) == (200, False)
    assert b"event: next\ndata: " in body
    assert LARGE.encode() in body


def test_it_can_be_switched_off(serve: Serve) -> None:
    response, body = ask(serve(compression=False), LARGE)
    assert "content-encoding" not in response.headers
    assert LARGE in json.loads(body)["data"]["hello"]
    assert response.headers["vary"] == "Accept"
