"""GraphQL over HTTP: what is answered, and the form of every refusal."""

from __future__ import annotations

import json
import socket as sockets
from typing import Any

import httpx2
import pytest

from tests.transport.calls import STRICT, code, post, query, wait_until
from tests.transport.conftest import DEADLINE_SECONDS, Serve, Server

LEGACY = "application/json"


def get(server: Server, accept: str = STRICT, **parameters: str) -> httpx2.Response:
    return httpx2.get(server.url, params=parameters, headers={"accept": accept}, timeout=DEADLINE_SECONDS)


def raw_exchange(server: Server, request: bytes) -> bytes:
    """Sends bytes as they are and reads until the server closes."""
    with sockets.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(request)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
        return received


def test_nested_lists_are_answered_with_their_cost(server: Server) -> None:
    answer = query(server, "{ servers(first: 2) { totalCount nodes { name ports { number } } } }")
    ports = [{"number": 1}, {"number": 2}]
    nodes = [{"name": "s0", "ports": ports}, {"name": "s1", "ports": ports}]
    assert answer == {
        "data": {"servers": {"totalCount": 2, "nodes": nodes}},
        "extensions": {"cost": {"requested": 23, "limit": 50_000}},
    }


def test_a_mutation_is_posted(server: Server) -> None:
    assert query(server, 'mutation { note(text: "x") }')["data"] == {"note": 1}
    assert server.room.notes == ["x"]


def test_get_runs_queries_with_variables(server: Server) -> None:
    answer = get(server, query="query Q($n: String!) { hello(name: $n) }", variables='{"n": "ä"}', operationName="Q")
    assert (answer.status_code, answer.json()["data"]) == (200, {"hello": "hello ä"})


def test_a_mutation_by_get_is_not_run(server: Server) -> None:
    answer = get(server, query='mutation { note(text: "x") }')
    assert (answer.status_code, answer.headers["allow"], code(answer)) == (405, "POST", "METHOD_NOT_ALLOWED")
    assert server.room.notes == []


def test_a_subscription_by_plain_post_or_get_is_refused(server: Server) -> None:
    text = "subscription { count(to: 1) }"
    for answer in (
        post(server, {"query": text}),
        get(server, query=text),
        post(server, {"query": text}, accept=LEGACY),
    ):
        assert (answer.status_code, code(answer)) == (400, "OPERATION_NOT_ALLOWED")
        assert "data" not in answer.json()


def test_several_operations_without_a_name_run_nothing(server: Server) -> None:
    text = 'mutation A { note(text: "a") } mutation B { note(text: "b") }'
    for body in ({"query": text}, {"query": text, "operationName": ""}, {"query": text, "operationName": None}):
        answer = post(server, body)
        assert (answer.status_code, code(answer)) == (400, "OPERATION_NOT_FOUND")
    unknown = post(server, {"query": text, "operationName": "C"})
    assert (unknown.status_code, code(unknown)) == (400, "OPERATION_NOT_FOUND")
    assert server.room.notes == []
    assert post(server, {"query": text, "operationName": "B"}).json()["data"] == {"note": 1}
    assert server.room.notes == ["b"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_other_methods_are_not_allowed(server: Server, method: str) -> None:
    answer = httpx2.request(method, server.url)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    assert code(answer) == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", "application/json; charset=latin-1", "image/*", ",;=,", "q"]
)
def test_what_nobody_speaks_is_not_acceptable(server: Server, accept: str) -> None:
    answer = post(server, {"query": "{ hello }"}, accept=accept)
    assert (answer.status_code, code(answer)) == (406, "NOT_ACCEPTABLE")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("*/*", LEGACY),
        ("application/*", LEGACY),
        (f"{STRICT}; charset=utf-8, {LEGACY}; charset=utf-8", STRICT),
        (f"{LEGACY}, {STRICT}", LEGACY),
        (f"{LEGACY};q=0.5, {STRICT};q=0.9", STRICT),
        (f"text/html, {STRICT};q=0.1", STRICT),
        (f"{STRICT}, application/graphql+json, {LEGACY}, text/event-stream, multipart/mixed", STRICT),
    ],
)
def test_the_best_acceptable_media_type_is_used(server: Server, accept: str, media: str) -> None:
    answer = post(server, {"query": "{ hello }"}, accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"{media}; charset=utf-8")


@pytest.mark.parametrize("text", ["{", "{ nope }", "query ($n: Int!) { servers(first: $n) { totalCount } }"])
def test_a_refused_document_has_no_data_and_a_status_by_media_type(server: Server, text: str) -> None:
    for accept, status in ((STRICT, 400), (LEGACY, 200)):
        answer = post(server, {"query": text}, accept=accept)
        assert answer.status_code == status
        assert "data" not in answer.json()
        assert ("extensions" in answer.json()) == text.startswith("query")  # the cost, once it is known


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/graphql",
     "application/json; charset=latin-1", "application/jsonp", ""],
)  # fmt: skip
def test_a_form_cannot_post(server: Server, content_type: str) -> None:
    answer = post(server, {"query": 'mutation { note(text: "x") }'}, content_type=content_type)
    assert (answer.status_code, code(answer)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert server.room.notes == []


def test_a_compressed_body_is_refused(server: Server) -> None:
    answer = post(server, {"query": "{ hello }"}, content_encoding="gzip")
    assert (answer.status_code, code(answer)) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "utf8"])
def test_utf8_is_accepted_however_it_is_spelled(server: Server, charset: str) -> None:
    answer = post(server, {"query": "{ hello }"}, content_type=f"application/json ; charset={charset}")
    assert answer.status_code == 200


def test_a_large_body_is_refused_by_its_announcement_and_by_its_size(server: Server) -> None:
    large = b" " * (1_048_576 + 1)
    announced = post(server, large)
    assert (announced.status_code, code(announced)) == (413, "PAYLOAD_TOO_LARGE")
    assert announced.json()["errors"][0]["extensions"]["limit"] == 1_048_576
    head = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    streamed = raw_exchange(server, head + chunk * 17)
    assert streamed.startswith(b"HTTP/1.1 413 ")
    assert b'"PAYLOAD_TOO_LARGE"' in streamed


def test_a_body_of_just_the_limit_is_read(server: Server) -> None:
    body = json.dumps({"query": "{ hello }"}).encode()
    assert post(server, body + b" " * (1_048_576 - len(body))).json()["data"] == {"hello": "hello world"}


def test_a_body_that_does_not_come_is_given_up(serve: Serve) -> None:
    server = serve(body_deadline_seconds=0.2)
    head = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"
    answer = raw_exchange(server, head)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"REQUEST_TIMEOUT"' in answer


def test_the_bodys_deadline_ends_nothing_that_follows(serve: Serve) -> None:
    server = serve(body_deadline_seconds=0.05, operation_deadline_seconds=0.4)
    for text in ("mutation { slowNote }", "{ slow }"):
        answer = post(server, {"query": text})
        assert (answer.status_code, code(answer)) == (200, "TIMEOUT")
        assert answer.json()["errors"][0]["extensions"]["deadlineSeconds"] == 0.4


def test_a_request_id_is_taken_when_sane_and_made_otherwise(server: Server) -> None:
    sane = post(server, {"query": "{ requestId refused }"}, x_request_id="trace-0123456789")
    assert sane.headers["x-request-id"] == "trace-0123456789"
    assert sane.json()["data"]["requestId"] == "trace-0123456789"
    assert sane.json()["errors"][0]["extensions"]["requestId"] == "trace-0123456789"
    for odd in ("short", "x" * 129, "with space inside", "semi;colon;;"):
        made = post(server, {"query": "{ requestId }"}, x_request_id=odd).headers["x-request-id"]
        assert made != odd
        assert len(made) == 32


def test_every_refusal_carries_the_request_id_of_its_header(server: Server) -> None:
    for answer in (httpx2.put(server.url), post(server, b"{"), post(server, {"query": "{"}), post(server, [])):
        shown = {error["extensions"]["requestId"] for error in answer.json()["errors"]}
        assert shown == {answer.headers["x-request-id"]}


@pytest.mark.parametrize(
    ("token", "status", "expected"),
    [("bad", 401, "UNAUTHENTICATED"), ("forbidden", 403, "FORBIDDEN"), ("crash", 500, "INTERNAL"),
     ("no-context", 401, "UNAUTHENTICATED")],
)  # fmt: skip
def test_a_refused_caller(server: Server, token: str, status: int, expected: str) -> None:
    for accept in (STRICT, LEGACY):
        answer = post(server, {"query": "{ me }"}, authorization=f"Bearer {token}", accept=accept)
        assert (answer.status_code, code(answer)) == (status, expected)
        assert "hunter2" not in answer.text
        assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("authorization", ["Basic abc", "Bearer", "Bearer a b", "Bearer ä", "token"])
def test_a_malformed_authorization_is_never_anonymous(server: Server, authorization: str) -> None:
    headers = [(b"authorization", authorization.encode())]
    answer = httpx2.post(server.url, json={"query": "{ me }"}, headers=headers)
    assert (answer.status_code, code(answer)) == (401, "UNAUTHENTICATED")


def test_the_caller_is_described_to_the_application(server: Server) -> None:
    assert query(server, "{ me }", authorization="bEaReR alice")["data"] == {"me": "alice"}
    assert query(server, "{ me }", user_agent="tester/1")["data"] == {"me": "anonymous 127.0.0.1"}
    known, anonymous = server.desk.seen
    assert (known.token, known.ip, known.transport.value) == ("alice", "127.0.0.1", "http")
    assert (anonymous.token, anonymous.user_agent) == (None, "tester/1")


def test_a_deadline_answers_timeout_and_ends_the_resolver(serve: Serve) -> None:
    server = serve(operation_deadline_seconds=0.2)
    answer = post(server, {"query": "{ slow hello }"})
    assert (answer.status_code, code(answer), answer.json()["data"]) == (200, "TIMEOUT", None)
    assert answer.json()["errors"][0]["extensions"]["deadlineSeconds"] == 0.2
    assert answer.json()["extensions"]["cost"]["requested"] == 0
    wait_until(lambda: server.room.cancelled == 1)
    assert "idempotency key" in query(server, "mutation { slowNote }")["errors"][0]["message"]


def test_a_query_ends_when_its_client_hangs_up(server: Server) -> None:
    body = json.dumps({"query": "{ slow }"}).encode()
    head = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with sockets.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(head % len(body) + body)
        wait_until(lambda: server.room.contexts == 1)
    wait_until(lambda: server.room.cancelled == 1)


def test_one_parameter_given_twice_is_refused(server: Server) -> None:
    answer = httpx2.get(f"{server.url}?query=%7Bhello%7D&query=%7Bme%7D")
    assert (answer.status_code, code(answer)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "string", ["query=%ff", "query={hello}&variables={", "query={hello}&variables=[]", "", "a" * 99]
)
def test_an_odd_query_string_is_refused(server: Server, string: str) -> None:
    answer = httpx2.get(f"{server.url}?{string}")
    assert (answer.status_code, code(answer)) == (400, "BAD_REQUEST")


def test_cors_is_off_unless_an_origin_is_listed(serve: Serve) -> None:
    def preflight(server: Server, origin: str) -> httpx2.Response:
        asked = {"origin": origin, "access-control-request-method": "POST",
                 "access-control-request-headers": "authorization,content-type"}  # fmt: skip
        return httpx2.options(server.url, headers=asked)

    closed = serve()
    assert preflight(closed, "https://console.example").status_code == 405
    assert (
        "access-control-allow-origin"
        not in post(closed, {"query": "{hello}"}, origin="https://console.example").headers
    )
    opened = serve(allowed_origins=("https://console.example",))
    allowed = preflight(opened, "https://console.example")
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://console.example")
    assert preflight(opened, "https://evil.example").status_code == 400
    read = post(opened, {"query": "{hello}"}, origin="https://console.example")
    assert read.headers["access-control-allow-origin"] == "https://console.example"
    assert (
        "access-control-allow-origin" not in post(opened, {"query": "{hello}"}, origin="https://evil.example").headers
    )


def test_defer_and_stream_are_unknown(server: Server) -> None:
    for text in ("{ ... @defer { hello } }", "{ server { ports @stream { number } } }"):
        answer = post(server, {"query": text})
        assert (answer.status_code, code(answer)) == (400, "GRAPHQL_VALIDATION_FAILED")


def test_introspection_can_be_switched_off_with_its_hints(serve: Serve) -> None:
    server = serve(introspection=False)
    for text in ("{ __schema { types { name } } }", '{ __type(name: "Query") { name } }'):
        first = query(server, text)["errors"][0]
        assert first["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
        assert "disabled" in first["message"]
    assert "Did you mean" not in query(server, "{ helo }")["errors"][0]["message"]
    assert "Did you mean" in query(serve(), "{ helo }")["errors"][0]["message"]
    assert query(server, "{ __typename }")["data"] == {"__typename": "Query"}


def test_a_fault_of_the_application_is_still_json(server: Server) -> None:
    answer = post(server, {"query": "{ me }"}, authorization="Bearer crash")
    body: Any = answer.json()
    assert body["errors"][0]["message"] == "An unexpected error happened. It was logged under the request id."
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
