"""Operations of which the planner answers some root fields and the executor the others, and filters whose values come
from variables.
"""

from __future__ import annotations

from typing import Any

import pytest

from gateway.compute.server import Server
from gateway.kernel import ids
from resolvers.planner.planner import Planner
from tests.planner.two_ways import TwoWays

MIXED = [
    "{ servers { nodes { id name } } live: servers(first: 2) { nodes { consoleLog } } }",
    """{ rateLimit { cost } a: servers(first: 2) { nodes { id } } b: __type(name: "Server") { name } cloud { version }
      c: servers { totalCount } }""",
    "{ __typename servers { nodes { id } } __schema { queryType { name } } viewer { admin } }",
    """query($on: Boolean = true) { ...F @include(if: $on) flavors { nodes { name } } }
      fragment F on Query { usage: __schema { description } servers(first: 1) { nodes { id } } ...G }
      fragment G on Query { servers(first: 1) { nodes { name } } __schema { queryType { name } } }""",
    """query($kind: String! = "x") { __type(name: $kind) { name }
      flavors(first: 3) { nodes { id } pageInfo { endCursor } } }""",
    "{ servers { nodes { name consoleLog(lastLines: 1) } } flavors { nodes { name } } cloud { version } }",
    "{ rateLimit { cost } __schema { queryType { name } } }",
]


@pytest.mark.parametrize("document", MIXED)
def test_some_roots_are_planned(ways: TwoWays, document: str) -> None:
    """Names stand in the order of the operation, whoever answered them."""
    for who in ("reader", "admin", "member"):
        assert ways.mixed(who, document).codes == []


def test_an_error_of_the_rest_is_told_beside_what_is_planned(ways: TwoWays) -> None:
    document = "{ flavors { nodes { name } } auditVerify { __typename } }"
    assert ways.mixed("reader", document).codes == ["FORBIDDEN"]


def test_a_refusal_of_what_is_planned_is_told_by_the_executor(ways: TwoWays) -> None:
    before = ways.on.counts["mixed"]
    assert ways.same("reader", "{ hosts { nodes { id } } __schema { description } }").codes == ["FORBIDDEN"]
    assert ways.on.counts["mixed"] == before


def test_what_is_no_root_of_rows_asks_no_database(ways: TwoWays) -> None:
    before = ways.on.counts.copy()
    assert ways.same("reader", "{ __typename again: __typename }").data == {"__typename": "Query", "again": "Query"}
    assert (ways.on.counts["planned"], ways.on.counts["mixed"]) == (before["planned"], before["mixed"])


FILTERED = "query($f: ServerFilter, $n: Int) { servers(first: $n, filter: $f) { totalCount nodes { id name } } }"


def test_a_new_value_in_a_filter_needs_no_new_plan(ways: TwoWays, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan is compiled for the comparisons of a filter; every value of them is an input."""
    compiled = 0
    compile_plan = Planner._compiled

    def counted(self: Planner, *given: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return compile_plan(self, *given)

    monkeypatch.setattr(Planner, "_compiled", counted)
    names = sorted({row["name"] for row in ways.rows[Server]})
    for name in [*names, "nobody is called so", "%", "_", 'say "hi"', "\\", "o'clock"]:
        found = ways.planned("admin", FILTERED, {"f": {"name": name}, "n": 100}).data["servers"]
        expected = [ids.encode("server", row["uid"]) for row in ways.rows[Server] if row["name"] == name]
        assert sorted(each["id"] for each in found["nodes"]) == sorted(expected)
        assert found["totalCount"] == len(expected)
        ways.planned("admin", FILTERED, {"f": {"nameContains": name[:2]}, "n": 3})
    assert compiled <= 3, "one for a name, one for a part of it, and perhaps one for the first of either"
    several: list[Any] = [
        {"status": ["ACTIVE"]}, {"status": ["ERROR"]}, {"status": ["ACTIVE", "ERROR"]}, {"status": []}, {"tag": "a"},
        {"tag": "it's"}, {"name": "web-1", "status": ["ACTIVE"]}, {}, None,
    ]  # fmt: skip
    for who in ways.people:
        for given in several:
            ways.same(who, FILTERED, {"f": given, "n": 50})


def test_values_within_a_filter(ways: TwoWays) -> None:
    """Variables within a filter's literal, the same one in two filters, and one that is also something else."""
    document = """query($n: String, $s: [ServerStatus!], $t: String) {
      a: servers(filter: {name: $n, status: $s}) { nodes { id } }
      b: volumes(filter: {nameContains: $t}) { nodes { id name } }
      c: servers(filter: {nameContains: $t}) { nodes { id volumes { id } } } }"""
    for given in ({"n": "web-1"}, {"n": "web-2"}, {"n": None}, {}, {"t": "a"}, {"t": "b", "s": ["ACTIVE"]},
                  {"t": "web", "s": ["ACTIVE", "SHUTOFF"]}):  # fmt: skip
        for who in ("admin", "reader", "stranger"):
            ways.same(who, document, given)
    children = (
        "query($n: String) { networks { nodes { id ports(first: 2, filter: {name: $n}) { nodes { id name } } } } }"
    )
    for name in ("", "eth0", "x"):
        ways.planned("admin", children, {"n": name})
