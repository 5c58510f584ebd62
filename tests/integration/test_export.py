"""Exports: what is in them, who gets them, how they are downloaded, and when they are gone."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.integration import content, export
from gateway.jobs.job import Job
from gateway.kernel import noun
from gateway.kernel.access import Role
from resolvers.integration.download import routes
from tests.compute.scene import Scene
from tests.world import Client, World

FIELDS = """export { id kind status statusReason rowCount sizeBytes sha256 expiresAt downloadUrl start end }"""
ASK = f"query($id: ID!) {{ {FIELDS.replace('export', 'export(id: $id)', 1)} }}"


@pytest.fixture
def web(world: World) -> TestClient:
    return TestClient(Starlette(routes=routes(world.db, world.settings)), base_url=world.settings.url)


def made(client: Client, **given: Any) -> dict[str, Any]:
    """An export that was asked for and written."""
    public = client.do("bulkExport", "export { id } job { id kind }", **given)["export"]["id"]
    client.world.work()
    found: dict[str, Any] = client.ok(ASK, id=public)["export"]
    return found


def lines(web: TestClient, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The file's lines, once size, checksum and count were compared."""
    answer = web.get(found["downloadUrl"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jsonl")
    assert len(answer.content) == int(found["sizeBytes"])
    assert hashlib.sha256(answer.content).hexdigest() == found["sha256"]
    told = [json.loads(each) for each in answer.content.decode().splitlines()]
    assert len(told) == int(found["rowCount"])
    return told


def folder(world: World) -> Path:
    return export.folder(world.settings.state_dir)


def test_an_inventory_holds_what_a_tenant_has(world: World, web: TestClient) -> None:
    world.host()
    scene = Scene.make(world)
    alice = scene.alice
    server = scene.server(
        networks=[{"networkId": scene.network}],
        userData="#!/bin/sh\necho a secret\n",
        metadata=[{"key": "role", "value": "front"}],
    )
    volume = alice.do("volumeCreate", "volume { id }", name="data", sizeGib=2)["volume"]["id"]
    world.work()
    told = lines(web, made(world.member(scene.tenant_row, Role.READER), kind="INVENTORY"))
    by_type: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for each in told:
        by_type[each["type"]].append(each)
    ask = """query($s: ID!) { server(id: $s) { name status vcpus ramMib flavor { id } image { id } version createdAt
        metadata { key value } ports { id macAddress ipAddresses } } }"""
    seen = alice.ok(ask, s=server)["server"]
    [line] = by_type["server"]
    assert {name: line[name] for name in ("id", "name", "status", "vcpus", "ramMib", "version", "createdAt")} == {
        "id": server, **{name: seen[name] for name in ("name", "status", "vcpus", "ramMib", "version", "createdAt")},
    }  # fmt: skip
    assert (line["flavorId"], line["imageId"]) == (seen["flavor"]["id"], seen["image"]["id"])
    assert line["metadata"] == {"role": "front"}
    assert [each["id"] for each in by_type["volume"]] == [volume]
    ports = [{name: each[name] for name in ("id", "macAddress", "ipAddresses")} for each in by_type["port"]]
    assert ports == seen["ports"]
    assert {each["serverId"] for each in by_type["port"]} == {server}
    text = json.dumps(told)
    assert [each for each in ("a secret", "userData", "host", "digest", "sealed", "password") if each in text] == []


def test_every_noun_of_a_tenant_is_told_or_left_out() -> None:
    noun.load_all()
    own = {prefix for prefix, kind in noun.BY_PREFIX.items() if hasattr(kind.table, "tenant_id")}
    assert set(content.INVENTORY) | content.LEFT_OUT == own
    assert not set(content.INVENTORY) & content.LEFT_OUT
    secret = {"sealed_secret", "digest", "password", "user_data", "source_url", "host_id", "arguments"}
    assert [prefix for prefix, columns in content.INVENTORY.items() if secret & set(columns)] == []


def test_usage_adds_up_to_the_report(world: World, web: TestClient) -> None:
    alice = world.member(world.tenant())
    world.host()
    start = world.clock.at
    volume = alice.do("volumeCreate", "volume { id }", name="data", sizeGib=2)["volume"]["id"]
    world.work()
    world.clock.advance(hours=1)
    alice.do("volumeExtend", "volume { id }", id=volume, sizeGib=5)
    world.work()
    world.clock.advance(hours=2)
    half, two = start + timedelta(minutes=30), start + timedelta(hours=2)
    period = {"start": f"{half:%Y-%m-%dT%H:%M:%S.%fZ}", "end": f"{two:%Y-%m-%dT%H:%M:%S.%fZ}"}
    told = lines(web, made(alice, kind="USAGE", **period))
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for each in told:
        sums[each["resource"]] += Decimal(each["amountSeconds"])
    ask = "query($i: UsageInput!) { usage(input: $i) { totals { resource amountSeconds } } }"
    report = alice.ok(ask, i=period)["usage"]["totals"]
    assert sums == {each["resource"]: Decimal(each["amountSeconds"]) for each in report}
    assert (told[0]["amount"], told[0]["start"]) == (2, period["start"])
    assert told[-1]["end"] == period["end"]


def test_events_are_those_of_the_log(world: World, web: TestClient) -> None:
    alice = world.member(world.tenant())
    alice.do("networkCreate", "network { id }", name="early")
    world.clock.advance(hours=1)
    start = world.clock.at
    ids = [alice.do("networkCreate", "network { id }", name=str(number))["network"]["id"] for number in range(3)]
    told = lines(web, made(alice, kind="EVENTS", start=start.isoformat()))
    networks = [each for each in told if each["kind"] == "network.created"]
    assert [each["objectId"] for each in networks] == ids
    nothing = made(alice, kind="EVENTS", end=start.isoformat(), start=(start - timedelta(minutes=1)).isoformat())
    assert (nothing["rowCount"], nothing["sizeBytes"], lines(web, nothing)) == (0, 0, [])


def test_more_rows_than_a_batch(world: World, web: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches end anywhere: between nouns, exactly at a noun's last row, and after none."""
    monkeypatch.setattr(content, "BATCH", 3)
    alice = world.member(world.tenant())
    start = world.clock.at
    for number in range(6):
        alice.do("networkCreate", "network { id }", name=str(number))
    told = lines(web, made(alice, kind="INVENTORY"))
    assert [each["name"] for each in told if each["type"] == "network"] == ["0", "1", "2", "3", "4", "5"]
    events = lines(web, made(alice, kind="EVENTS", start=start.isoformat()))
    assert [each["kind"] for each in events].count("network.created") == 6
    assert len({each["cursor"] for each in events}) == len(events)


def test_other_tenants_see_nothing(world: World, web: TestClient) -> None:
    alice, bob = world.member(world.tenant()), world.member(world.tenant())
    alice.do("networkCreate", "network { id }", name="hers")
    hers = made(alice, kind="INVENTORY")
    assert bob.ok(ASK, id=hers["id"])["export"] is None
    assert bob.ok("{ exports { totalCount nodes { id } } }")["exports"] == {"totalCount": 0, "nodes": []}
    assert bob.refused("exportDelete", id=hers["id"]) == [("NOT_FOUND", ["id"])]
    tenant = alice.ok("{ tenants { nodes { id } } }")["tenants"]["nodes"][0]["id"]
    assert bob.refused("bulkExport", kind="INVENTORY", tenantId=tenant) == [("NOT_FOUND", ["tenantId"])]
    assert world.nobody.run(ASK, id=hers["id"]).codes == ["UNAUTHENTICATED"]
    assert [each for each in lines(web, made(bob, kind="INVENTORY")) if each.get("name") == "hers"] == []
    assert [each["id"] for each in alice.ok("{ exports { nodes { id } } }")["exports"]["nodes"]] == [hers["id"]]
    assert world.admin.ok(ASK, id=hers["id"])["export"]["sha256"] == hers["sha256"]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"kind": "INVENTORY", "start": "2026-01-01T00:00:00Z"}, []),
        ({"kind": "USAGE"}, []),
        ({"kind": "USAGE", "start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, []),
    ],
)
def test_what_makes_no_sense_is_refused(world: World, given: dict[str, Any], path: list[str]) -> None:
    alice = world.member(world.tenant())
    assert [(code, where or []) for code, where in alice.refused("bulkExport", **given)] == [("INVALID", path)]
    assert alice.ok("{ exports { totalCount } }")["exports"]["totalCount"] == 0


def test_a_tenant_has_only_so_many(world: World) -> None:
    alice = world.member(world.tenant())
    for _ in range(export.MOST_OF_A_TENANT):
        alice.do("bulkExport", "export { id }", kind="INVENTORY")
    assert alice.refused("bulkExport", kind="INVENTORY") == [("CONFLICT", None)]


def test_the_link_serves_ranges_and_nothing_else(world: World, web: TestClient) -> None:
    alice = world.member(world.tenant())
    found = made(alice, kind="INVENTORY")
    url, size = found["downloadUrl"], int(found["sizeBytes"])
    whole = web.get(url)
    assert whole.headers["etag"] == f'"{found["sha256"]}"'
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-disposition"].startswith('attachment; filename="inventory-2026')
    part = web.get(url, headers={"Range": "bytes=5-14"})
    assert (part.status_code, part.content) == (206, whole.content[5:15])
    assert part.headers["content-range"] == f"bytes 5-14/{size}"
    stale = web.get(url, headers={"Range": "bytes=5-14", "If-Range": '"another"'})
    assert (stale.status_code, stale.content) == (200, whole.content)
    assert web.get(url, headers={"Range": f"bytes={size}-"}).status_code == 416
    head = web.head(url)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")
    path, _, query = url.partition("?")
    other = made(alice, kind="EVENTS")["downloadUrl"].partition("?")[0]
    altered = query[:-1] + ("0" if query[-1] != "0" else "1")
    for wrong in (path, f"{path}?{altered}", f"{other}?{query}", f"{path}?{query}&more=1"):
        answer = web.get(wrong)
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    assert web.post(url).status_code == 405


def test_the_link_ends_with_its_hour_and_with_the_export(world: World, web: TestClient) -> None:
    alice = world.member(world.tenant())
    found = made(alice, kind="INVENTORY")
    world.clock.advance(minutes=61)
    assert web.get(found["downloadUrl"]).status_code == 403
    fresh = alice.ok(ASK, id=found["id"])["export"]["downloadUrl"]
    assert web.get(fresh).status_code == 200
    alice.do("exportDelete", "id", id=found["id"])
    assert web.get(fresh).status_code == 404


def test_a_day_later_it_is_gone(world: World, web: TestClient) -> None:
    alice = world.member(world.tenant())
    found = made(alice, kind="INVENTORY")
    assert [each.suffix for each in folder(world).iterdir()] == [".jsonl"]
    assert folder(world).stat().st_mode & 0o077 == 0
    world.clock.advance(hours=23)
    world.reconcile("exports")
    last = alice.ok(ASK, id=found["id"])["export"]["downloadUrl"]
    world.clock.advance(hours=1)
    assert web.get(last).status_code in {403, 404}
    world.reconcile("exports")
    assert alice.ok(ASK, id=found["id"])["export"] is None
    assert list(folder(world).iterdir()) == []


def test_files_without_an_export_are_removed(world: World) -> None:
    alice = world.member(world.tenant())
    deleted = made(alice, kind="INVENTORY")
    alice.do("exportDelete", "id", id=deleted["id"])
    kept = made(alice, kind="INVENTORY")
    fresh = folder(world) / "x.part"
    fresh.write_bytes(b"somebody is at it")
    before = {each.name for each in folder(world).iterdir()}
    world.reconcile("exports")
    assert {each.name for each in folder(world).iterdir()} == before
    long_ago = time.time() - 7200
    for each in folder(world).iterdir():
        os.utime(each, (long_ago, long_ago))
    world.reconcile("exports")
    assert [each.name for each in folder(world).iterdir()] == [f"{noun.BY_PREFIX['export'].uid(kept['id'])}.jsonl"]


def test_one_that_is_being_written_is_cancelled_not_deleted(world: World) -> None:
    alice = world.member(world.tenant())
    asked = alice.do("bulkExport", "export { id } job { id }", kind="INVENTORY")
    assert alice.refused("exportDelete", id=asked["export"]["id"]) == [("INVALID_STATE", ["id"])]
    alice.do("jobCancel", "job { id }", id=asked["job"]["id"])
    world.work()
    found = alice.ok(ASK, id=asked["export"]["id"])["export"]
    assert (found["status"], found["downloadUrl"], found["sizeBytes"]) == ("ERROR", None, None)
    alice.do("exportDelete", "id", id=asked["export"]["id"])


def test_a_cancel_is_heeded_between_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = world.member(world.tenant())
    asked = alice.do("bulkExport", "export { id } job { id }", kind="INVENTORY")
    whole = content.lines

    def cancelled_meanwhile(read: content.Reading, wanted: export.Export) -> Any:
        for number, batch in enumerate(whole(read, wanted)):
            if number == 1:
                alice.do("jobCancel", "job { id }", id=asked["job"]["id"])
            yield batch

    monkeypatch.setattr(content, "lines", cancelled_meanwhile)
    world.work()
    ask = "query($id: ID!) { job(id: $id) { status error { code } } }"
    assert alice.ok(ask, id=asked["job"]["id"])["job"] == {"status": "CANCELLED", "error": {"code": "CANCELLED"}}
    assert list(folder(world).iterdir()) == []


def test_the_same_key_gives_the_same_export(world: World) -> None:
    alice = world.member(world.tenant())
    asked = [alice.do("bulkExport", "export { id } job { id }", kind="INVENTORY", idempotencyKey="k") for _ in range(2)]
    assert asked[0] == asked[1]
    refused = alice.refused("bulkExport", kind="EVENTS", idempotencyKey="k")
    assert [code for code, _ in refused] == ["IDEMPOTENCY_KEY_MISMATCH"]
    with world.db.read() as session:
        assert len(session.exec(select(Job)).all()) == 1
