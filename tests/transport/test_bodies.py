"""Adversarial bodies: whatever is sent, the answer is GraphQL JSON and never a 500."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.types import Message

from resolvers.transport.app import TransportSettings, routes
from resolvers.transport.errors import ErrorCode
from tests.transport.calls import code, post
from tests.transport.conftest import Server
from tests.transport.toy import Room, toy_schema
from tests.transport.toy_identity import Desk, contexts

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.sampled_from(["{ hello }", "query A { hello } query B { me }", 'mutation { note(text: "x") }', "{", ""])
MEMBERS = st.fixed_dictionaries(
    {},
    optional={
        "query": JSON_VALUES | DOCUMENTS | st.text(alphabet='{}()[]$:!.@#"abhelo \n', max_size=60),
        "variables": JSON_VALUES,
        "operationName": JSON_VALUES | st.sampled_from(["A", "B"]),
        "extensions": JSON_VALUES | st.fixed_dictionaries({"persistedQuery": JSON_VALUES}),
        "documentId": JSON_VALUES,
        "other": JSON_VALUES,
    },
)

Send = Callable[[bytes, str], tuple[int, dict[str, str], bytes]]


@pytest.fixture(scope="module")
def send() -> Send:
    """Sends a body to the endpoint in process; hypothesis needs hundreds of calls."""
    app = Starlette(routes=routes(toy_schema(), TransportSettings(), Desk().authenticate, contexts(Room())))

    async def call(body: bytes, accept: str) -> tuple[int, dict[str, str], bytes]:
        sent: list[Message] = []
        headers = [(b"content-type", b"application/json"), (b"accept", accept.encode())]
        scope = {"type": "http", "method": "POST", "path": "/graphql", "query_string": b"", "headers": headers,
                 "client": ("127.0.0.1", 1), "root_path": "", "http_version": "1.1"}  # fmt: skip
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Message:
            for message in messages:
                return message
            await asyncio.Event().wait()
            raise AssertionError

        async def collect(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, collect)
        shown = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], shown, b"".join(message.get("body", b"") for message in sent[1:])

    return lambda body, accept: asyncio.run(call(body, accept))


def check(answer: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    """Whatever it is, it is a well-formed GraphQL response."""
    status, headers, body = answer
    decoded: dict[str, Any] = json.loads(body)
    assert status in {200, 400}
    assert set(decoded) <= {"data", "errors", "extensions"}
    assert "data" in decoded or decoded["errors"]
    assert int(headers["content-length"]) == len(body)
    for error in decoded.get("errors", []):
        assert error["extensions"]["code"] in ErrorCode.__members__
        assert error["extensions"]["code"] != "INTERNAL"
        assert error["extensions"]["requestId"] == headers["x-request-id"]
        assert isinstance(error["message"], str)
    if status == 400:
        assert "data" not in decoded
    return decoded


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200))
def test_bytes(send: Send, body: bytes) -> None:
    assert check(send(body, "application/json"))["errors"]


@settings(max_examples=300, deadline=None)
@given(value=JSON_VALUES | MEMBERS | st.lists(MEMBERS, max_size=3))
def test_json_values(send: Send, value: object) -> None:
    check(send(json.dumps(value).encode(), "application/graphql-response+json"))


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=200))
def test_documents(send: Send, text: str) -> None:
    try:
        body = json.dumps({"query": text}).encode()
    except UnicodeEncodeError:
        return
    check(send(body, "application/graphql-response+json"))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"5", b'"text"', b"true", b"[]", b"{}", b"{", b'{"query": }', b"\xff\xfe", b"\xef\xbb\xbf{}",
        b"[" * 100_000, b'{"a":' * 100_000, b'{"query": NaN}', b'{"variables": {"a": Infinity}}',
        b'{"query": "{ hello }", "variables": {"a": "\\ud800"}}', b'{"query": "\\udfff"}',
        b'{"query": "{ hello }", "variables": {"a": ' + b"9" * 5_000 + b"}}",
        '{"query": "{ hello }"}'.encode("utf-16"), '{"query": "{ hello }"}'.encode("utf-32"),
        b'[{"query": "{ hello }"}]', b'[{"query": "{ hello }"}, {"query": "{ me }"}]',
    ],
)  # fmt: skip
def test_known_tricks(server: Server, body: bytes) -> None:
    answer = post(server, body)
    assert (answer.status_code, code(answer)) == (400, "BAD_REQUEST")
    assert "data" not in answer.json()


def test_strings_of_every_plane_come_back_unchanged(server: Server) -> None:
    text = "".join(map(chr, [0, 9, 10, 0x7F, 0xE4, 0x2028, 0xFFFF, 0x1F3C3, 0x10FFFF])) + '"\\</script>'
    body = {"query": "query ($n: String!) { hello(name: $n) }", "variables": {"n": text}}
    assert post(server, body).json()["data"] == {"hello": f"hello {text}"}


def test_deep_variables_are_read_or_refused_but_never_a_fault(server: Server) -> None:
    for depth in (10, 500, 900, 5_000):
        nested = "[" * depth + "]" * depth
        body = '{"query": "query ($n: String) { hello(name: $n) }", "variables": {"n": ' + nested + "}}"
        answer = post(server, body.encode())
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["extensions"]["code"] in {"BAD_REQUEST", "BAD_USER_INPUT"}


def test_unknown_members_are_ignored(server: Server) -> None:
    assert post(server, {"query": "{ hello }", "batch": [1], "q": 5}).status_code == 200
