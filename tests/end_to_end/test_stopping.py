"""Ends of processes: asked for, and not. Whatever was under way is taken up again and settles."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from drivers.sim import DataCentre
from gateway.client import Client, Problem, Unreachable
from gateway.client.client import ENDED
from tests.end_to_end.event_log import EventLog
from tests.end_to_end.processes import Gateway, cloud, wait_for
from tests.end_to_end.scene import NO_USE, Scene, centre_of, machine_id, small_disk, use_of_hosts

STOP_S = 15.0
SETTLE_S = 150.0
JOBS = """query($after: String) { jobs(first: 100, after: $after) {
 nodes { id kind status } pageInfo { hasNextPage endCursor } } }"""
SERVERS = """query($tenant: ID!) { servers(first: 100, filter: { tenantId: $tenant }) {
 nodes { id status vcpus ramMib diskGib } } }"""


def _jobs(client: Client) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    after: str | None = None
    while True:
        page = client.run(JOBS, after=after)["jobs"]
        found += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


def _settled(client: Client) -> bool:
    return all(each["status"] in ENDED for each in _jobs(client))


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_a_graceful_stop_leaves_the_job_to_the_next_start(tmp_path: Path, *, group: bool) -> None:
    """``group``: the signal reaches the whole process group, as Ctrl-C at `make run` does."""
    with cloud(tmp_path / "cloud") as here:
        (gateway,) = here.gateways
        client = gateway.client(patience_s=30)
        scene = Scene.make(client, small_disk(tmp_path))
        centre = centre_of(here.state)
        centre.latency("machines.ensure", 4_000)
        server, job = scene.ask_server()
        wait_for("the step under way", lambda: _step_runs(client, job, "machine"))
        begun = time.monotonic()
        gateway.signal(signal.SIGTERM, group=group)
        assert gateway.ended(STOP_S + 10) == 0
        assert time.monotonic() - begun < STOP_S
        centre.heal()
        gateway.start()
        gateway.ready()
        assert client.follow(job, deadline_s=90)["status"] == "SUCCEEDED"
        assert scene.server(server)["status"] == "ACTIVE"
        assert len(centre.snapshot_of_world().machines) == 1


def _step_runs(client: Client, job: str, step: str) -> bool:
    found = client.run("query($id: ID!) { job(id: $id) { steps { name status } } }", id=job)["job"]
    return {"name": step, "status": "RUNNING"} in found["steps"]


def test_killed_again_and_again(tmp_path: Path) -> None:
    """SIGKILL at moments drawn by lot, while servers are made and deleted: in the end every job has settled, and what
    is recorded, what is counted and what is there agree.
    """
    seed = 20_260_101
    lot = random.Random(seed)  # noqa: S311 - moments, not secrets
    with cloud(tmp_path / "cloud") as here:
        (gateway,) = here.gateways
        client = gateway.client(patience_s=60)
        scene = Scene.make(client, small_disk(tmp_path))
        centre = centre_of(here.state)
        centre.latency("*", 15)
        for _ in range(6):
            _burst(scene, lot)
            time.sleep(lot.uniform(0.02, 0.8))
            gateway.kill()
            gateway.start()
            gateway.ready()
        centre.heal()
        wait_for("the end of all jobs", lambda: _settled(client), SETTLE_S, 1.0)
        _agree(scene, centre, seed)
        _delete_all(scene)
        wait_for("the end of all deletions", lambda: _settled(client), SETTLE_S, 1.0)
        assert centre.snapshot_of_world().machines == {}
        assert use_of_hosts(client) == {"sim-1": NO_USE}
        scene.dismantle()


def _burst(scene: Scene, lot: random.Random) -> None:
    """Ask for some servers, and to delete some that are there."""
    for number in range(lot.randint(1, 3)):
        scene.ask_server(name=f"s{number}")
    found = scene.client.run(SERVERS, tenant=scene.tenant)["servers"]["nodes"]
    for each in lot.sample(found, k=min(len(found), lot.randint(0, 2))):
        with suppress(Problem):  # it may be gone or on its way out
            scene.client.do("serverDelete", "job { id }", id=each["id"])


def _delete_all(scene: Scene) -> None:
    for each in scene.client.run(SERVERS, tenant=scene.tenant)["servers"]["nodes"]:
        scene.client.do("serverDelete", "job { id }", id=each["id"])


def _agree(scene: Scene, centre: DataCentre, seed: int) -> None:
    """No machine without a row, no row without its machine, and host and quota hold exactly their sum."""
    assert {each["status"] for each in _jobs(scene.client)} <= {"SUCCEEDED", "CANCELLED"}, f"seed {seed}"
    servers = scene.client.run(SERVERS, tenant=scene.tenant)["servers"]["nodes"]
    assert {each["status"] for each in servers} <= {"ACTIVE"}, f"seed {seed}"
    machines = set(centre.snapshot_of_world().machines)
    assert machines == {machine_id(each["id"]) for each in servers}, f"seed {seed}"
    total = {
        "usedVcpus": sum(each["vcpus"] for each in servers),
        "usedRamMib": sum(each["ramMib"] for each in servers),
        "usedDiskGib": sum(each["diskGib"] for each in servers),
    }
    assert use_of_hosts(scene.client) == {"sim-1": total}, f"seed {seed}"
    used = scene.used()
    assert (used["SERVERS"], used["VCPUS"], used["RAM_MIB"]) == (len(servers), total["usedVcpus"], total["usedRamMib"])
    assert used["PORTS"] == len(servers)


def test_a_subscriber_outlives_a_restart(tmp_path: Path) -> None:
    """The client connects again and goes on behind its last cursor: nothing is missed, nothing comes twice."""
    with cloud(tmp_path / "cloud") as here:
        (gateway,) = here.gateways
        client = gateway.client(patience_s=30)
        log = EventLog(client, reconnect_s=60)
        log.begin()
        before = len(log.seen)
        gateway.kill()
        gateway.start()
        gateway.ready()
        made = [
            client.do("tenantCreate", "tenant { id }", name=f"after-{number}")["tenant"]["id"] for number in range(5)
        ]
        wait_for("the last event", lambda: log.of(made[-1]))
        behind = [each["objectId"] for each in log.seen[before:] if each["kind"] == "tenant.created"]
        assert behind == made
        assert len({each["cursor"] for each in log.seen}) == len(log.seen)


def test_a_client_without_patience_says_that_nobody_answers(tmp_path: Path) -> None:
    with cloud(tmp_path / "cloud") as here:
        gateway: Gateway = here.gateways[0]
        client = gateway.client()
        gateway.kill()
        with pytest.raises(Unreachable) as gone:
            client.run("{ viewer { user { name } } }")
        assert gone.value.code == "UNREACHABLE"
