"""A server's whole life through the public API: one body, on one process and on many."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.client import Client, JobFailed, Problem
from tests.end_to_end.event_log import EVENTS, EventLog
from tests.end_to_end.processes import PASSWORD, Cloud, asked, cloud, wait_for
from tests.end_to_end.scene import NO_USE, Scene, centre_of, machine_id, small_disk, use_of_hosts

PLAN = """query($input: ServerCreateInput!) { serverCreatePlan(input: $input) {
 possible decision { chosen { name } } } }"""
USAGE = "query($input: UsageInput!) { usage(input: $input) { totals { resource amountSeconds } } }"


def live(here: Cloud, tmp_path: Path) -> None:
    """Everything a user does with a server, over the first gateway; what happens is watched over the last."""
    client, watcher = here.gateways[0].client(), here.gateways[-1].client()
    centre = centre_of(here.state)
    empty = centre.snapshot_of_world().without_images()
    log = EventLog(watcher)
    log.begin()
    scene = Scene.make(client, small_disk(tmp_path))
    volume = scene.make_volume(sizeGib=1)
    server = _made(scene, volume)
    _driven(scene, server)
    copies = _stored(scene, server, volume)
    _metered(scene, server)
    _refused(scene, volume)

    scene.act("serverDelete", id=server)
    assert scene.server(server) is None
    for mutation, thing in [("volumeDelete", volume), *copies]:
        scene.act(mutation, id=thing)
    scene.dismantle()
    assert use_of_hosts(client) == {"sim-1": NO_USE}
    left = centre.snapshot_of_world().without_images()
    assert left == empty, left.difference(empty)

    wait_for("the event of the deletion", lambda: [each for each in log.of(server) if each["kind"] == "server.deleted"])
    assert log.of(server)[0]["kind"] == "server.created"
    seen = list(log.seen)
    middle = len(seen) // 2
    assert _resumed(watcher, seen[middle]["cursor"], len(seen) - middle - 1) == seen[middle + 1 :]


def _made(scene: Scene, volume: str) -> str:
    pair = scene.client.do("keypairCreate", "keypair { id } privateKey", name=f"k{time.monotonic_ns()}")
    assert pair["privateKey"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    plan = scene.client.run(PLAN, input=scene.wanted())["serverCreatePlan"]
    assert plan == {"possible": True, "decision": {"chosen": {"name": "sim-1"}}}
    server = scene.make_server(
        volumes=[{"volumeId": volume}], keypairId=pair["keypair"]["id"], userData="#!/bin/sh\necho hello\n"
    )
    found = scene.server(server)
    assert found["addresses"] == ["10.77.0.2"]
    assert found["volumes"] == [{"id": volume, "name": "data", "device": "vdb", "status": "IN_USE", "sizeGib": 1}]
    assert f"UUID {machine_id(server)}" in found["consoleLog"]
    assert "[simulated]" in found["consoleLog"]
    assert set(use_of_hosts(scene.client)["sim-1"].values()) != {0}
    scene.client.do("keypairDelete", "id", id=pair["keypair"]["id"])
    return server


def _driven(scene: Scene, server: str) -> None:
    scene.act("serverStop", id=server)
    assert scene.server(server)["status"] == "STOPPED"
    scene.act("serverStart", id=server)
    scene.act("serverReboot", id=server, hard=True)
    assert scene.server(server)["status"] == "ACTIVE"


def _stored(scene: Scene, server: str, volume: str) -> list[tuple[str, str]]:
    """The volume detached, grown, copied and attached again; what was made, with the mutation that deletes it."""
    scene.act("volumeDetach", volumeId=volume)
    assert scene.server(server)["volumes"] == []
    scene.act("volumeExtend", id=volume, sizeGib=3)
    made = scene.client.do("snapshotCreate", "snapshot { id } job { id }", name="before", volumeId=volume)
    scene.wait(made)
    copy = scene.make_volume(name="copy", snapshotId=made["snapshot"]["id"])
    scene.act("volumeAttach", volumeId=volume, serverId=server)
    assert [each["sizeGib"] for each in scene.server(server)["volumes"]] == [3]
    return [("snapshotDelete", made["snapshot"]["id"]), ("volumeDelete", copy)]


def _metered(scene: Scene, server: str) -> None:
    sampled = wait_for("a sample", lambda: scene.server(server)["metrics"])
    assert sampled["ramMib"] == 128
    now = datetime.now(UTC)
    period = {"tenantId": scene.tenant, "start": (now - timedelta(hours=1)).isoformat(), "end": now.isoformat()}
    totals = scene.client.run(USAGE, input=period)["usage"]["totals"]
    used = {each["resource"]: Decimal(each["amountSeconds"]) for each in totals}
    assert used["VCPU"] > 0
    assert float(used["RAM_MIB"] / 128) == pytest.approx(float(used["VCPU"]), abs=0.1)


def _refused(scene: Scene, volume: str) -> None:
    with pytest.raises(Problem) as refused:
        scene.act("volumeDelete", id=volume)
    assert refused.value.code == "IN_USE"
    server, job = scene.ask_server(availabilityZone="nowhere")
    with pytest.raises(JobFailed) as unplaced:
        scene.client.follow(job, deadline_s=60)
    assert (unplaced.value.code, unplaced.value.job["status"]) == ("NO_VALID_HOST", "FAILED")
    assert scene.server(server)["status"] == "ERROR"
    scene.act("serverDelete", id=server)


def _resumed(client: Client, after: str, count: int) -> list[dict[str, str]]:
    """So many events behind a cursor, by a subscriber that was not there when they happened."""
    with closing(client.subscribe(EVENTS, {"after": after}, deadline_s=30)) as pushed:  # type: ignore[type-var]  # a generator
        return [next(pushed)["events"] for _ in range(count)]


def test_on_one_process(tmp_path: Path) -> None:
    with cloud(tmp_path / "cloud") as here:
        live(here, tmp_path)
        assert here.gateways[0].stop() == 0


def test_on_two_gateways_and_two_workers_with_postgresql_and_rabbitmq(
    tmp_path: Path, postgres_url: str, rabbit_url: str
) -> None:
    with cloud(tmp_path / "cloud", gateways=2, workers=2, database_url=postgres_url, broker_url=rabbit_url) as here:
        live(here, tmp_path)
        assert asked(f"{here.gateways[0].url}/readyz") == {"status": "ready", "broker": "ok", "disk": "ok"}
        assert [each.stop() for each in (*here.workers, *here.gateways)] == [0, 0, 0, 0]


def test_on_redis(tmp_path: Path, redis_url: str) -> None:
    with cloud(tmp_path / "cloud", workers=1, broker_url=redis_url) as here:
        live(here, tmp_path)


def test_signing_in(tmp_path: Path) -> None:
    with cloud(tmp_path / "cloud") as here:
        url = here.gateways[0].url
        with Client(url) as client:
            with pytest.raises(Problem) as wrong:
                client.sign_in("admin", "not the password")
            assert wrong.value.code == "UNAUTHENTICATED"
            with pytest.raises(Problem) as nobody:
                client.run("{ servers { nodes { id } } }")
            assert nobody.value.code == "UNAUTHENTICATED"
            with pytest.raises(Problem) as deaf:
                next(client.subscribe("subscription { events { cursor } }", deadline_s=10))
            assert deaf.value.code == "UNAUTHENTICATED"
            client.sign_in("admin", PASSWORD)
            token = client.token
            client.sign_out()
            with pytest.raises(Problem) as ended:
                Client(url, token).run("{ viewer { user { name } } }")
            assert ended.value.code == "UNAUTHENTICATED"
