"""What happens behind the driver's back: killed QEMUs, a libvirtd that restarts, and a host that goes away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers.api import Deadline, HostAtFault, HostConfig, MachineChanged, Power, PowerAction, Transient, VolumeSpec
from drivers.kvm import DRIVER
from drivers.kvm.driver import KvmDriver
from tests.drivers.kvm_host import SECONDS, connect, libvirt_host, machine_spec, wait_for
from tests.servers.libvirt_host import LibvirtHost


@dataclass
class Started:
    host: LibvirtHost
    driver: KvmDriver
    machine_id: UUID


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """A running machine with an empty disk."""
    with libvirt_host("watch") as host:
        driver = connect(host, tmp_path)
        volume = uuid4()
        driver.volumes.ensure(VolumeSpec(volume, 1024 * 1024), Deadline(SECONDS))
        spec = machine_spec(volume)
        driver.machines.ensure(spec, Deadline(SECONDS))
        driver.machines.power(spec.id, PowerAction.ON, Deadline(SECONDS))
        yield Started(host, driver, spec.id)
        driver.close()


def test_a_killed_qemu_is_seen_within_seconds(started: Started) -> None:
    seen: list[MachineChanged] = []
    watch = started.driver.watch(seen.append, Deadline(SECONDS))
    (pid,) = started.host.pids(f"qemu-system.*guest=sg-{started.machine_id.hex}")
    started.host.run(("kill", "-KILL", str(pid)))
    killed = time.monotonic()
    wait_for(lambda: bool(seen), 5, "the watch tells of it")
    assert time.monotonic() - killed < 5
    change = seen[0]
    assert change.machine_id == started.machine_id
    assert change.machine is not None
    assert (change.machine.power, change.machine.reason) == (Power.CRASHED, "crashed")
    assert started.driver.machines.power(started.machine_id, PowerAction.ON, Deadline(SECONDS)).power is Power.RUNNING
    watch.close()
    assert not watch.alive


def test_a_call_back_may_close_its_own_watch(started: Started) -> None:
    seen: list[MachineChanged] = []

    def once(change: MachineChanged) -> None:
        seen.append(change)
        watch.close()

    watch = started.driver.watch(once, Deadline(SECONDS))
    for action in (PowerAction.OFF, PowerAction.ON, PowerAction.OFF):
        started.driver.machines.power(started.machine_id, action, Deadline(SECONDS))
    wait_for(lambda: bool(seen), 5, "the watch tells of it")
    started.driver.machines.power(started.machine_id, PowerAction.ON, Deadline(SECONDS))
    assert len(seen) == 1


def test_a_libvirtd_that_restarts_ends_watches_and_is_reached_again(started: Started) -> None:
    watch = started.driver.watch(lambda _: None, Deadline(SECONDS))
    (pid,) = started.host.pids("^libvirtd -d")
    started.host.run(("kill", "-KILL", str(pid)))
    wait_for(lambda: not watch.alive, 10, "the watch has ended")
    with pytest.raises(Transient):
        started.driver.facts(Deadline(5))
    started.host.run(("libvirtd", "-d", "-p", "/run/libvirt/libvirtd.pid"))

    def is_back() -> bool:
        try:
            seen = started.driver.machines.inspect(started.machine_id, Deadline(5))
        except Transient:
            return False
        return seen is not None and seen.power is Power.RUNNING

    wait_for(is_back, SECONDS, "the driver reaches it again, and the machine never stopped")
    # libvirt tells nothing of a machine that is stopped while it takes that machine's QEMU back; it has done so when it
    # answers a question that needs the QEMU
    started.host.run(("virsh", "dommemstat", str(started.machine_id)))
    changes: list[MachineChanged] = []
    with_events = started.driver.watch(changes.append, Deadline(SECONDS))
    started.driver.machines.power(started.machine_id, PowerAction.OFF, Deadline(SECONDS))
    wait_for(lambda: bool(changes), 5, "events come over the new connection")
    with_events.close()


def test_a_machine_of_others_is_left_alone(started: Started) -> None:
    other = uuid4()
    definition = started.host.folder / "lib" / "other.xml"
    definition.write_text(
        f"<domain type='qemu'><name>theirs</name><uuid>{other}</uuid><memory>65536</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
    )
    seen: list[MachineChanged] = []
    watch = started.driver.watch(seen.append, Deadline(SECONDS))
    started.host.run(("virsh", "define", "/var/lib/libvirt/other.xml"))
    started.host.run(("virsh", "start", "theirs"))
    machines = started.driver.machines
    assert [each.id for each in machines.list(Deadline(SECONDS))] == [started.machine_id]
    assert [each.machine_id for each in machines.sample(Deadline(SECONDS))] == [started.machine_id]
    assert machines.inspect(other, Deadline(SECONDS)) is None
    machines.remove(other, Deadline(SECONDS))
    assert started.host.run(("virsh", "-q", "list", "--name")).split() == [f"sg-{started.machine_id.hex}", "theirs"]
    watch.close()
    assert seen == []


def test_a_host_that_does_not_answer_is_transient_in_time(started: Started, tmp_path: Path) -> None:
    (pid,) = started.host.pids("^libvirtd -d")
    started.host.run(("kill", "-STOP", str(pid)))
    begun = time.monotonic()
    with pytest.raises(Transient):
        DRIVER.connect(HostConfig("stopped", started.host.uri, tmp_path), Deadline(2))
    assert time.monotonic() - begun < 4
    started.host.run(("kill", "-CONT", str(pid)))


def test_a_host_that_falls_silent_is_given_up(started: Started) -> None:
    (pid,) = started.host.pids("^libvirtd -d")
    started.host.run(("kill", "-STOP", str(pid)))
    begun = time.monotonic()
    with pytest.raises(Transient):
        started.driver.machines.list(Deadline(SECONDS))
    assert time.monotonic() - begun < 30
    started.host.run(("kill", "-CONT", str(pid)))
    assert len(started.driver.machines.list(Deadline(SECONDS))) == 1


def test_a_host_without_libvirtd_is_at_fault(tmp_path: Path) -> None:
    config = HostConfig("gone", f"qemu+unix:///system?socket={tmp_path}/none", tmp_path)
    with pytest.raises(HostAtFault):
        DRIVER.connect(config, Deadline(10))
