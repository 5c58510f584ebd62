"""`stratograph gql`: documents from everywhere, variables by their declared types, whole answers, streams."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from gateway.client import Client
from gateway.client.commands.document import Misuse, operation_of, variables_of
from tests.client.conftest import Terminal
from tests.end_to_end.scene import Scene

VIEWER = "query Me { viewer { user { name } } } query It { cloud { version } }"
FLAVORS = "query($first: Int!, $name: String) { flavors(first: $first, filter: { name: $name }) { nodes { name } } }"


def test_a_document_from_everywhere(signed_in: Terminal, tmp_path: Path) -> None:
    expected = {"viewer": {"user": {"name": "admin"}}}
    text = "{ viewer { user { name } } }"
    file = tmp_path / "viewer.graphql"
    file.write_text(text)
    answers = [
        signed_in.ok("gql", text), signed_in.ok("gql", "--file", file), signed_in.ok("gql", "-", stdin=text),
        signed_in.ok("gql", VIEWER, "--operation", "Me"),
    ]  # fmt: skip
    assert [each.json["data"] for each in answers] == [expected] * 4
    assert all("cost" in each.json["extensions"] for each in answers)


def test_variables(signed_in: Terminal, tmp_path: Path) -> None:
    file = tmp_path / "variables.json"
    file.write_text('{"first": 5, "name": "tiny"}')
    expected = {"flavors": {"nodes": [{"name": "tiny"}]}}
    for given in (
        ("-v", "first=5", "-v", "name=tiny"), ("--variables", '{"first": 5, "name": "tiny"}'),
        ("--variables", f"@{file}"), ("--variables", '{"first": 9}', "-v", "first=5", "-v", "name=tiny"),
    ):  # fmt: skip
        assert signed_in.ok("gql", FLAVORS, *given).json["data"] == expected


def test_errors_are_printed_and_told_by_the_exit_code(signed_in: Terminal, scene: Scene) -> None:
    wrong = signed_in.run("gql", "{ nothing }")
    assert (wrong.code, wrong.json["errors"][0]["extensions"]["code"]) == (1, "GRAPHQL_VALIDATION_FAILED")
    document = (
        "mutation($i: NetworkDeleteInput!) { networkDelete(input: $i) { network { id } userErrors { code path } } }"
    )
    absent = scene.network[:-4] + "0000"
    refused = signed_in.run("gql", document, "-v", json.dumps({"id": absent}).join(("i=", "")))
    assert refused.code == 1
    assert refused.json["data"]["networkDelete"]["userErrors"] == [{"code": "NOT_FOUND", "path": ["id"]}]


def test_nobody_is_signed_in(terminal: Terminal) -> None:
    ended = terminal.run("gql", "{ cloud { version } }")
    assert (ended.code, ended.out) == (4, "")


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("{ a", ), (VIEWER,), (VIEWER, "--operation", "You"), ("{ a }", "-v", "x=1"), (FLAVORS, "-v", "first"),
        (FLAVORS, "-v", "first=many"), (FLAVORS, "--variables", "[]"), (FLAVORS, "--variables", "@/nowhere"),
        ("{ a }", "--file", "/nowhere"),
    ],
)  # fmt: skip
def test_what_is_no_document_is_never_sent(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    assert terminal.run("gql", *arguments).code == 2


def test_a_subscription_is_a_line_for_each_value(signed_in: Terminal, client: Client, scene: Scene) -> None:
    document = """subscription Noise($filter: EventFilter) { events(filter: $filter) { kind objectId } }
        query Other { cloud { version } }"""
    stop = threading.Event()

    def noise() -> None:
        while not stop.wait(0.2):
            client.do("networkCreate", "network { id }", name=f"n{time.monotonic_ns()}", tenantId=scene.tenant)

    threading.Thread(target=noise, daemon=True).start()
    try:
        ended = signed_in.ok(
            "gql", document, "--operation", "Noise", "--count", "3", "--timeout", "60", "-v",
            'filter={"nouns": ["network"]}',
        )  # fmt: skip
    finally:
        stop.set()
    assert [each["events"]["kind"] for each in ended.lines] == ["network.created"] * 3


def test_a_refused_subscription(signed_in: Terminal) -> None:
    ended = signed_in.run("gql", "subscription { nothing }", "--timeout", "20")
    assert ended.code == 1
    assert json.loads(ended.err)["errors"][0]["code"] == "GRAPHQL_VALIDATION_FAILED"


@pytest.mark.parametrize(
    ("declared", "text", "value"),
    [
        ("String", "5", "5"), ("String!", "null", "null"), ("String", "null", None), ("ID!", "007", "007"),
        ("Int", "5", 5), ("Boolean!", "true", True), ("Float", "1.5", 1.5), ("[ID!]!", '["a"]', ["a"]),
        ("ServerStatus", "ACTIVE", "ACTIVE"), ("BigInt", "12345678901", "12345678901"),
        ("ServerFilter", '{"name": "a"}', {"name": "a"}), ("DateTime", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("String", '{"a": 1}', '{"a": 1}'), ("String", "a=b", "a=b"),
    ],
)  # fmt: skip
def test_a_variable_is_read_by_its_type(declared: str, text: str, value: object) -> None:
    operation = operation_of(f"query($x: {declared}) {{ a(x: $x) }}", None)
    assert variables_of(operation, None, [f"x={text}"]) == {"x": value}


@pytest.mark.parametrize(("declared", "text"), [("Int", "five"), ("[ID!]", "a"), ("ServerFilter", "{name: 1}")])
def test_a_variable_that_cannot_be_read(declared: str, text: str) -> None:
    with pytest.raises(Misuse):
        variables_of(operation_of(f"query($x: {declared}) {{ a(x: $x) }}", None), None, [f"x={text}"])
