"""A simulated host in a file belongs to every process: what one does, orders or destroys, the others see."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import Deadline, HostAtFault, HostConfig, Power, PowerAction, Refused, Transient, VolumeSpec
from drivers.contracts.rig import wait_for
from drivers.sim import DRIVER, data_centre

MIB = 1024 * 1024
CONTEXT = multiprocessing.get_context("spawn")


def connect(folder: Path) -> api.Driver:
    return DRIVER.connect(HostConfig("h", "sim://shared", folder, {"state": str(folder)}), Deadline(30))


def make_volumes(folder: str, ids: list[UUID]) -> None:
    driver = connect(Path(folder))
    for each in ids:
        driver.volumes.ensure(VolumeSpec(each, MIB), Deadline(30))


def race_for(folder: str, volume: UUID, machine: UUID) -> None:
    """Ends with 1 when another machine has the volume."""
    spec = api.MachineSpec(machine, "racer", 1, 64, (api.DiskSpec(volume, "vda"),))
    try:
        connect(Path(folder)).machines.ensure(spec, Deadline(30))
    except Refused:
        raise SystemExit(1) from None


def order_a_stop(folder: str, machine: UUID) -> None:
    data_centre("shared", Path(folder)).stop(machine)


def order_a_fault(folder: str) -> None:
    data_centre("shared", Path(folder)).fail("volumes.list", Transient)


def run(*processes: multiprocessing.context.SpawnProcess) -> list[int | None]:
    for each in processes:
        each.start()
    for each in processes:
        each.join(60)
    return [each.exitcode for each in processes]


def test_what_another_process_made_is_here(tmp_path: Path) -> None:
    ids = [uuid4() for _ in range(60)]
    workers = [CONTEXT.Process(target=make_volumes, args=(str(tmp_path), ids)) for _ in range(3)]
    assert run(*workers) == [0, 0, 0]
    driver = connect(tmp_path)
    assert {each.id for each in driver.volumes.list(Deadline(10))} == set(ids)
    assert data_centre("shared", tmp_path).snapshot_of_world().tally.disk_bytes == 60 * MIB


def test_processes_race_for_a_volume_and_one_wins(tmp_path: Path) -> None:
    volume = uuid4()
    connect(tmp_path).volumes.ensure(VolumeSpec(volume, MIB), Deadline(10))
    racers = [CONTEXT.Process(target=race_for, args=(str(tmp_path), volume, uuid4())) for _ in range(3)]
    assert sorted(code or 0 for code in run(*racers)) == [0, 1, 1]


def test_a_watch_here_sees_a_stop_over_there(tmp_path: Path) -> None:
    driver, spec = connect(tmp_path), api.MachineSpec(uuid4(), "watched", 1, 64, ())
    assert isinstance(driver, api.Watching)
    driver.machines.ensure(spec, Deadline(10))
    driver.machines.power(spec.id, PowerAction.ON, Deadline(10))
    seen: list[api.MachineChanged] = []
    watch = driver.watch(seen.append, Deadline(10))
    assert run(CONTEXT.Process(target=order_a_stop, args=(str(tmp_path), spec.id))) == [0]
    wait_for(lambda: bool(seen), 10, "the watch tells of the stop")
    assert [(each.machine_id, each.machine and each.machine.power) for each in seen] == [(spec.id, Power.OFF)]
    data_centre("shared", tmp_path).down()
    wait_for(lambda: not watch.alive, 10, "the watch of a host that is down ends")
    data_centre("shared", tmp_path).up()
    driver.close()


def test_a_fault_ordered_there_strikes_here(tmp_path: Path) -> None:
    driver = connect(tmp_path)
    assert run(CONTEXT.Process(target=order_a_fault, args=(str(tmp_path),))) == [0]
    with pytest.raises(Transient):
        driver.volumes.list(Deadline(10))
    assert driver.volumes.list(Deadline(10)) == []


def test_a_lock_that_is_held_too_long_is_transient(tmp_path: Path) -> None:
    driver = connect(tmp_path)
    holder = sqlite3.connect(tmp_path / "shared.sim.sqlite3", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Transient):
        driver.volumes.ensure(VolumeSpec(uuid4(), MIB), Deadline(0.2))
    holder.execute("ROLLBACK")
    holder.close()
    assert driver.volumes.list(Deadline(10)) == []


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be looked at" * 40, None])
def test_a_file_that_is_no_host_is_the_hosts_fault(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "shared.sim.sqlite3"
    if content is not None:
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA user_version = 99")
        other.close()
    with pytest.raises(HostAtFault):
        connect(tmp_path)
