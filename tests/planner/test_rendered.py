"""What no column holds and is planned all the same: links, hours, what depends on the moment, and roots whose own
resolvers answer. That both ways say the same of it is half the matter; these say what.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.compute.server import Server
from gateway.identity.session import Session
from gateway.image import link
from gateway.image.image import Image, ImageStatus
from gateway.image.reception import store_of
from gateway.integration import export
from gateway.integration.export import ExportStatus
from gateway.kernel import ids
from gateway.metering.sample import SampleHour
from resolvers.planner.planner import Planner
from tests.planner.scene import NOW, OURS
from tests.planner.two_ways import TwoWays

HOURS = (
    "query($start: DateTime!, $end: DateTime!) { servers(first: 100) { nodes { id metricsByHour(start: $start, "
    "end: $end) { __typename hour samples cpuTimeNs cpuPercentMax ramUsedMibMax ramUsedMibMean diskReadBytes "
    "diskWrittenBytes netReceivedBytes netSentBytes } } } }"
)
USAGE = (
    "query($t: ID, $end: DateTime!) { usage(input: {tenantId: $t, start: $start, end: $end}) { __typename start end "
    "tenant { id name } totals { resource amountSeconds } lines { resource objectId objectUuid amountSeconds } } }"
).replace("query(", "query($start: DateTime!, ")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The operations that plans were made of since."""
    made: list[Any] = []
    compile_plan = Planner._compiled

    def counted(self: Planner, *given: Any) -> Any:
        made.append(given[0])
        return compile_plan(self, *given)

    monkeypatch.setattr(Planner, "_compiled", counted)
    return made


def _told(found: Any, name: str) -> dict[str, Any]:
    return {each["id"]: each[name] for each in found["nodes"] if each[name] is not None}


@pytest.mark.parametrize("who", ["reader", "member", "admin", "stranger"])
def test_links_are_planned_and_good(ways: TwoWays, who: str) -> None:
    """Each for who asked, though one plan serves them all."""
    found = ways.planned(who, "{ images(first: 100) { nodes { id downloadUrl } } }").data["images"]
    active = {ids.encode("image", row["uid"]) for row in ways.rows[Image] if row["status"] is ImageStatus.ACTIVE}
    links = _told(found, "downloadUrl")
    assert links.keys() == active & {each["id"] for each in found["nodes"]}
    for id_, url in links.items():
        with ways.db.read() as session:
            permit = link.permitted(session, "GET", f"/images/{id_}/data", urlsplit(url).query)
        assert (permit.user_id, permit.expires_at) == (
            ways.people[who].user_id,
            (NOW + link.DOWNLOAD_LASTS).timestamp(),
        )
    files = ways.planned(who, "{ exports(first: 100) { nodes { id downloadUrl } } }").data["exports"]
    for id_, url in _told(files, "downloadUrl").items():
        with ways.db.read() as session:
            assert export.permitted(session, "GET", id_, urlsplit(url).query).status is ExportStatus.READY


def test_where_an_upload_goes_on_is_planned(ways: TwoWays) -> None:
    document = "{ images(first: 100) { nodes { id upload { __typename url expiresAt offset } } } }"
    waiting = _told(ways.planned("member", document).data["images"], "upload")
    assert waiting, "the scene has images that wait for data"
    assert {each["offset"] for each in waiting.values()} == {0}
    one = min(waiting)
    row = next(row for row in ways.rows[Image] if ids.encode("image", row["uid"]) == one)
    path = store_of(ways.db.provided("settings")).upload_path(row["uid"])
    path.write_bytes(b"x" * 1234)
    try:
        told = _told(ways.planned("member", document).data["images"], "upload")
    finally:
        path.unlink()
    assert told[one]["offset"] == 1234
    assert _told(ways.planned("reader", document).data["images"], "upload") == {}


def test_hours_are_planned(ways: TwoWays, compiled: list[Any]) -> None:
    """For every period by one plan, of a text that no other test has asked for."""
    text = HOURS.replace("query(", "query Hours(")
    periods = [(NOW - timedelta(hours=hours), NOW - timedelta(hours=hours - size)) for hours, size in
               ((30, 31), (30, 5), (3, 1), (3, 3))]  # fmt: skip
    periods.append((NOW - timedelta(days=32), NOW))
    ours = {row["uid"] for row in ways.rows[Server] if row["tenant_id"] == OURS}
    for start, end in periods:
        given = {"start": start.isoformat(), "end": end.isoformat().replace("+00:00", "Z")}
        nodes = ways.planned("reader", text, given).data["servers"]["nodes"]
        expected = {
            ids.encode("server", uid): [
                row["hour"] for row in sorted(ways.rows[SampleHour], key=lambda row: row["hour"])
                if row["server_uid"] == uid and start <= row["hour"] < end
            ]
            for uid in ours
        }  # fmt: skip
        told = {each["id"]: [datetime.fromisoformat(hour["hour"]) for hour in each["metricsByHour"]] for each in nodes}
        assert told == expected
    assert len(compiled) == 1
    for who in ways.people:
        ways.same(who, HOURS, {"start": periods[0][0].isoformat(), "end": periods[0][1].isoformat()})


@pytest.mark.parametrize(
    ("start", "end"),
    [("2026-03-01T00:00:00Z", "2026-02-01T00:00:00Z"), ("2026-01-01T00:00:00Z", "2026-02-02T00:00:01Z"), ("x", "y")],
)
def test_a_period_that_is_refused_is_told_by_the_executor(ways: TwoWays, start: str, end: str) -> None:
    before = ways.on.counts["planned"]
    assert ways.same("reader", HOURS, {"start": start, "end": end}).codes[0] in {"INVALID", "BAD_USER_INPUT"}
    written = HOURS.replace("query($start: DateTime!, $end: DateTime!) ", "")
    written = written.replace("$start", f'"{start}"').replace("$end", f'"{end}"')
    assert ways.same("reader", written).codes
    assert ways.on.counts["planned"] == before
    if start != "x":
        assert ways.same("homeless", HOURS, {"start": start, "end": end}).data == {"servers": {"nodes": []}}


def test_the_moment_is_that_of_the_request(ways: TwoWays, compiled: list[Any]) -> None:
    """A plan that was made before something ended no longer tells of it."""
    document = (
        "{ users(first: 100) { nodes { id lockedUntil } } viewer { sessions { id expiresAt } } "
        "exports(first: 100) { nodes { id downloadUrl } } }"
    )
    seen = []
    try:
        for days in (0, 1, 29, 40):
            ways.db.provide("clock", lambda days=days: NOW + timedelta(days=days))
            found = ways.planned("admin", document).data
            alive = [
                ids.encode("session", row["uid"]) for row in ways.rows[Session]
                if row["user_id"] == 1 and row["revoked_at"] is None and row["expires_at"] > NOW + timedelta(days=days)
            ]  # fmt: skip
            assert [each["id"] for each in found["viewer"]["sessions"]] == alive
            seen.append((len(_told(found["users"], "lockedUntil")), len(_told(found["exports"], "downloadUrl"))))
    finally:
        ways.db.provide("clock", lambda: NOW)
    assert (seen[0][0], seen[-1]) == (1, (0, 0))
    assert len(compiled) == 1


def test_an_api_key_has_no_sessions(ways: TwoWays) -> None:
    assert ways.planned("key", "{ viewer { sessions { id } } }").data == {"viewer": {"sessions": []}}


@pytest.mark.parametrize("who", ["nobody", "reader", "admin", "key"])
def test_what_the_process_knows_is_planned_and_asks_no_database(
    ways: TwoWays, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the database was asked")

    document = """{ __typename cloud { version services currency drivers { kind description capabilities missing
      unavailable } } again: rateLimit { cost costLimit limit remaining resetAt } }"""
    ways.planned(who, document)
    ways.planned(who, "{ cloud { drivers { kind } } }")
    monkeypatch.setattr("gateway.reads.reader.SqliteReader.read", never)
    monkeypatch.setattr("gateway.reads.postgres.PostgresReader.read", never)
    found = ways.planned(who, document.replace("__typename ", "")).data
    assert [each["missing"] for each in found["cloud"]["drivers"]] == [[], ["console"]]


def test_usage_is_planned(ways: TwoWays, compiled: list[Any]) -> None:
    """With sums, lines, and the tenant's own columns; for every period by one plan."""
    period = {"start": "2026-02-01T00:00:00Z", "end": "2026-03-01T12:00:00Z"}
    tenant = ways.planned("manager", "{ tenants { nodes { id } } }").data["tenants"]["nodes"][0]["id"]
    found = ways.planned("manager", USAGE, {"t": tenant, **period}).data["usage"]
    assert found["totals"]
    assert found["lines"]
    del compiled[:]
    for end in ("2026-02-20T00:00:00Z", "2026-02-25T00:00:00+02:00", "2030-01-01T00:00:00Z"):
        ways.planned("manager", USAGE, {"t": tenant, **period, "end": end})
    assert compiled == []
    whole = "query($i: UsageInput!) { servers { totalCount } usage(input: $i) { totals { amountSeconds } } }"
    ways.planned("reader", whole, {"i": period})
    for who in ways.people:
        ways.same(who, USAGE, {"t": tenant, **period})
        ways.same(who, whole, {"i": period})
        ways.same(who, whole, {"i": {"start": period["end"], "end": period["start"]}})
    assert ways.same("reader", whole, {"i": {"start": period["end"], "end": period["start"]}}).codes == ["INVALID"]
    assert ways.same("member", whole, {"i": period}).codes == ["INVALID"], "in which tenant?"
    ways.mixed("reader", whole.replace("totals {", "tenant { members { id } } totals {"), {"i": period})


PLAN = """query($f: ID!, $name: String!) { serverCreatePlan(input: {name: $name, flavorId: $f, imageId: $f}) {
  __typename possible pricePerHour addresses quota { resource limit used } decision { considered counts { constraint
  hosts } smallestChange { message changes { constraint shortBy message } } } userErrors { __typename code message path
  ... on QuotaExceeded { resource limit } } } }"""


@pytest.mark.parametrize("who", ["member", "manager", "admin"])
def test_plans_of_servers_are_planned(ways: TwoWays, who: str) -> None:
    """As far as they need no further look into the database: which host it was is the executor's to tell."""
    flavors = ways.planned(who, "{ flavors { nodes { id } } }").data["flavors"]["nodes"]
    for each in ({"f": flavors[0]["id"], "name": "x"}, {"f": "flavor_x", "name": "y"}, {"f": "", "name": ""}):
        assert not ways.planned(who, PLAN, each).data["serverCreatePlan"]["possible"]
    chosen = PLAN.replace("considered", "considered chosen { name } verdicts { host { name } }")
    before = ways.on.counts["planned"]
    ways.same(who, chosen, {"f": flavors[0]["id"], "name": "x"})
    assert ways.on.counts["planned"] == before
