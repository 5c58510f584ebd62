"""Trusted documents and automatic persisted queries, over HTTP and WebSocket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from resolvers.transport.documents import Documents, read_manifest, sha256_hex
from resolvers.transport.requests import GraphQLRequest
from tests.transport.calls import code, post, query, socket
from tests.transport.conftest import DEADLINE_SECONDS, Serve, Server

TEXT = "query Hello($name: String) { hello(name: $name) }"
DIGEST = sha256_hex(TEXT)
UNKNOWN = sha256_hex("another")


def persisted(digest: str = DIGEST, **more: Any) -> dict[str, Any]:
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest}}, **more}


def test_an_unknown_hash_is_asked_for_and_learned_with_its_text(serve: Serve) -> None:
    server = serve()
    for accept, status in (("application/graphql-response+json", 400), ("application/json", 200)):
        unknown = post(server, persisted(), accept=accept)
        assert (unknown.status_code, code(unknown)) == (status, "PERSISTED_QUERY_NOT_FOUND")
        assert unknown.json()["errors"][0]["message"] == "PersistedQueryNotFound"
    assert post(server, persisted(query=TEXT)).json()["data"] == {"hello": "hello world"}
    assert post(server, persisted(variables={"name": "x"})).json()["data"] == {"hello": "hello x"}
    by_get = {"extensions": json.dumps(persisted()["extensions"]), "variables": '{"name": "y"}'}
    answer = httpx2.get(server.url, params=by_get, timeout=DEADLINE_SECONDS)
    assert answer.json()["data"] == {"hello": "hello y"}


def test_a_hash_is_never_made_to_stand_for_another_text(server: Server) -> None:
    answer = post(server, persisted(UNKNOWN, query="{ me }"))
    assert (answer.status_code, code(answer)) == (400, "BAD_REQUEST")
    assert code(post(server, persisted(UNKNOWN))) == "PERSISTED_QUERY_NOT_FOUND"


def test_a_refused_text_is_not_learned(server: Server) -> None:
    text = "{ nope }"
    assert code(post(server, persisted(sha256_hex(text), query=text))) == "GRAPHQL_VALIDATION_FAILED"
    assert code(post(server, persisted(sha256_hex(text)))) == "PERSISTED_QUERY_NOT_FOUND"


@pytest.mark.parametrize(
    "extensions",
    [
        {"persistedQuery": []},
        {"persistedQuery": {"version": 2, "sha256Hash": DIGEST}},
        {"persistedQuery": {"version": 1}},
        {"persistedQuery": {"version": 1, "sha256Hash": 5}},
        {"persistedQuery": {"version": 1, "sha256Hash": DIGEST.upper()}},
        {"persistedQuery": {"version": 1, "sha256Hash": "abc"}},
    ],
)
def test_a_malformed_hash_is_refused(server: Server, extensions: dict[str, Any]) -> None:
    answer = post(server, {"extensions": extensions})
    assert (answer.status_code, code(answer)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("document_id", [DIGEST, "md5:abc", "sha256:", f"sha256:{DIGEST.upper()}", f"sha256:{DIGEST}0"])
def test_a_malformed_document_id_is_refused(server: Server, document_id: str) -> None:
    answer = post(server, {"documentId": document_id})
    assert (answer.status_code, code(answer)) == (400, "BAD_REQUEST")


def test_registering_can_be_switched_off(serve: Serve) -> None:
    server = serve(persisted_queries=False)
    assert code(post(server, persisted())) == "PERSISTED_QUERY_NOT_SUPPORTED"
    assert post(server, persisted(query=TEXT)).json()["data"] == {"hello": "hello world"}
    assert code(post(server, persisted())) == "PERSISTED_QUERY_NOT_SUPPORTED"


def test_a_trusted_document_is_found_by_its_id_beside_others(serve: Serve) -> None:
    server = serve(manifest={DIGEST: TEXT})
    assert post(server, {"documentId": f"sha256:{DIGEST}"}).json()["data"] == {"hello": "hello world"}
    assert post(server, persisted()).json()["data"] == {"hello": "hello world"}
    beside_an_empty_query = {"query": "", "documentId": f"sha256:{DIGEST}"}  # as urql sends it over WebSocket
    assert post(server, beside_an_empty_query).json()["data"] == {"hello": "hello world"}
    assert code(post(server, {"query": "", "documentId": f"sha256:{UNKNOWN}"})) == "PERSISTED_QUERY_NOT_FOUND"
    assert code(post(server, {"documentId": f"sha256:{UNKNOWN}"})) == "PERSISTED_QUERY_NOT_FOUND"
    assert query(server, "{ me }")["data"] == {"me": "anonymous 127.0.0.1"}


def test_trusted_only_runs_nothing_else(serve: Serve) -> None:
    server = serve(manifest={DIGEST: TEXT}, trusted_only=True)
    for body in (
        {"query": "{ me }"},
        {"query": "{ __schema { types { name } } }"},
        persisted(UNKNOWN),
        persisted(sha256_hex("{ me }"), query="{ me }"),
        {"documentId": f"sha256:{UNKNOWN}"},
    ):
        answer = post(server, body)
        assert (answer.status_code, code(answer)) == (400, "TRUSTED_DOCUMENT_REQUIRED")
    for body in ({"documentId": f"sha256:{DIGEST}"}, persisted(), persisted(query=TEXT), {"query": TEXT}):
        assert post(server, body).json()["data"] == {"hello": "hello world"}
    with socket(server) as opened:
        opened.subscribe("{ me }")
        assert opened.receive()["payload"][0]["extensions"]["code"] == "TRUSTED_DOCUMENT_REQUIRED"
        opened.send(type="subscribe", id="2", payload={"documentId": f"sha256:{DIGEST}", "variables": {"name": "w"}})
        assert opened.receive()["payload"]["data"] == {"hello": "hello w"}


def test_a_socket_learns_and_recalls(serve: Serve) -> None:
    server = serve()
    with socket(server) as opened:
        for number, (payload, expected) in enumerate(
            [(persisted(), "error"), (persisted(query=TEXT), "next"), (persisted(), "next")]
        ):
            opened.send(type="subscribe", id=str(number), payload=payload)
            message = opened.receive()
            assert message["type"] == expected
            if expected == "next":
                assert message["payload"]["data"] == {"hello": "hello world"}
                opened.receive()
            else:
                assert message["payload"][0]["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"


def test_what_clients_register_is_bounded() -> None:
    documents = Documents({}, entries_max=2, chars_max=40)
    requests = [GraphQLRequest(query=text, persisted_hash=sha256_hex(text)) for text in ("{ a }", "{ b }", "{ c }")]
    for request in requests:
        documents.learn(request)
    assert list(documents._registered.values()) == ["{ b }", "{ c }"]
    large = "{ " + "x" * 60 + " }"
    documents.learn(GraphQLRequest(query=large, persisted_hash=sha256_hex(large)))
    assert (len(documents._registered), documents._chars) == (0, 0)


def test_the_manifest_is_codegens_and_its_hashes_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "persisted-documents.json"
    path.write_text(json.dumps({DIGEST: TEXT, f"sha256:{sha256_hex('{ me }')}": "{ me }"}))
    assert read_manifest(path) == {DIGEST: TEXT, sha256_hex("{ me }"): "{ me }"}
    for content in ({UNKNOWN: TEXT}, {DIGEST: 5}, [TEXT]):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"persisted-documents\.json"):
            read_manifest(path)
