"""graphql-transport-ws: who may connect, what runs, and why sockets close."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.transport.calls import Socket, raw_socket, socket, wait_until
from tests.transport.conftest import Serve, Server
from tests.transport.test_bodies import JSON_VALUES, MEMBERS


def test_a_subscription_delivers_each_event_and_completes(server: Server) -> None:
    with socket(server) as opened:
        opened.subscribe("subscription { count(to: 2) }")
        cost = {"cost": {"requested": 0, "limit": 50_000}}
        for number in (1, 2):
            payload = {"data": {"count": number}, "extensions": cost}
            assert opened.receive() == {"id": "1", "type": "next", "payload": payload}
        assert opened.receive() == {"id": "1", "type": "complete"}


def test_queries_and_mutations_run_with_variables_and_the_id_is_free_again(server: Server) -> None:
    with socket(server, "alice") as opened:
        opened.subscribe("query Q($n: String!) { me hello(name: $n) }", variables={"n": "x"}, operationName="Q")
        assert opened.receive()["payload"]["data"] == {"me": "alice", "hello": "hello x"}
        assert opened.receive() == {"id": "1", "type": "complete"}
        opened.subscribe('mutation { note(text: "n") }')
        assert opened.receive()["payload"]["data"] == {"note": 1}
        assert opened.receive()["type"] == "complete"


def test_each_operation_has_its_own_context_and_request_id(server: Server) -> None:
    seen = []
    with socket(server) as opened:
        for number in range(3):
            opened.subscribe("{ serial requestId }", str(number))
            data = opened.receive()["payload"]["data"]
            seen.append((data["serial"], data["requestId"]))
            opened.receive()
    assert [serial for serial, _ in seen] == [1, 2, 3]
    assert len({request_id for _, request_id in seen}) == 3


def test_each_event_of_a_subscription_has_its_own_context(server: Server) -> None:
    with socket(server) as opened:
        opened.subscribe("subscription { serials { name } }")
        while opened.receive()["type"] != "complete":
            pass
    assert server.room.contexts == 4  # one for the source, one per event


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nope }", "GRAPHQL_VALIDATION_FAILED"),
        ("query ($n: Int!) { servers(first: $n) { totalCount } }", "BAD_USER_INPUT"),
        ("query A { hello } query B { hello }", "OPERATION_NOT_FOUND"),
        ("subscription { closed }", "NOT_FOUND"),
        ("{ server " + "{ peer " * 15 + "{ name }" + "}" * 16, "TOO_DEEP"),
    ],
)
def test_an_error_ends_its_operation_and_not_the_socket(server: Server, text: str, expected: str) -> None:
    with socket(server) as opened:
        opened.subscribe(text)
        message = opened.receive()
        errors = message["payload"] if message["type"] == "error" else message["payload"]["errors"]
        assert [each["extensions"]["code"] for each in errors] == [expected]
        assert errors[0]["extensions"]["requestId"]
        if message["type"] == "next":
            assert opened.receive()["type"] == "complete"
        opened.subscribe("{ hello }")
        assert opened.receive()["payload"]["data"] == {"hello": "hello world"}


def test_a_source_that_breaks_is_masked_and_completes(server: Server) -> None:
    with socket(server) as opened:
        opened.subscribe("subscription { breaks }")
        assert opened.receive()["payload"]["data"] == {"breaks": 1}
        broken = opened.receive()["payload"]
        assert broken["data"] is None
        assert broken["errors"][0]["extensions"]["code"] == "INTERNAL"
        assert "hunter2" not in str(broken)
        assert opened.receive() == {"id": "1", "type": "complete"}


def test_complete_ends_the_source_and_frees_the_id(server: Server) -> None:
    with socket(server) as opened:
        opened.subscribe("subscription { forever }")
        assert opened.receive()["payload"]["data"] == {"forever": 0}
        assert server.room.open_streams == 1
        opened.send(type="complete", id="1")
        wait_until(lambda: server.room.open_streams == 0)
        opened.subscribe("{ hello }")
        assert opened.receive()["payload"]["data"] == {"hello": "hello world"}


def test_leaving_ends_every_source(server: Server) -> None:
    with socket(server) as opened:
        for number in range(5):
            opened.subscribe("subscription { forever }", str(number))
            opened.receive()
        assert server.room.open_streams == 5
    wait_until(lambda: server.room.open_streams == 0)


def test_a_deadline_ends_a_slow_query(serve: Serve) -> None:
    server = serve(operation_deadline_seconds=0.2)
    with socket(server) as opened:
        opened.subscribe("{ slow }")
        payload = opened.receive()["payload"]
        assert (payload["data"], payload["errors"][0]["extensions"]["code"]) == (None, "TIMEOUT")
        assert opened.receive()["type"] == "complete"
    assert server.room.cancelled == 1


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"authorization": "Bearer bad"}, 4401),
        ({"authorization": "Basic abc"}, 4401),
        ({"authorization": "Bearer forbidden"}, 4403),
        ({"authorization": "Bearer crash"}, 4500),
        ({"authorization": 5}, 4400),
        ("text", 4400),
        (["list"], 4400),
    ],
)
def test_a_refused_introduction_closes_with_its_code(server: Server, payload: object, expected: int) -> None:
    with raw_socket(server) as opened:
        opened.send(type="connection_init", payload=payload)
        closed, reason = opened.until_closed()
        assert closed == expected
        assert "hunter2" not in reason


def test_the_token_may_come_in_the_handshake_of_a_program(server: Server) -> None:
    with raw_socket(server, additional_headers={"authorization": "Bearer bob"}) as opened:
        opened.send(type="connection_init")
        assert opened.receive() == {"type": "connection_ack"}
        opened.subscribe("{ me }")
        assert opened.receive()["payload"]["data"] == {"me": "bob"}


def test_nothing_runs_before_the_introduction(server: Server) -> None:
    with raw_socket(server) as opened:
        opened.subscribe('mutation { note(text: "x") }')
        assert opened.until_closed() == (4401, "Unauthorized")
    assert server.room.notes == []


def test_silence_after_the_handshake_is_closed(serve: Serve) -> None:
    with raw_socket(serve(connection_init_seconds=0.2)) as opened:
        assert opened.until_closed() == (4408, "Connection initialisation timeout")


def test_ping_before_and_after_the_introduction(server: Server) -> None:
    with raw_socket(server) as opened:
        opened.send(type="ping")
        assert opened.receive() == {"type": "pong"}
        opened.send(type="connection_init")
        assert opened.receive() == {"type": "connection_ack"}
        opened.send(type="ping", payload={"at": 1})
        assert opened.receive() == {"type": "pong"}


def test_a_client_that_never_answers_a_ping_is_closed(serve: Serve) -> None:
    server = serve(ping_seconds=0.2)
    with raw_socket(server) as opened:
        opened.send(type="connection_init")
        with pytest.raises(ConnectionClosed) as closed:
            read_without_answering(opened)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4408


def read_without_answering(opened: Socket) -> None:
    while True:
        opened.raw.recv(timeout=10)


def test_a_client_that_answers_pings_stays(serve: Serve) -> None:
    server = serve(ping_seconds=0.1)
    with socket(server) as opened:
        opened.subscribe("subscription { ticks }")
        assert opened.receive()["payload"]["data"] == {"ticks": 1}
        for _ in range(4):
            assert json.loads(opened.raw.recv(timeout=10)) == {"type": "ping"}
            opened.send(type="pong")
        server.in_loop(server.room.gate.set)
        assert opened.receive()["payload"]["data"] == {"ticks": 2}


BAD_ID = (4400, "An operation id must be a string of 1 to 128 characters")


def introduce_twice(opened: Any) -> None:
    opened.send(type="connection_init")


def use_an_id_twice(opened: Any) -> None:
    opened.subscribe("subscription { forever }", "same")
    opened.receive()
    opened.subscribe("subscription { forever }", "same")


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (introduce_twice, (4429, "Too many initialisation requests")),
        (use_an_id_twice, (4409, "Subscriber for same already exists")),
        (lambda opened: opened.raw.send("{"), (4400, "A message must be JSON")),
        (lambda opened: opened.raw.send("[]"), (4400, "A message must be an object with a type")),
        (lambda opened: opened.raw.send('{"type": 5}'), (4400, "A message must be an object with a type")),
        (lambda opened: opened.raw.send(b"{}"), (4400, "A message must be text")),
        (lambda opened: opened.send(type="start"), (4400, "Unknown message type")),
        (lambda opened: opened.send(type="complete"), BAD_ID),
        (lambda opened: opened.send(type="subscribe", id=""), BAD_ID),
    ],
)
def test_a_breach_of_the_protocol_closes(server: Server, act: Callable[[Any], None], expected: tuple[int, str]) -> None:
    with socket(server) as opened:
        act(opened)
        assert opened.until_closed() == expected
    wait_until(lambda: server.room.open_streams == 0)


def test_a_message_over_the_limit_closes(server: Server) -> None:
    with socket(server) as opened:
        opened.raw.send(" " * (1_048_576 + 1))
        assert opened.until_closed()[0] == 1009


def test_a_payload_that_is_no_request_is_an_error_of_its_operation(server: Server) -> None:
    with socket(server) as opened:
        payloads: list[object] = [None, [], "text", {"query": 5}, {"variables": []}, {}]
        for number, payload in enumerate(payloads):
            opened.send(type="subscribe", id=str(number), payload=payload)
            message = opened.receive()
            assert (message["id"], message["type"]) == (str(number), "error")
            assert message["payload"][0]["extensions"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize("subprotocol", ["graphql-ws", "soap"])
def test_another_subprotocol_is_refused(server: Server, subprotocol: str) -> None:
    with raw_socket(server, subprotocol=subprotocol) as opened:
        assert opened.until_closed() == (4406, "Subprotocol not acceptable")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://", "http://[", "x"])
def test_a_foreign_page_gets_no_handshake(server: Server, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused, raw_socket(server, origin=origin):
        pass
    assert refused.value.response.status_code == 403


def test_our_own_pages_and_listed_origins_connect(serve: Serve) -> None:
    server = serve(allowed_origins=("https://console.example",))
    for origin in ("https://console.example", f"http://127.0.0.1:{server.port}"):
        with socket(server, origin=origin) as opened:
            opened.subscribe("{ hello }")
            assert opened.receive()["type"] == "next"


def test_an_expired_token_closes(server: Server) -> None:
    with socket(server, "short-400") as opened:
        opened.subscribe("subscription { forever }")
        assert opened.receive()["type"] == "next"
        assert opened.until_closed() == (4403, "The token expired or was revoked")
    wait_until(lambda: server.room.open_streams == 0)


def test_a_revoked_token_closes_within_a_second(server: Server) -> None:
    with socket(server, "alice") as revoked, socket(server, "bob") as other:
        revoked.subscribe("subscription { forever }")
        assert revoked.receive()["type"] == "next"
        server.desk.revoked.add("alice")
        assert revoked.until_closed(seconds=1.0) == (4403, "The token expired or was revoked")
        other.subscribe("{ me }")
        assert other.receive()["payload"]["data"] == {"me": "bob"}
    wait_until(lambda: server.room.open_streams == 0)


def test_a_check_that_fails_is_no_revocation(serve: Serve) -> None:
    server = serve(validity_poll_seconds=0.02)
    with socket(server, "alice") as opened:
        server.desk.doubtful = True
        before = server.desk.checks
        wait_until(lambda: server.desk.checks > before + 5)
        opened.subscribe("{ me }")
        assert opened.receive()["payload"]["data"] == {"me": "alice"}


def test_a_caller_has_so_many_sockets(serve: Serve) -> None:
    server = serve(connections_per_identity=2)
    with socket(server, "alice"), socket(server, "bob"):
        with socket(server, "alice"), raw_socket(server) as third:
            third.send(type="connection_init", payload={"authorization": "Bearer alice"})
            assert third.until_closed()[0] == 4429
        wait_until(lambda: _connects(server, "alice"))


def _connects(server: Server, token: str) -> bool:
    with raw_socket(server) as opened:
        opened.send(type="connection_init", payload={"authorization": f"Bearer {token}"})
        try:
            return opened.receive() == {"type": "connection_ack"}
        except ConnectionClosed:
            return False


def test_an_address_has_so_many_silent_sockets(serve: Serve) -> None:
    server = serve(pending_connections_per_address=2)
    with raw_socket(server), raw_socket(server), raw_socket(server) as third:
        assert third.until_closed()[0] == 4429


def test_a_socket_carries_so_many_operations(serve: Serve) -> None:
    server = serve(subscriptions_per_connection=2)
    with socket(server) as opened:
        for number in ("1", "2"):
            opened.subscribe("subscription { forever }", number)
            assert opened.receive()["type"] == "next"
        opened.subscribe("subscription { forever }", "3")
        message = opened.receive()
        assert (message["id"], message["type"]) == ("3", "error")
        extensions = message["payload"][0]["extensions"]
        assert (extensions["code"], extensions["limit"]) == ("TOO_MANY_SUBSCRIPTIONS", 2)
        opened.send(type="complete", id="1")
        wait_until(lambda: server.room.open_streams == 1)
        opened.subscribe("{ hello }", "3")
        assert opened.receive()["type"] == "next"


def test_a_stopping_server_says_goodbye(serve: Serve) -> None:
    stopping = asyncio.Event()
    server = serve(stopping=stopping)
    with socket(server) as opened:
        opened.subscribe("subscription { forever }")
        opened.receive()
        server.in_loop(stopping.set)
        assert opened.until_closed() == (1001, "The server is stopping")


def test_plain_http_is_not_upgraded_by_accident(server: Server) -> None:
    with pytest.raises(InvalidStatus), connect(server.websocket_url.replace("/graphql", "/other")):
        pass


MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["connection_init", "ping", "pong", "subscribe", "complete", "next", ""]) | JSON_VALUES},
    optional={"id": st.sampled_from(["1", "2", ""]) | JSON_VALUES, "payload": JSON_VALUES | MEMBERS},
)
CLOSES = {4400, 4401, 4409, 4429}


@settings(max_examples=150, deadline=None)
@given(messages=st.lists(MESSAGES | JSON_VALUES, max_size=6))
def test_whatever_is_sent_ends_in_the_protocols_words(shared_server: Server, messages: list[object]) -> None:
    with raw_socket(shared_server) as opened:
        opened.send(type="connection_init")
        try:
            for message in messages:
                opened.raw.send(json.dumps(message))
            opened.send(type="subscribe", id="last", payload={"query": "{ hello }"})
            while (answer := opened.receive()).get("id") != "last":
                assert answer["type"] in {"connection_ack", "pong", "next", "error", "complete"}
                for error in answer["payload"] if answer["type"] == "error" else ():
                    assert error["extensions"]["code"] not in {"INTERNAL", "TIMEOUT"}
            assert answer["payload"]["data"] == {"hello": "hello world"}
        except ConnectionClosed as closed:
            assert closed.rcvd is not None  # noqa: PT017 - a close is one of two right outcomes
            assert closed.rcvd.code in CLOSES  # noqa: PT017 - as above
