"""Chance, many times: whatever is asked, lost, late, doubled, broken or dead, the rules hold after every move, all
comes to an end, and what is deleted is gone everywhere.

``STRATOGRAPH_TEST_SEEDS=100:400`` runs other seeds (a soak), ``STRATOGRAPH_TEST_MOVES=1000`` longer ones.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.compute.host import Host
from gateway.compute.server import Server
from gateway.compute.server_snapshot import ServerSnapshot
from gateway.identity.quota import Quota
from gateway.jobs.job import Job, Status
from gateway.network.network import Network, NetworkHost
from gateway.network.port import Port
from gateway.volume.snapshot import Snapshot
from gateway.volume.volume import Volume
from tests.simulation import rules
from tests.simulation.cloud import Cloud

REGRESSIONS: tuple[int, ...] = (20,)
"""Seeds that found something once."""
first, _, last = os.environ.get("STRATOGRAPH_TEST_SEEDS", "0:30").partition(":")
SEEDS = sorted({*range(int(first), int(last)), *REGRESSIONS})
MOVES = int(os.environ.get("STRATOGRAPH_TEST_MOVES", "120"))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rules_hold_whatever_happens(seed: int, tmp_path: Path) -> None:
    cloud = Cloud.open(seed, tmp_path)
    try:
        for number in range(MOVES):
            cloud.move()
            _check(cloud, seed, number)
        cloud.settle()
        _check(cloud, seed, MOVES)
        ended = {each.status for each in cloud.rows(Job)}
        assert ended <= {Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}, _unended(cloud, seed)
        cloud.delete_all()
        _check_empty(cloud, seed)
    finally:
        cloud.world.close()


def _check(cloud: Cloud, seed: int, number: int) -> None:
    broken = rules.check(cloud)
    if broken:
        story = "\n".join(cloud.story[-12:])
        raise AssertionError(f"seed {seed}, move {number}:\n" + "\n".join(broken) + f"\nafter\n{story}")


def _unended(cloud: Cloud, seed: int) -> str:
    left = [each for each in cloud.rows(Job) if each.finished_at is None or each.status is Status.STUCK]
    return f"seed {seed}: " + "\n".join(f"{each.kind} {each.status} {each.error} {each.steps}" for each in left)


def _check_empty(cloud: Cloud, seed: int) -> None:
    _check(cloud, seed, MOVES + 1)
    for kind in (Server, ServerSnapshot, Volume, Snapshot, Port, Network, NetworkHost):
        assert [repr(each) for each in cloud.rows(kind)] == [], f"seed {seed}"
    assert {
        (each.resource, each.used) for each in cloud.rows(Quota) if each.used and each.resource in rules.COUNTED
    } == set()
    for host in cloud.rows(Host):
        assert (host.used_vcpus, host.used_ram_mib, host.used_disk_gib) == (0, 0, 0)
    for centre in cloud.centres:
        left = centre.snapshot_of_world().without_images()
        parts = (left.machines, left.volumes, left.snapshots, left.networks, left.ports, left.machine_snapshots)
        assert parts == ({}, {}, {}, {}, {}, {}), f"seed {seed}"
