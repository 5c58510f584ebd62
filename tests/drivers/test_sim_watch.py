"""Watching a simulated host within one process: order, ends, and watchers that misbehave."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import MachineSpec, Power, PowerAction
from drivers.contract import Rig
from drivers.contracts.rig import wait_for
from drivers.sim import DRIVER, DataCentre
from drivers.sim.store import CHANGES_KEPT, MemoryStore
from tests.drivers.test_sim_contract import rig_of


@pytest.fixture(params=["memory", "file"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Rig, DataCentre]]:
    rig, centre = rig_of(DRIVER, tmp_path, store=request.param)
    yield rig, centre
    rig.driver.close()
    centre.clear()


def watching(rig: Rig) -> api.Watching:
    assert isinstance(rig.driver, api.Watching)
    return rig.driver


def make(rig: Rig) -> UUID:
    spec = MachineSpec(uuid4(), "m", 1, 64, ())
    rig.driver.machines.ensure(spec, rig.deadline)
    return spec.id


def test_every_change_is_told_once_and_in_order(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    seen: list[api.MachineChanged] = []
    watching(rig).watch(seen.append, rig.deadline)
    machine = make(rig)
    rig.power(machine, PowerAction.ON)
    centre.stop(machine, crashed=True)
    rig.power(machine, PowerAction.ON)
    rig.driver.machines.remove(machine, rig.deadline)
    wait_for(lambda: bool(seen) and seen[-1].machine is None, 10, "the removal is told")
    powers = [None if each.machine is None else each.machine.power for each in seen]
    assert powers == [Power.OFF, Power.RUNNING, Power.CRASHED, Power.RUNNING, Power.OFF, None]


def test_two_watchers_hear_the_same_and_a_failing_one_harms_nobody(host: tuple[Rig, DataCentre]) -> None:
    rig, _ = host
    heard: list[UUID] = []

    def failing(change: api.MachineChanged) -> None:
        raise ValueError(change.machine_id)

    first = watching(rig).watch(failing, rig.deadline)
    watching(rig).watch(lambda change: heard.append(change.machine_id), rig.deadline)
    machines = [make(rig) for _ in range(3)]
    wait_for(lambda: heard == machines, 10, "the second watcher hears all")
    assert first.alive


def test_a_watch_may_close_itself(host: tuple[Rig, DataCentre]) -> None:
    rig, _ = host
    heard: list[UUID] = []
    watches: list[api.Watch] = []

    def once(change: api.MachineChanged) -> None:
        heard.append(change.machine_id)
        watches[0].close()

    watches.append(watching(rig).watch(once, rig.deadline))
    other: list[UUID] = []
    watching(rig).watch(lambda change: other.append(change.machine_id), rig.deadline)
    machines = [make(rig) for _ in range(3)]
    wait_for(lambda: other == machines, 10, "the other watcher hears all")
    assert heard == machines[:1]
    assert not watches[0].alive


def test_closing_the_connection_ends_its_watches(host: tuple[Rig, DataCentre]) -> None:
    rig, _ = host
    other = rig.connect()
    assert isinstance(other, api.Watching)
    watch = other.watch(lambda _: None, rig.deadline)
    other.close()
    assert not watch.alive


def test_a_host_that_is_down_ends_the_watch(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    watch = watching(rig).watch(lambda _: None, rig.deadline)
    centre.down()
    wait_for(lambda: not watch.alive, 10, "the watch ends")
    centre.up()


def test_a_log_that_dropped_changes_says_so() -> None:
    store, deadline = MemoryStore(), api.Deadline(10)
    for _ in range(CHANGES_KEPT + 2):
        with store.write(deadline) as transaction:
            transaction.tell("x", None)
    assert store.changes_after(1, deadline) is None
    assert len(store.changes_after(2, deadline) or ()) == CHANGES_KEPT
    assert store.changes_after(store.newest_change(deadline), deadline) == []
