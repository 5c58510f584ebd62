"""The life of a machine whose guest really boots: seed, data that stays, growth, snapshots, counters, firmware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers.api import (
    Capability,
    Deadline,
    DiskFormat,
    DiskSpec,
    Firmware,
    ImageSpec,
    MachineSpec,
    NetworkSpec,
    NicSpec,
    Power,
    PowerAction,
    Sample,
    Unsupported,
    VolumeSpec,
)
from drivers.kvm.driver import KvmDriver
from tests.drivers.kvm_host import (
    BOOT_SECONDS,
    SECONDS,
    Guest,
    connect,
    image,
    libvirt_host,
    machine_spec,
    make_guest,
    network_spec,
    port_spec,
    wait_for,
)
from tests.guest.agent import AGENT
from tests.servers.libvirt_host import LibvirtHost

MIB = 1024 * 1024


@dataclass
class World:
    host: LibvirtHost
    driver: KvmDriver
    guest: Guest
    network: NetworkSpec

    def volume(self, size_mib: int = 16, **source: UUID) -> UUID:
        identity = uuid4()
        self.driver.volumes.ensure(VolumeSpec(identity, size_mib * MIB, **source), Deadline(SECONDS))
        return identity

    def attach(self, volume: UUID, device: str = "vdb") -> None:
        machines = self.driver.machines
        assert (
            machines.attach(self.guest.spec.id, DiskSpec(volume, device), Deadline(SECONDS)).volumes[volume] == device
        )

    def detach(self, volume: UUID) -> None:
        assert volume not in self.driver.machines.detach(self.guest.spec.id, volume, Deadline(SECONDS)).volumes

    def sample(self) -> Sample:
        (mine,) = (
            each for each in self.driver.machines.sample(Deadline(SECONDS)) if each.machine_id == self.guest.spec.id
        )
        return mine


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with libvirt_host("life") as host:
        driver = connect(host, tmp_path_factory.mktemp("scratch"))
        network = network_spec(1)
        driver.networks.ensure(network, Deadline(SECONDS))
        guest = make_guest(host, driver, port_spec(network, 11))
        yield World(host, driver, guest, network)
        driver.close()


@pytest.fixture
def running(world: World) -> World:
    """The world with its guest up."""
    if world.guest.power(PowerAction.ON) is Power.RUNNING and "SG: READY" not in world.guest.console():
        world.guest.says("SG: READY")
    wait_for(world.guest.reached_from_host, BOOT_SECONDS, "the guest's web server answers")
    return world


def test_a_guest_boots_with_its_seed_and_its_lease(running: World) -> None:
    ready = running.guest.says("SG: READY")
    assert ready.startswith(f"ip=10.55.1.11 host=guest-11 id={running.guest.spec.id} boots=1 ")
    assert f"SG: CIDATA id={running.guest.spec.id} host=guest-11" in running.guest.console()
    assert "SG: USERDATA rc=0" in running.guest.console()


def test_the_console_log_is_bounded(running: World) -> None:
    whole = running.guest.console().encode()
    assert running.driver.console_log(running.guest.spec.id, 50, Deadline(SECONDS)) == whole[-50:]
    assert running.driver.console_log(running.guest.spec.id, 0, Deadline(SECONDS)) == b""


def test_a_data_volume_keeps_its_data_over_detach_restart_and_growth(running: World) -> None:
    guest = running.guest
    volume = running.volume(16)
    running.attach(volume)
    wait_for(
        lambda: f"SG: DISK vdb serial={volume.hex[:20]} size={16 * 2048} lines=1" in guest.console(), 60, "attached"
    )
    guest.shell("echo precious >/data/vdb/file; sync")

    running.driver.volumes.extend(volume, 32 * MIB, Deadline(SECONDS))
    wait_for(lambda: f"SG: DISKSIZE vdb {32 * 2048}" in guest.console(), 60, "the guest sees the growth")

    ready = guest.console().count("SG: READY")
    assert guest.driver.machines.power(guest.spec.id, PowerAction.SHUTDOWN, Deadline(60)).power is Power.OFF
    assert guest.console().count("SG: POWERBUTTON") == 1
    guest.power(PowerAction.ON)
    guest.says("SG: READY", ready + 1)
    assert guest.shell("cat /data/vdb/file").startswith("precious\n")

    running.detach(volume)
    wait_for(lambda: "SG: DISKGONE vdb" in guest.console(), 60, "the guest saw it go")
    running.attach(volume)
    wait_for(lambda: guest.shell("cat /data/vdb/file").startswith("precious\n"), 60, "the data is back")
    running.detach(volume)
    running.driver.volumes.remove(volume, Deadline(SECONDS))


def test_a_snapshot_of_a_running_volume_is_a_moment(running: World) -> None:
    guest, driver = running.guest, running.driver
    volume, snapshot = running.volume(24), uuid4()
    running.attach(volume)
    wait_for(lambda: f"serial={volume.hex[:20]} size={24 * 2048} lines=1" in guest.console(), 60, "attached")
    guest.shell("echo before >/data/vdb/file; sync")
    assert driver.snapshot(volume, snapshot, Deadline(SECONDS)).size_bytes == 24 * MIB
    guest.shell("echo after >/data/vdb/file; sync")
    running.detach(volume)
    driver.volumes.remove(volume, Deadline(SECONDS))

    copy = running.volume(48, snapshot_id=snapshot)
    driver.remove_snapshot(snapshot, Deadline(SECONDS))
    running.attach(copy)
    wait_for(lambda: f"serial={copy.hex[:20]} size={48 * 2048} lines=2" in guest.console(), 60, "the copy has the log")
    assert guest.shell("cat /data/vdb/file").startswith("before\n")
    running.detach(copy)
    driver.volumes.remove(copy, Deadline(SECONDS))


def test_counters_count_what_the_guest_does(running: World) -> None:
    guest = running.guest
    before = running.sample()
    guest.shell("dd if=/dev/zero of=/data/vda2/ballast bs=1M count=4; sync; dd if=/dev/vda of=/dev/null bs=1M count=8")
    guest.shell("head -c 100000 /dev/zero | tr '\\0' x")
    after = running.sample()

    def grown(name: str) -> int:
        return int(getattr(after, name) - getattr(before, name))

    assert grown("disk_written_bytes") >= 4 * MIB
    assert grown("disk_writes") > 0
    assert grown("net_sent_bytes") > 100_000
    assert 0 < grown("net_received_bytes") < grown("net_sent_bytes")
    assert grown("cpu_time_ns") > 0
    assert after.ram_used_mib is not None
    assert 0 < after.ram_used_mib <= after.ram_mib == 128


def test_a_port_is_plugged_into_a_running_guest_and_out(running: World) -> None:
    guest, driver = running.guest, running.driver
    port = port_spec(running.network, 12)
    driver.networks.ensure_port(port, Deadline(SECONDS))
    driver.plug_port(guest.spec.id, NicSpec(port.id, port.network_id, port.mac), Deadline(SECONDS))
    there = "cat /sys/class/net/eth1/address"
    wait_for(lambda: guest.shell(there).startswith(f"{port.mac}\n"), 60, "the guest sees the card")
    lease = "ip link set eth1 up; udhcpc -f -q -n -i eth1 -s /bin/true 2>&1"
    assert f"lease of {port.addresses[0]} obtained" in guest.shell(lease)
    driver.unplug_port(guest.spec.id, port.id, Deadline(SECONDS))
    wait_for(lambda: port.mac not in guest.shell(there), 60, "the guest sees it go")
    driver.networks.remove_port(port.network_id, port.id, Deadline(SECONDS))


def test_a_guest_goes_back_to_a_moment(running: World) -> None:
    """With its memory: what runs, runs on. Without: off, and its disk as it was. The middle of the tree goes alone."""
    guest, driver = running.guest, running.driver
    first, middle, last = uuid4(), uuid4(), uuid4()
    show = "cat /proc/sys/kernel/random/boot_id /run-mark /data/vda2/mark"

    def write(text: str) -> None:
        guest.shell(f"echo {text} >/run-mark; echo {text} >/data/vda2/mark; sync")

    def back(snapshot: UUID) -> Power:
        return driver.revert_machine(guest.spec.id, snapshot, Deadline(SECONDS)).power

    write("a")
    before = guest.shell(show)
    boot = before.splitlines()[0]
    assert before == f"{boot}\na\na\nrc=0\n"
    driver.snapshot_machine(guest.spec.id, first, Deadline(SECONDS), memory=True)
    assert not driver.snapshot_machine(guest.spec.id, last, Deadline(SECONDS), quiesce=True).quiesced
    driver.remove_machine_snapshot(guest.spec.id, last, Deadline(SECONDS))
    guest.shell(AGENT)
    wait_for(lambda: driver.guest_signs(guest.spec.id, Deadline(SECONDS)).agent, 60, "its agent answers")
    assert driver.snapshot_machine(guest.spec.id, middle, Deadline(SECONDS), quiesce=True).quiesced
    assert guest.shell("cat /run/asked").split()[:2] == ["freeze", "thaw"]
    write("b")
    driver.snapshot_machine(guest.spec.id, last, Deadline(SECONDS), memory=True)
    write("c")

    assert back(last) is Power.RUNNING
    wait_for(guest.reached_from_host, BOOT_SECONDS, "the guest answers again")
    assert guest.shell(show) == f"{boot}\nb\nb\nrc=0\n"
    driver.remove_machine_snapshot(guest.spec.id, middle, Deadline(SECONDS))
    seen = driver.list_machine_snapshots(guest.spec.id, Deadline(SECONDS))
    assert [(each.id, each.parent_id, each.current) for each in seen] == [(first, None, False), (last, first, True)]
    assert back(first) is Power.RUNNING
    wait_for(guest.reached_from_host, BOOT_SECONDS, "the guest answers again")
    assert guest.shell(show) == before

    driver.snapshot_machine(guest.spec.id, middle, Deadline(SECONDS))
    write("d")
    assert back(middle) is Power.OFF
    guest.boot()
    wait_for(guest.reached_from_host, BOOT_SECONDS, "the guest's web server answers")
    assert guest.shell("cat /data/vda2/mark").startswith("a\n")
    for each in (first, middle, last):
        driver.remove_machine_snapshot(guest.spec.id, each, Deadline(SECONDS))
    path = f"/var/lib/libvirt/images/stratograph/volume-{guest.spec.disks[0].volume_id}.qcow2"
    assert running.host.run(("qemu-img", "snapshot", "-U", "-l", path)).strip() == ""


def test_more_memory_and_processors_come_with_the_next_start(running: World) -> None:
    guest, machines = running.guest, running.driver.machines
    larger = replace(guest.spec, vcpus=2, ram_mib=160, name="renamed", marks={"project": "p-2"})
    seen = machines.ensure(larger, Deadline(SECONDS))
    assert (seen.name, seen.vcpus, seen.ram_mib, seen.power) == ("renamed", 1, 128, Power.RUNNING)
    guest.power(PowerAction.OFF)
    assert guest.boot().startswith("ip=10.55.1.11")
    seen = machines.ensure(larger, Deadline(SECONDS))
    assert (seen.vcpus, seen.ram_mib, dict(seen.volumes)) == (2, 160, {guest.spec.disks[0].volume_id: "vda"})
    assert guest.shell("grep -c ^processor /proc/cpuinfo").startswith("2\n")
    assert 'key="project">p-2<' in running.host.run(("virsh", "dumpxml", str(guest.spec.id)))
    machines.ensure(guest.spec, Deadline(SECONDS))
    guest.power(PowerAction.OFF)


def test_a_paused_machine_goes_on(running: World) -> None:
    running.host.run(("virsh", "suspend", str(running.guest.spec.id)))
    seen = running.driver.machines.inspect(running.guest.spec.id, Deadline(SECONDS))
    assert seen is not None
    assert (seen.power, seen.reason) == (Power.PAUSED, "user")
    assert running.guest.power(PowerAction.ON) is Power.RUNNING
    assert running.guest.reached_from_host()


def test_a_raw_image_boots_on_uefi(world: World, tmp_path: Path) -> None:
    raw = tmp_path / "guest.raw"
    world.host.run(("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image().path), str(raw)))
    checksum = sha256(raw.read_bytes()).hexdigest()
    size = raw.stat().st_size
    spec = ImageSpec(uuid4(), raw, DiskFormat.RAW, size, size, checksum)
    driver = world.driver
    driver.volumes.ensure_image(spec, Deadline(SECONDS))
    assert spec.id in driver.volumes.list_images(Deadline(SECONDS))
    volume = world.volume(size // MIB + 8, image_id=spec.id)
    wanted: MachineSpec = replace(machine_spec(volume, ram_mib=256), firmware=Firmware.UEFI)
    driver.machines.ensure(wanted, Deadline(SECONDS))
    guest = Guest(world.host, driver, wanted, world.guest.port)
    with pytest.raises(Unsupported) as caught:  # its variables lie in a raw file
        driver.snapshot_machine(wanted.id, uuid4(), Deadline(SECONDS))
    assert caught.value.capability is Capability.MACHINE_SNAPSHOT
    guest.power(PowerAction.ON)
    assert f"id={wanted.id}" in guest.says("SG: READY")
    driver.machines.remove(wanted.id, Deadline(SECONDS))
    driver.volumes.remove(volume, Deadline(SECONDS))
    driver.volumes.remove_image(spec.id, Deadline(SECONDS))


def test_nothing_is_left_on_the_host(world: World) -> None:
    driver, host = world.driver, world.host

    def everything() -> list[list[str]]:
        commands = (
            ("ls", "/var/lib/libvirt/images/stratograph", "/var/lib/libvirt/qemu/nvram"),
            ("virsh", "-q", "list", "--all", "--name"),
            ("virsh", "-q", "net-list", "--all", "--name"),
            ("virsh", "-q", "nwfilter-list"),
        )
        return [host.run(each).split() for each in commands]

    driver.volumes.ensure_image(image(), Deadline(SECONDS))
    before = everything()
    network = network_spec(2)
    driver.networks.ensure(network, Deadline(SECONDS))
    guest = make_guest(host, driver, port_spec(network, 11))
    guest.power(PowerAction.ON)
    assert everything() != before
    driver.machines.remove(guest.spec.id, Deadline(SECONDS))
    driver.volumes.remove(guest.spec.disks[0].volume_id, Deadline(SECONDS))
    driver.networks.remove_port(network.id, guest.port.id, Deadline(SECONDS))
    driver.networks.remove(network.id, Deadline(SECONDS))
    assert everything() == before
