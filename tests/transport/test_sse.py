"""GraphQL over server-sent events, distinct connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tests.transport.calls import code, post, wait_until
from tests.transport.conftest import DEADLINE_SECONDS, Serve, Server

STREAM = "text/event-stream"


@contextmanager
def stream(server: Server, text: str, token: str | None = None, accept: str = STREAM) -> Iterator[httpx2.Response]:
    headers = {"accept": accept} | ({} if token is None else {"authorization": f"Bearer {token}"})
    with httpx2.stream("POST", server.url, json={"query": text}, headers=headers, timeout=DEADLINE_SECONDS) as response:
        yield response


def events(response: httpx2.Response) -> Iterator[tuple[str, Any]]:
    """The named events of a stream, comments skipped."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data:"):
            data = line.removeprefix("data:").strip()
            yield name, json.loads(data) if data else None


def test_a_subscription_is_streamed_and_completes(server: Server) -> None:
    with stream(server, "subscription { count(to: 2) }") as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["x-request-id"]
        received = list(events(response))
    extensions = {"cost": {"requested": 0, "limit": 50_000}}
    assert received == [
        ("next", {"data": {"count": 1}, "extensions": extensions}),
        ("next", {"data": {"count": 2}, "extensions": extensions}),
        ("complete", None),
    ]


def test_queries_and_mutations_are_streamed_too(server: Server) -> None:
    with stream(server, 'mutation { note(text: "x") }', token="alice") as response:
        (name, payload), end = list(events(response))
    assert (name, payload["data"], end) == ("next", {"note": 1}, ("complete", None))
    assert server.desk.seen[0].transport.value == "sse"


def test_a_subscription_streams_to_whoever_reads_streams_as_well(server: Server) -> None:
    both = f"application/graphql-response+json, {STREAM}"
    with stream(server, "subscription { count(to: 1) }", accept=both) as response:
        assert response.headers["content-type"].startswith(STREAM)
        assert len(list(events(response))) == 2
    assert post(server, {"query": "{ hello }"}, accept=both).json()["data"] == {"hello": "hello world"}


def test_an_event_source_subscribes_by_get(server: Server) -> None:
    parameters = {"query": "subscription { count(to: 1) }"}
    with httpx2.stream("GET", server.url, params=parameters, headers={"accept": STREAM}) as response:
        assert [name for name, _ in events(response)] == ["next", "complete"]
    mutation = httpx2.get(server.url, params={"query": 'mutation { note(text: "x") }'}, headers={"accept": STREAM})
    assert (mutation.status_code, code(mutation)) == (405, "METHOD_NOT_ALLOWED")
    assert server.room.notes == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "GRAPHQL_PARSE_FAILED"), ("{ nope }", "GRAPHQL_VALIDATION_FAILED"),
     ("subscription ($n: Int!) { count(to: $n) }", "BAD_USER_INPUT"), ("subscription { closed }", "NOT_FOUND"),
     ("{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }",
      "GRAPHQL_VALIDATION_FAILED")],
)  # fmt: skip
def test_a_refused_operation_is_told_in_the_stream(server: Server, text: str, expected: str) -> None:
    with stream(server, text) as response:
        assert response.status_code == 200
        (name, payload), end = list(events(response))
    assert (name, payload["errors"][0]["extensions"]["code"]) == ("next", expected)
    assert end == ("complete", None)


def test_a_refused_request_is_json(server: Server) -> None:
    for token, status in (("bad", 401), ("crash", 500)):
        with stream(server, "subscription { count(to: 1) }", token=token) as response:
            assert response.status_code == status
            assert response.headers["content-type"] == "application/json; charset=utf-8"


def test_leaving_ends_the_source(server: Server) -> None:
    with stream(server, "subscription { forever }") as response:
        received = events(response)  # a closed generator would close the stream
        assert next(received)[0] == "next"
        assert server.room.open_streams == 1
    wait_until(lambda: server.room.open_streams == 0)


def test_a_source_that_breaks_is_masked(server: Server) -> None:
    with stream(server, "subscription { breaks }") as response:
        received = list(events(response))
    assert [name for name, _ in received] == ["next", "next", "complete"]
    assert received[1][1]["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert "hunter2" not in str(received)


@pytest.mark.parametrize("token", ["short-300", "alice"])
def test_the_end_of_a_token_is_told_and_the_stream_ends_without_complete(server: Server, token: str) -> None:
    with stream(server, "subscription { forever }", token=token) as response:
        received = events(response)
        assert next(received)[0] == "next"
        server.desk.revoked.add("alice")
        ((name, payload),) = list(received)
    assert (name, payload["errors"][0]["extensions"]["code"]) == ("next", "UNAUTHENTICATED")
    wait_until(lambda: server.room.open_streams == 0)


def test_a_quiet_stream_is_kept_alive_by_comments(serve: Serve) -> None:
    server = serve(ping_seconds=0.05)
    with stream(server, "subscription { forever }") as response:
        comments = 0
        for line in response.iter_lines():
            comments += line == ":"
            if comments == 4:
                break


def test_a_caller_has_so_many_streams(serve: Serve) -> None:
    server = serve(connections_per_identity=1)
    with stream(server, "subscription { forever }", "alice") as response:
        received = events(response)
        assert next(received)[0] == "next"
        with stream(server, "subscription { forever }", "alice") as second:
            second.read()
            assert (second.status_code, code(second)) == (429, "TOO_MANY_CONNECTIONS")
        with stream(server, "subscription { forever }", "bob") as other:
            assert next(events(other))[0] == "next"


def test_a_stopping_server_ends_streams_without_complete(serve: Serve) -> None:
    stopping = asyncio.Event()
    server = serve(stopping=stopping)
    with stream(server, "subscription { forever }") as response:
        received = events(response)
        assert next(received)[0] == "next"
        server.in_loop(stopping.set)
        assert list(received) == []
