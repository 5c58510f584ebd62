"""Domains that others made with virsh, adopted by the KVM driver: nothing about them changes, and they are ours."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers.api import (
    AdoptionSpec,
    Deadline,
    DiskSource,
    DiskSpec,
    MachineChanged,
    NicSpec,
    Power,
    PowerAction,
    Refused,
    Transient,
    VolumeSpec,
)
from drivers.kvm import files, names, register, xml
from drivers.kvm.driver import KvmDriver
from tests.drivers.kvm_foreign import MAC, MIB, Theirs, machine
from tests.drivers.kvm_host import SECONDS, connect, libvirt_host, machine_spec, wait_for
from tests.servers.libvirt_host import LibvirtHost

CONTENT = b"ledger".ljust(MIB, b"\1")


@pytest.fixture(scope="module")
def host() -> Iterator[LibvirtHost]:
    with libvirt_host("adoption") as made:
        yield made


@pytest.fixture
def driver(host: LibvirtHost, tmp_path: Path) -> Iterator[KvmDriver]:
    made = connect(host, tmp_path)
    yield made
    made.close()


@pytest.fixture
def theirs(host: LibvirtHost) -> Iterator[Theirs]:
    with machine(host) as made:
        made.paths[1].write_bytes(CONTENT)
        yield made


def soon() -> Deadline:
    return Deadline(SECONDS)


def spec_of(theirs: Theirs) -> AdoptionSpec:
    disks = {"hda": DiskSpec(uuid4(), "vda"), "hdb": DiskSpec(uuid4(), "vdb")}
    return AdoptionSpec(theirs.ref, uuid4(), "accounts", disks, {"server": "server_1"})


def content(host: LibvirtHost, theirs: Theirs) -> tuple[str, ...]:
    """The domain's definition and its disks, as libvirt's own tools tell them."""
    definition = host.run(("virsh", "dumpxml", "--inactive", "--security-info", theirs.ref))
    return definition, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in theirs.paths)


def read(driver: KvmDriver, source: DiskSource, folder: Path) -> bytes:
    """What a guest sees on a disk that was taken out."""
    file = driver.export_disk(source, folder / "out.qcow2", soon())
    raw = folder / "out.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", file.path, raw], check=True, timeout=60)
    assert raw.stat().st_size == file.virtual_size_bytes
    file.path.unlink()
    return raw.read_bytes()


def test_what_is_told_of_it(driver: KvmDriver, theirs: Theirs) -> None:
    found = driver.inspect_foreign(theirs.ref, soon())
    assert found is not None
    assert (found.name, found.power, found.vcpus, found.ram_mib) == ("theirs", Power.OFF, 1, 128)
    assert found.guest == "http://debian.org/debian/12"
    assert [(each.key, each.size_bytes) for each in found.disks] == [("hda", MIB), ("hdb", MIB)]
    assert [(each.mac, each.network) for each in found.nics] == [(MAC, None)]
    assert found.obstacles == ()
    assert driver.inspect_foreign("theirs", soon()) is None
    assert driver.inspect_foreign(theirs.ref.upper(), soon()) is None


def test_it_runs_on_untouched_and_is_one_of_ours(
    host: LibvirtHost, driver: KvmDriver, theirs: Theirs, tmp_path: Path
) -> None:
    host.run(("virsh", "start", theirs.ref))
    before, pids = content(host, theirs)[0], host.pids(theirs.ref)
    spec = spec_of(theirs)
    changes: list[MachineChanged] = []
    watch = driver.watch(changes.append, soon())
    assert driver.adopt(spec, soon()).power is Power.RUNNING
    assert (content(host, theirs)[0], host.pids(theirs.ref)) == (before, pids)
    other = connect(host, tmp_path)  # another process reads the same
    for each in (driver, other):
        (listed,) = each.machines.list(soon())
        assert (listed.id, listed.name, listed.power) == (spec.id, "accounts", Power.RUNNING)
        assert dict(listed.volumes) == {disk.volume_id: disk.device for disk in spec.disks.values()}
        assert each.machines.inspect(spec.id, soon()) == listed
        (counted,) = each.machines.sample(soon())
        assert (counted.machine_id, counted.power, counted.vcpus) == (spec.id, Power.RUNNING, 1)
        assert None not in (counted.cpu_time_ns, counted.disk_read_bytes)
    host.run(("virsh", "destroy", theirs.ref))
    wait_for(lambda: any(_is(each, spec.id, Power.OFF) for each in changes), SECONDS, "the watch tells that it is off")
    assert driver.machines.power(spec.id, PowerAction.ON, soon()).power is Power.RUNNING
    other.disown(spec.id, soon())
    assert driver.machines.list(soon()) == []
    assert driver.machines.inspect(spec.id, soon()) is None
    assert content(host, theirs)[0] == before
    assert "running" in host.run(("virsh", "domstate", theirs.ref))
    host.run(("virsh", "destroy", theirs.ref))
    host.run(("virsh", "start", theirs.ref))
    watch.close()
    assert {each.machine_id for each in changes} == {spec.id}
    other.close()


def _is(change: MachineChanged, machine_id: UUID, power: Power) -> bool:
    return change.machine_id == machine_id and change.machine is not None and change.machine.power is power


def test_its_hardware_is_not_ours_to_change(host: LibvirtHost, driver: KvmDriver, theirs: Theirs) -> None:
    spec, volume = spec_of(theirs), uuid4()
    driver.volumes.ensure(VolumeSpec(volume, MIB), soon())
    driver.adopt(spec, soon())
    before = content(host, theirs)
    disk = next(iter(spec.disks.values())).volume_id
    forbidden: list[Callable[[], object]] = [
        lambda: driver.machines.ensure(replace(machine_spec(volume), id=spec.id), soon()),
        lambda: driver.machines.remove(spec.id, soon()),
        lambda: driver.machines.attach(spec.id, DiskSpec(volume, "vdc"), soon()),
        lambda: driver.machines.detach(spec.id, disk, soon()),
        lambda: driver.plug_port(spec.id, NicSpec(uuid4(), uuid4(), MAC), soon()),
        lambda: driver.volumes.extend(disk, 2 * MIB, soon()),
    ]
    for each in forbidden:
        with pytest.raises(Refused):
            each()
    driver.volumes.remove(disk, soon())  # there is no such volume of ours
    assert content(host, theirs) == before
    driver.disown(spec.id, soon())
    driver.volumes.remove(volume, soon())


def test_its_disks_can_leave_the_host(host: LibvirtHost, driver: KvmDriver, theirs: Theirs, tmp_path: Path) -> None:
    spec = spec_of(theirs)
    driver.adopt(spec, soon())
    ledger, before = spec.disks["hdb"].volume_id, content(host, theirs)
    assert read(driver, DiskSource(volume_id=ledger), tmp_path) == CONTENT
    driver.machines.power(spec.id, PowerAction.ON, soon())
    with pytest.raises(Refused, match="not off"):
        driver.export_disk(DiskSource(volume_id=ledger), tmp_path / "none", soon())
    for running in (True, False):
        snapshot = uuid4()
        driver.snapshot(ledger, snapshot, soon())
        assert read(driver, DiskSource(snapshot_id=snapshot), tmp_path) == CONTENT, running
        driver.remove_snapshot(snapshot, soon())
        driver.machines.power(spec.id, PowerAction.OFF, soon())
    assert content(host, theirs) == before
    assert driver.volumes.list(soon()) == []
    driver.disown(spec.id, soon())
    assert [each for each in host.run(("virsh", "vol-list", "stratograph")).split() if str(ledger) in each] == []


def test_obstacles_are_named(host: LibvirtHost, driver: KvmDriver) -> None:
    network = """<disk type='network' device='disk'><driver name='qemu' type='raw'/>
      <source protocol='nbd' name='x'><host name='127.0.0.1' port='1'/></source>
      <target dev='vdc' bus='virtio'/></disk>"""
    shared = """<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/nowhere'/>
      <target dev='vdd' bus='virtio'/><shareable/></disk>"""
    with machine(host, more=network + shared) as made:
        made.paths[0].unlink()
        found = driver.inspect_foreign(made.ref, soon())
        assert found is not None
        assert found.obstacles == (
            "its disk vdc is neither a file nor a block device of the host",
            "it shares its disk vdd with other machines",
            "its disk hda cannot be read",
        )
        with pytest.raises(Refused, match="neither a file nor a block device"):
            driver.adopt(spec_of(made), soon())
    with machine(host) as made:
        host.run(("virsh", "start", made.ref))
        host.run(("virsh", "undefine", made.ref))
        found = driver.inspect_foreign(made.ref, soon())
        assert found is not None
        assert found.obstacles == ("it is transient: nothing is left of it once it is off",)
        host.run(("virsh", "define", str(made.paths[0].parent / "domain.xml")))


def test_a_record_counts_only_when_it_is_whole(host: LibvirtHost, driver: KvmDriver, theirs: Theirs) -> None:
    spec = spec_of(theirs)
    where = files.pool(driver._link, soon())  # what a worker that died leaves, made by hand
    disks = {each.volume_id: (key, each.device) for key, each in spec.disks.items()}
    record = register.Record(UUID(theirs.ref), spec.id, spec.name, disks, dict(spec.marks))
    where.createXML(xml.text(xml.volume(str(record.file), len(record.content), "raw")), 0)
    assert driver.machines.list(soon()) == []
    assert driver.inspect_foreign(theirs.ref, soon()) is not None
    assert driver.adopt(spec, soon()).id == spec.id
    driver.disown(spec.id, soon())
    rival = names.AdoptedFile(UUID(theirs.ref), uuid4(), "0" * 16)
    where.createXML(xml.text(xml.volume(str(rival), 1, "raw")), 0)
    with pytest.raises(Transient, match="at this moment"):
        driver.adopt(spec, soon())
    assert driver.machines.list(soon()) == []
    files.delete(where, rival)
    assert driver.adopt(spec, soon()).id == spec.id
    host.run(("virsh", "undefine", theirs.ref))  # gone behind our back: the machine is, too, and the record can go
    assert driver.machines.inspect(spec.id, soon()) is None
    driver.disown(spec.id, soon())
    host.run(("virsh", "define", str(theirs.paths[0].parent / "domain.xml")))
    assert driver.inspect_foreign(theirs.ref, soon()) is not None
