"""Single operations, each for something in which two ways of reading may differ, or did."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from gateway.compute.flavor import Flavor
from gateway.compute.server import Server
from gateway.identity.quota import Quota
from gateway.kernel import ids, noun
from tests.planner.two_ways import TwoWays


def _server(ways: TwoWays, tenant: int = 1) -> str:
    """The id of a server of that tenant."""
    return next(ids.encode("server", row["uid"]) for row in ways.rows[Server] if row["tenant_id"] == tenant)


def test_a_field_that_fails_takes_nothing_from_others(ways: TwoWays) -> None:
    """The executor cancels the failed field's siblings; what they await is awaited by another root, too."""
    hours = 'metricsByHour(start: "2026-01-02T00:00:00Z", end: "2026-01-01T00:00:00Z") { samples }'
    bad, good = (f"server(id: $id) {{ tenant {{ id }} {more} }}" for more in (hours, ""))
    document = f"query($id: ID!) {{ bad: {bad} good: {good} }}"
    answer = ways.same("admin", document, {"id": _server(ways)})
    assert answer.codes == ["INVALID"]
    assert answer.data["bad"] is None
    assert answer.data["good"]["tenant"]["id"].startswith("tenant_")


@pytest.mark.parametrize(
    "document", ["{ servers @skip(if: true) { totalCount } }", "{ ... @include(if: false) { cloud { version } } }"]
)
def test_nothing_is_asked(ways: TwoWays, document: str) -> None:
    """PostgreSQL has rows without columns; SQLite refuses them."""
    assert ways.same("reader", document).data == {}


@pytest.mark.parametrize(
    "inner", ["id @skip(if: true)", "tenant { id @skip(if: true) }", "ports { id @skip(if: true) }"]
)
def test_nothing_is_asked_of_an_object(ways: TwoWays, inner: str) -> None:
    """It is an empty object, not nothing."""
    ways.planned("reader", f"query($id: ID!) {{ server(id: $id) {{ {inner} }} }}", {"id": _server(ways)})
    ways.planned("reader", f"{{ servers {{ nodes {{ {inner} }} pageInfo {{ hasNextPage @skip(if: true) }} }} }}")


LISTS = {
    "servers": """name description status statusReason vcpus hypervisor availabilityZone tags metadata { key value }
      allowedActions addresses version createdAt updatedAt launchedAt tenant { name } flavor { name } image { id name }
      keypair { name } host { name } ports { id macAddress } volumes { id device } activeJob { id }""",
    "jobs": """kind status progress attempt requestId cancellable createdAt startedAt finishedAt tenant { id }
      actor { name } steps { name status attempt message startedAt } error { code message path }""",
    "images": """name status visibility format sizeBytes receivedBytes virtualSizeBytes sha256 minDiskGib protected tags
      tenant { name } members { id tenantId tenant { id } }""",
    "ports": """name macAddress portSecurity ipAddresses fixedIps { ipAddress subnet { cidr } } securityGroups { name }
      network { name } server { name }""",
    "subnets": "name cidr ipVersion gateway dhcp dnsServers allocationPools { first last } network { name }",
    "hosts": "name facts: hypervisorVersion accelerator cpuModel capabilities vcpuRatio ramRatio diskRatio usedVcpus",
    "auditRecords": "at operation result userName address requestId asked objects user { name } tenant { name }",
    "volumes": """name sizeGib device deleteWithServer tags server { name } snapshot { name volume { name } }
      image { name }""",
    "users": "name fullName email admin enabled passwordChangedAt memberships { role tenant { name } }",
    "tenants": """name deletedAt members { role user { name } } quotas { resource limit used }
      apiKeys { name expiresAt }""",
    "networks": "name mtu shared deleting subnets { cidr } ports(first: 2) { totalCount nodes { macAddress } }",
    "securityGroups": "name isDefault rules { direction protocol portMin remoteCidr remoteGroup { name } }",
    "flavors": "name description vcpus ramMib diskGib createdAt deletedAt",
    "webhooks": "name url nouns enabled failures failingSince deliveries { nodes { kind status at responseStatus } }",
    "exports": "kind start end status rowCount sizeBytes sha256 expiresAt",
    "snapshots": "name status sizeGib volume { name }",
    "keypairs": "name publicKey fingerprint createdAt",
}
"""Whole objects: texts, moments, numbers and nulls of every kind."""


@pytest.mark.parametrize("name", LISTS)
def test_whole_objects(ways: TwoWays, name: str) -> None:
    """As printed by whoever prints them: zeros at the end of a moment, 1e-07, 2^53+1, quotes and control characters."""
    document = f"{{ {name}(first: 100) {{ nodes {{ id {LISTS[name]} }} totalCount }} }}"
    ways.planned("admin", document)
    for who in ways.people:
        ways.same(who, document)


@pytest.mark.parametrize(
    "document",
    [
        "{ subnets { nodes { id usedAddresses availableAddresses utilisation } } servers { nodes { id } } }",
        "{ users { nodes { name lockedUntil } } rateLimit { cost costLimit } viewer { admin user { name } } }",
        "{ exports { nodes { id downloadUrl } } images { nodes { id upload { url } downloadUrl } } __typename }",
        "{ servers { nodes { id metrics { at cpuPercent } } } cloud { version } __schema { types { name } } }",
    ],
)
def test_what_only_the_executor_knows(ways: TwoWays, document: str) -> None:
    """An operation with anything computed is answered all the same."""
    for who in ("admin", "reader"):
        assert ways.same(who, document).codes == []


@pytest.mark.parametrize("way", ["first", "last"])
@pytest.mark.parametrize("order", ["CREATED_AT", "NAME", "UPDATED_AT", "STATUS"])
@pytest.mark.parametrize("direction", ["ASC", "DESC"])
def test_every_page_of_a_list(ways: TwoWays, way: str, order: str, direction: str) -> None:
    """Through ties, from both ends, by cursors of either way."""
    other, shown = ("after", "endCursor") if way == "first" else ("before", "startCursor")
    document = f"""query($cursor: String) {{ servers({way}: 3, {other}: $cursor,
      orderBy: {{field: {order}, direction: {direction}}}) {{
        edges {{ cursor node {{ id name }} }} pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }}"""
    seen: list[str] = []
    cursor = None
    for _ in range(20):
        page = ways.planned("admin", document, {"cursor": cursor}).data["servers"]
        seen += [each["node"]["id"] for each in page["edges"]]
        cursor = page["pageInfo"][shown]
        if not page["edges"]:
            break
    assert sorted(seen) == sorted(ids.encode("server", row["uid"]) for row in ways.rows[Server])


@pytest.mark.parametrize("order", ["CREATED_AT", "NAME", "CIDR"])
def test_subnets_have_a_column_called_place(ways: TwoWays, order: str) -> None:
    """As a page's numbering of its rows once was called, too."""
    document = f"{{ subnets(last: 3, orderBy: {{field: {order}}}) {{ nodes {{ cidr }} pageInfo {{ startCursor }} }} }}"
    ways.planned("admin", document)


def test_one_document_for_all(ways: TwoWays) -> None:
    """A plan is kept for the next caller: nobody gets another one's rows by it, whoever asked first."""
    document = "{ servers(first: 100) { totalCount nodes { id tenant { id } ports { id } volumes { id } } } }"
    for who in ("manager", "stranger", "manager", "admin", "key", "member", "homeless", "reader", "stranger"):
        found = ways.planned(who, document).data["servers"]
        allowed = ways.people[who].roles
        rows = [row for row in ways.rows[Server] if who == "admin" or row["tenant_id"] in allowed]
        assert sorted(each["id"] for each in found["nodes"]) == sorted(ids.encode("server", row["uid"]) for row in rows)


def test_many_at_once(ways: TwoWays) -> None:
    """Answers do not get mixed up between callers."""
    document = "query($n: Int) { servers(first: $n) { nodes { id name } } viewerless: tenants { nodes { id } } }"
    asked = [(who, number) for number in (1, 5, 100) for who in ("manager", "stranger", "reader", "admin", "member")]

    async def ask() -> list[Any]:
        return await asyncio.gather(*(ways.on.ask(who, document, {"n": number}) for who, number in asked * 3))

    found = ways.loop.run(ask())
    for (who, number), answer in zip(asked * 3, found, strict=True):
        assert answer.data == ways.both(who, document, {"n": number})[1].data


@pytest.mark.parametrize("values", [{}, {"a": True}, {"a": False}, {"b": True}, {"a": True, "b": True}, {"b": False}])
def test_switches(ways: TwoWays, values: dict[str, bool]) -> None:
    """One text, but a plan for each way its switches stand."""
    document = """query($a: Boolean = false, $b: Boolean! = true) { servers(first: 3) { nodes { id
      name @include(if: $a) ... @skip(if: $a) { status } ports @include(if: $b) { id } ...F @include(if: $a) } } }
      fragment F on Server { tenant { name @skip(if: $b) id } }"""
    ways.planned("reader", document, values)


@pytest.mark.parametrize("values", [{}, {"n": None}, {"n": 0}, {"n": 2}, {"n": 101}, {"n": -1}, {"n": "x"}, {"n": 2.0}])
@pytest.mark.parametrize("declared", ["$n: Int", "$n: Int = 1", "$n: Int = null"])
def test_sizes_by_variables(ways: TwoWays, values: dict[str, object], declared: str) -> None:
    """Left out, null, the default, too many, and no number."""
    ways.same(
        "reader", f"query({declared}) {{ servers(first: $n) {{ nodes {{ id }} pageInfo {{ endCursor }} }} }}", values
    )


@pytest.mark.parametrize(
    "document",
    [
        'query($v: ID = "x") { server(id: $v) { id } flavors { nodes { id } } }',
        """query($v: DateTime = "2026-02-27T00:00:00Z") { servers { nodes {
          metricsByHour(start: $v, end: "2026-03-02T00:00:00Z") { hour } } } }""",
        """query($v: DateTime = "2026-02-27T00:00:00Z") {
          usage(input: {start: $v, end: "2026-03-02T00:00:00Z"}) { start totals { resource } } }""",
    ],
)
def test_null_where_only_the_default_may_stand(ways: TwoWays, document: str) -> None:
    """Valid by its text; the executor tells what is wrong with the null."""
    for values in ({}, {"v": None}, {}):
        found = ways.same("reader", document, values)
        assert bool(found.codes) == bool(values)


FILTERS = [{}, {"name": None}, {"name": "web-1"}, {"name": 'say "hi"'}, {"nameContains": "%"}, {"nameContains": "_"},
           {"nameContains": "WEB"}, {"nameContains": "\\"}, {"nameContains": "İ"}, {"status": []},
           {"status": ["ACTIVE"]}, {"status": None}, {"tag": "it's"},
           {"tag": 'say "hi"'}, {"tag": ""}, {"tenantId": "tenant_x"}]  # fmt: skip


@pytest.mark.parametrize("given", FILTERS)
def test_filters(ways: TwoWays, given: dict[str, object]) -> None:
    """By a variable as a whole; values that a statement must not read as its own words."""
    document = "query($f: ServerFilter) { servers(first: 100, filter: $f) { totalCount nodes { id name } } }"
    for who in ("admin", "reader"):
        ways.same(who, document, {"f": given})


def test_objects_of_any_kind(ways: TwoWays) -> None:
    """By ids of all nouns, others' too, ids of nothing, and the same twice."""
    every = [ids.encode(each.prefix, ways.rows[each.table][0]["uid"]) for each in noun.BY_PREFIX.values()]
    document = """query($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Server { name status }
      ... on Volume { name volumeStatus: status } ... on Job { target { id __typename } } } }"""
    for who in ways.people:
        ways.same(who, document, {"ids": [*every, "x", "server_0", every[0]]})
        for each in every:
            ways.same(who, "query($id: ID!) { node(id: $id) { __typename id } }", {"id": each})


def test_a_row_that_breaks_a_promise(ways: TwoWays) -> None:
    """A number that the schema's Int does not hold is an error in either way, never another number."""
    broken = next(row for row in ways.rows[Quota] if row["used"] > 2**32)
    document = "query($id: ID!) { node(id: $id) { id ... on Quota { resource used } } }"
    answer = ways.same("admin", document, {"id": ids.encode("quota", broken["uid"])})
    assert answer.codes != []


def test_what_was_written_is_read(ways: TwoWays) -> None:
    """The planner's connections see each commit at once."""
    document = "query($id: ID!) { flavor(id: $id) { description } }"
    row = ways.rows[Flavor][0]
    for text in ("changed", "changed again", row["description"]):
        with ways.db.write() as session:
            session.execute(sa.update(Flavor).values(description=text).where(col(Flavor.id) == row["id"]))
        found = ways.planned("reader", document, {"id": ids.encode("flavor", row["uid"])})
        assert found.data["flavor"]["description"] == text


@pytest.mark.parametrize("ways", ["postgresql"], indirect=True)
def test_connections_that_were_cut(ways: TwoWays) -> None:
    """Nobody notices that they are gone, in either way, however lately they were used."""
    document = "{ servers(first: 2) { nodes { id } } }"
    ways.planned("reader", document)
    ways.same("reader", document)
    others = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    with ways.db.engine.connect() as connection:
        connection.exec_driver_sql(others)
    assert ways.planned("reader", document).codes == []  # and the executor's answer is the same


@pytest.mark.parametrize("ways", ["postgresql"], indirect=True)
def test_a_database_that_takes_too_long(ways: TwoWays) -> None:
    """The operation's deadline acts in either way, and leaves nothing behind."""
    document = "{ webhooks(first: 2) { nodes { id name } } }"
    ways.planned("reader", document)
    hurried = ways.hurried(1.0)
    with ways.db.engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE webhook IN ACCESS EXCLUSIVE MODE")
        assert hurried.same("reader", document).codes == ["TIMEOUT"]
    ways.planned("reader", document)
