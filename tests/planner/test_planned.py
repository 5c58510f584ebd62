"""What is planned, by name, and that it is: an operation listed here must not fall back to the executor."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import GraphQLObjectType, get_named_type, is_abstract_type, is_leaf_type, is_required_argument, parse
from graphql.execution import Executor

from gateway.compute.server import Server
from gateway.kernel import ids
from gateway.kernel.access import Subject
from resolvers.kernel.roots import ROOTS
from resolvers.planner.reading import Reader, Tables
from resolvers.planner.render import shower
from resolvers.planner.selection import Reading, Selection, Unplanned
from resolvers.schema import schema
from tests.planner.two_ways import TwoWays

FIELDS = {"Server.consoleLog"}
"""Fields that only the executor answers: what a hypervisor is asked for."""
ROOT_FIELDS = {"auditVerify", "foreignMachines"}
"""Roots that only the executor answers: a look at what is not stored, and one at all that is."""
BELOW = {"PlacementDecision.chosen", "PlacementDecision.verdicts", "PlacementVerdict.host"}
"""Fields of objects that are no rows and need a further look into the database: the root above is the executor's."""
GIVEN = {"start": '"2026-02-01T00:00:00Z"', "end": '"2026-02-03T00:00:00Z"'}
"""A value for each argument that a field must be given."""
OPERATOR = Subject(user_id=1, admin=True)
PAGE = "query($first: Int!) { servers(first: $first) { nodes { %s } } }"
DASHBOARD = """id name status createdAt flavor { name vcpus ramMib } image { id name }
  ports { macAddress ipAddresses network { id name } } volumes { id name sizeGib device }"""
INFO = "totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"


def _selected(tables: Tables, kind: GraphQLObjectType, name: str) -> Selection:
    """An object of that type of which this field is asked for."""
    selection = "" if is_leaf_type(get_named_type(kind.fields[name].type)) else "{ __typename }"
    must = [each for each, argument in kind.fields[name].args.items() if is_required_argument(argument)]
    given = f"({', '.join(f'{each}: {GIVEN[each]}' for each in must)})" if must else ""
    document = parse(f'{{ found: node(id: "x") {{ ... on {kind.name} {{ {name}{given} {selection} }} }} }}')
    built = Executor.build(tables.core, document)
    assert isinstance(built, Executor)
    return Reading(tables.core, built.operation, built.fragments, built.variable_values).roots()["found"]


def _plannable(tables: Tables, kind: GraphQLObjectType, name: str) -> bool:
    selection = _selected(tables, kind, name)
    try:
        if kind.name in tables.names:
            Reader(tables, OPERATOR).object(kind, selection)
        else:
            shower(kind, selection)
    except Unplanned:
        return False
    return True


def _reached(tables: Tables) -> dict[str, GraphQLObjectType]:
    """All objects that a query may answer."""
    found: dict[str, GraphQLObjectType] = {}
    open_: list[Any] = [tables.core.query_type]
    while open_:
        kind = get_named_type(open_.pop())
        if is_abstract_type(kind):
            open_ += tables.core.get_possible_types(kind)
        elif isinstance(kind, GraphQLObjectType) and kind.name not in found:
            found[kind.name] = kind
            open_ += [each.type for each in kind.fields.values()]
    return found


def test_what_is_left_to_the_executor_is_known_by_name() -> None:
    """A new field is planned, or named above, whatever it is a field of."""
    tables = Tables(schema())
    reached = _reached(tables)
    left: dict[bool, set[str]] = {True: set(), False: set()}
    for kind in reached.values():
        if kind.name in {"Query", *(root for root in reached if root.endswith(("Connection", "Edge")))}:
            continue  # roots are looked at below, and pages are all alike
        left[kind.name in tables.names] |= {
            f"{kind.name}.{name}" for name in kind.fields if not _plannable(tables, kind, name)
        }
    roots = {name: root.reads for (kind, name), root in ROOTS.items() if kind == "Query"}
    of_viewer = {f"Viewer.{name}" for name in roots["viewer"].fields}
    assert left[True] == FIELDS
    assert left[False] - of_viewer == BELOW
    assert {f"Viewer.{name}" for name in reached["Viewer"].fields} == of_viewer
    assert {name for name, reads in roots.items() if reads is None} == ROOT_FIELDS


@pytest.mark.parametrize("who", ["reader", "admin"])
def test_the_dashboard_is_planned(ways: TwoWays, who: str) -> None:
    found = ways.planned(who, PAGE % DASHBOARD, {"first": 100})
    assert len(found.data["servers"]["nodes"]) > 1
    one = {"id": next(ids.encode("server", row["uid"]) for row in ways.rows[Server] if row["tenant_id"] == 1)}
    assert ways.planned(who, f"query($id: ID!) {{ server(id: $id) {{ {DASHBOARD} }} }}", one).data["server"]
    assert ways.planned(who, f"query($id: ID!) {{ node(id: $id) {{ id ... on Server {{ {DASHBOARD} }} }} }}", one).data


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
@pytest.mark.parametrize("order", ["NAME", "UPDATED_AT", "CREATED_AT", "STATUS"])
def test_pages_are_planned_in_every_order_to_both_ends(ways: TwoWays, order: str, direction: str) -> None:
    document = (
        "query($first: Int, $after: String, $last: Int, $before: String) { servers(first: $first, after: $after, "
        f"last: $last, before: $before, orderBy: {{field: {order}, direction: {direction}}}) "
        f"{{ {INFO} edges {{ cursor node {{ id }} }} }} }}"
    )
    for size, cursor in (("first", "after"), ("last", "before")):
        place: dict[str, Any] = {}
        seen: list[str] = []
        while True:
            page = ways.planned("admin", document, {size: 3, **place}).data["servers"]
            shown = [each["node"]["id"] for each in page["edges"]]
            seen = seen + shown if size == "first" else shown + seen
            info = page["pageInfo"]
            if not info["hasNextPage" if size == "first" else "hasPreviousPage"]:
                break
            place = {cursor: info["endCursor" if size == "first" else "startCursor"]}
        assert len(seen) == len(set(seen)) == page["totalCount"]


@pytest.mark.parametrize("who", ["reader", "manager", "admin"])
def test_what_jobs_are_about_and_how_full_subnets_are_is_planned(ways: TwoWays, who: str) -> None:
    jobs = ways.planned(
        who, "{ jobs(first: 100) { nodes { target { __typename id ... on Server { name ports { macAddress } } "
             "... on Image { title: name } ... on Network { subnets { cidr } } } } } }"
    ).data["jobs"]["nodes"]  # fmt: skip
    kinds = {each["target"]["__typename"] for each in jobs if each["target"]}
    assert None in [each["target"] for each in jobs]
    assert len(kinds) > 2, "the scene has jobs about several nouns"
    room = "{ subnets(first: 100) { nodes { usedAddresses availableAddresses utilisation } } }"
    told = ways.planned(who, room).data["subnets"]["nodes"]
    assert len({each["usedAddresses"] for each in told}) > 1


@pytest.mark.parametrize("who", ["nobody", "reader", "admin"])
def test_several_nodes_are_planned_in_their_order(ways: TwoWays, who: str) -> None:
    known = [ids.encode("server", row["uid"]) for row in ways.rows[Server]][:6]
    flavors = ways.planned("admin", "{ flavors { nodes { id } } }").data["flavors"]["nodes"]
    wanted = [known[3], "x", flavors[0]["id"], known[0], known[3], known[1][:-1] + "!", "nothing_" + known[1][7:]]
    wanted += [f"flavor_{known[2][7:]}", *reversed(known)]
    document = (
        "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Server { name flavor { name } } "
        "... on Flavor { vcpus } } }"
    )
    if who == "nobody":
        assert ways.same(who, document, {"ids": wanted}).codes == ["UNAUTHENTICATED"]
        return
    found = ways.planned(who, document, {"ids": wanted}).data["nodes"]
    assert [each["id"] if each else None for each in found if each or who == "admin"][:1]
    if who == "admin":
        kept = [each if each in {*known, flavors[0]["id"]} else None for each in wanted]
        assert [each["id"] if each else None for each in found] == kept
    assert ways.planned(who, document, {"ids": []}).data["nodes"] == []
    listed = f'{{ nodes(ids: ["{known[0]}", "x"]) {{ id }} nobody: nodes(ids: "{known[1]}") {{ __typename }} }}'
    ways.planned(who, listed)
    assert ways.same(who, document, {"ids": known * 20}).codes == ["INVALID"]


def test_whom_wrong_passwords_shut_out_is_planned(ways: TwoWays) -> None:
    document = "{ users { nodes { name lockedUntil } } }"
    assert {each["lockedUntil"] for each in ways.planned("reader", document).data["users"]["nodes"]} == {None}
    told = {each["name"]: each["lockedUntil"] for each in ways.planned("admin", document).data["users"]["nodes"]}
    assert told["user-4"] == "2026-03-31T12:00:00.654320Z"
    assert told["user-5"] is None, "that is over"
    assert set(told.values()) == {None, told["user-4"]}


def test_a_thousand_servers_of_three_fields_are_planned(ways: TwoWays) -> None:
    pages = " ".join(f"p{number}: servers(first: 100) {{ nodes {{ id name status }} }}" for number in range(10))
    assert len(ways.planned("admin", f"{{ {pages} }}").data) == 10


@pytest.mark.parametrize("who", ["nobody", "reader", "member", "manager", "admin"])
def test_the_viewer_is_planned(ways: TwoWays, who: str) -> None:
    ways.planned(who, "{ viewer { __typename admin user { name } session { id } apiKey { id name } expiresAt "
                      "memberships { role tenant { name } } apiKeys { name } } }")  # fmt: skip


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        ("{ servers(first: 101) { nodes { id } } }", {}),
        ("{ servers(first: 1, last: 1) { nodes { id } } }", {}),
        ('{ servers(after: "x") { nodes { id } } }', {}),
        ('{ server(id: "volume_00000000000000000000000000") { id } }', {}),
        ('{ ports(filter: {tenantId: "nothing"}) { nodes { id } } }', {}),
        ("query($first: Int!) { servers(first: $first) { nodes { id } } }", {"first": -1}),
        ("query($first: Int!) { servers(first: $first) { nodes { id } } }", {"first": "1"}),
        ("query($id: ID!) { server(id: $id) { id } }", {}),
        ("{ hosts { nodes { id } } }", {}),
        ("{ auditRecords { nodes { id } } }", {}),
    ],
)
def test_errors_are_told_by_the_executor(ways: TwoWays, document: str, variables: dict[str, Any]) -> None:
    for who in ("nobody", "reader"):
        before = ways.on.counts["planned"]
        ways.same(who, document, variables)
        assert ways.on.counts["planned"] == before


def test_what_is_skipped_and_included_is_another_plan(ways: TwoWays) -> None:
    document = (
        "query($all: Boolean!) { servers { nodes { id name @include(if: $all) ... @skip(if: $all) { status } } } }"
    )
    with_name, with_status = (
        ways.planned("admin", document, {"all": each}).data["servers"]["nodes"][0] for each in (True, False)
    )
    assert (set(with_name), set(with_status)) == ({"id", "name"}, {"id", "status"})
