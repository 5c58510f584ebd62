"""The ESXi driver when things go wrong: sessions that end, answers that are lost, and each fault of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import (
    Capability,
    Deadline,
    Driver,
    DriverError,
    HostAtFault,
    ImageSpec,
    Power,
    PowerAction,
    Refused,
    Snapshots,
    Transient,
    Unsupported,
)
from drivers.esxi import DRIVER
from drivers.esxi.errors import FAULTS, driver_error
from drivers.esxi.segments import group_name
from tests.drivers.esxi_host import MIB, SECONDS, connect, content_of, image, machine_of, program_in, simulated
from tests.drivers.esxi_life import Life, nothing_of_ours
from tests.servers.esxsim import EsxSim

WRITES = (
    "AddPortGroup",
    "CopyVirtualDisk_Task",
    "CreateSnapshot_Task",
    "CreateVM_Task",
    "CreateVirtualDisk_Task",
    "DeleteDatastoreFile_Task",
    "ExtendVirtualDisk_Task",
    "HttpNfcLeaseComplete",
    "ImportVApp",
    "MakeDirectory",
    "MoveVirtualDisk_Task",
    "POST /nfc",
    "PowerOffVM_Task",
    "PowerOnVM_Task",
    "ReconfigVM_Task",
    "RemoveAllSnapshots_Task",
    "RemovePortGroup",
    "ResetVM_Task",
    "UnregisterVM",
)
READS = ("FindByUuid", "RetrievePropertiesEx", "SearchDatastoreSubFolders_Task", "QueryPerf")


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory)) as made:
        made.delay("*", 5)
        yield made


@pytest.fixture(scope="module")
def driver(sim: EsxSim) -> Iterator[Driver]:
    opened = connect(sim)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ImageSpec:
    return image(tmp_path_factory.mktemp("image"), MIB)


def exactly_one(sim: EsxSim) -> Callable[[Life], None]:
    """Look with another client: one machine, two disks on it, no snapshot left, one port group, one of each folder but
    for those that other tests left on the host.
    """

    def folders(kind: str) -> set[str]:
        return {each.name for each in sim.daemon.folder.glob(f"*/stratograph/*/{kind}/*")}

    before = {kind: folders(kind) for kind in ("volumes", "images", "snapshots")}

    def look(life: Life) -> None:
        content = content_of(sim)
        host = content.rootFolder.childEntity[0].hostFolder.childEntity[0].host[0]
        mine = [vm for vm in host.vm if vm.config.instanceUuid == str(life.machine)]
        assert len(mine) == 1
        files = [d.backing.fileName for d in mine[0].config.hardware.device if hasattr(d, "capacityInKB")]
        assert sorted(name.split("/")[-2] for name in files) == sorted(map(str, (life.root, life.data)))
        groups = [each.spec.name for each in host.configManager.networkSystem.networkInfo.portgroup]
        assert groups.count(group_name(life.network)) == 1
        for kind, names in (("volumes", {life.root, life.data}), ("images", {life.image}), ("snapshots", {life.copy})):
            expected = {str(name) for name in names}
            assert folders(kind) - (before[kind] - expected) == expected
        assert len(list(sim.daemon.folder.glob(f"*/stratograph/*/networks/{life.network}/port_*"))) == 1

    return look


# ------------------------------------------------------------------------------------------ lost answers


def test_each_write_whose_answer_is_lost_leaves_exactly_one_object(
    sim: EsxSim, driver: Driver, base: ImageSpec
) -> None:
    """The first answer of every writing call gets lost; nobody is even told."""
    for method in WRITES:
        sim.fault(method, "drop", times=2 if method == "CreateVM_Task" else 1)  # a carrier and the machine

    def look(life: Life) -> None:
        exactly_one(sim)(life)
        sim.fault("UnregisterVM", "drop")  # the first was a carrier's, this is the machine's

    sim.calls()
    life = Life(driver, base, look)
    life.run()
    seen = sim.calls()
    assert set(WRITES) <= set(seen)
    assert seen["CreateVM_Task"] == 2
    assert seen["AddPortGroup"] == seen["ResetVM_Task"] == 1
    assert seen["PowerOnVM_Task"] == seen["PowerOffVM_Task"] == seen["RemovePortGroup"] == 1
    nothing_of_ours(driver)


@pytest.mark.parametrize("method", ["CreateVM_Task", "ReconfigVM_Task", "MakeDirectory", "CopyVirtualDisk_Task"])
def test_answers_lost_twice_are_told_as_transient_and_asking_again_helps(
    sim: EsxSim, driver: Driver, base: ImageSpec, method: str
) -> None:
    sim.fault(method, "http", times=2)  # not carried out, and nobody can know that
    life = Life(driver, base, exactly_one(sim))
    life.run()
    assert life.transients == 1
    nothing_of_ours(driver)


# ------------------------------------------------------------------------------------------ sessions


@pytest.mark.parametrize("method", [*WRITES, *READS])
def test_a_session_that_ends_in_the_middle_is_not_noticed(
    sim: EsxSim, driver: Driver, base: ImageSpec, method: str
) -> None:
    sim.expire_at(method)
    sim.calls()
    life = Life(driver, base, lambda _: None)
    life.run()
    assert life.transients == 0
    assert sim.calls()["Login"] == 1
    nothing_of_ours(driver)


def test_a_session_that_ends_under_a_task_does_not_end_the_task(sim: EsxSim, driver: Driver) -> None:
    volume = uuid4()
    sim.delay("CreateVirtualDisk_Task", 300)
    sim.expire_at("RetrievePropertiesEx")
    try:
        assert driver.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS)).size_bytes == MIB
    finally:
        sim.delay("CreateVirtualDisk_Task", 5)
    driver.volumes.remove(volume, Deadline(SECONDS))


def test_a_copy_that_takes_longer_than_a_deadline_is_waited_for_and_not_begun_again(
    sim: EsxSim, base: ImageSpec
) -> None:
    driver = connect(sim, disks="full")
    assert isinstance(driver, Snapshots)
    root, copy, machine = uuid4(), uuid4(), uuid4()
    driver.volumes.ensure_image(base, Deadline(SECONDS))
    spec = api.VolumeSpec(root, MIB, image_id=base.id)
    sim.delay("CopyVirtualDisk_Task", 3000)
    sim.calls()
    with pytest.raises(Transient):
        driver.volumes.ensure(spec, Deadline(1.5))
    assert driver.volumes.inspect(root, Deadline(SECONDS)) is None
    assert driver.volumes.ensure(spec, Deadline(SECONDS)).size_bytes == MIB
    assert sim.calls()["CopyVirtualDisk_Task"] == 1
    disks = (api.DiskSpec(root, "vda"),)
    driver.machines.ensure(api.MachineSpec(machine, "m", 1, 64, disks), Deadline(SECONDS))
    driver.machines.power(machine, PowerAction.ON, Deadline(SECONDS))
    with pytest.raises(Transient):
        driver.snapshot(root, copy, Deadline(1.5))
    assert machine_of(content_of(sim), machine).snapshot is not None  # the disk stands still while it is read
    assert driver.snapshot(root, copy, Deadline(SECONDS)).size_bytes == MIB
    assert sim.calls()["CopyVirtualDisk_Task"] == 1
    sim.delay("CopyVirtualDisk_Task", 5)
    assert machine_of(content_of(sim), machine).snapshot is None
    driver.machines.remove(machine, Deadline(SECONDS))
    driver.remove_snapshot(copy, Deadline(SECONDS))
    driver.volumes.remove(root, Deadline(SECONDS))
    driver.volumes.remove_image(base.id, Deadline(SECONDS))
    driver.close()


# ------------------------------------------------------------------------------------------ the table

TASK_FAULTS: list[tuple[str, type[DriverError]]] = [
    ("NoDiskSpace", HostAtFault),
    ("InsufficientMemoryResourcesFault", HostAtFault),
    ("RestrictedVersion", HostAtFault),
    ("LicenseExpired", HostAtFault),
    ("NoPermission", HostAtFault),
    ("HostNotConnected", HostAtFault),
    ("QuestionPending", HostAtFault),
    ("InaccessibleDatastore", HostAtFault),
    ("TaskInProgress", Transient),
    ("ConcurrentAccess", Transient),
    ("FileLocked", Transient),
    ("Timedout", Transient),
    ("InvalidDeviceSpec", Refused),
    ("InvalidVmConfig", Refused),
    ("ResourceInUse", Refused),
    ("InvalidState", Refused),
    ("InvalidName", Refused),
    ("NotSupported", Unsupported),
    ("MethodDisabled", Unsupported),
    ("LicenseRestricted", HostAtFault),
    ("NotEnoughLicenses", HostAtFault),
    ("InsufficientStorageSpace", HostAtFault),
    ("NoCompatibleHost", HostAtFault),
    ("HostNotReachable", Transient),
    ("HostCommunication", Transient),
    ("HostConnectFault", HostAtFault),
    ("HostConfigFault", HostAtFault),
    ("MigrationFault", Refused),
    ("SnapshotFault", Refused),
    ("FilesystemQuiesceFault", Refused),
    ("ToolsUnavailable", Transient),
    ("InvalidDatastorePath", Refused),
    ("InvalidArgument", Refused),
    ("InvalidRequest", Refused),
    ("CpuHotPlugNotSupported", Refused),
    ("MemoryHotPlugNotSupported", Refused),
    ("DuplicateName", Refused),
    ("AlreadyExists", Refused),
    ("FileAlreadyExists", Refused),
    ("FileNotFound", Refused),
    ("NotFound", Refused),
    ("SystemError", HostAtFault),
    ("NotImplemented", Unsupported),
]


@pytest.fixture
def off(driver: Driver) -> Iterator[UUID]:
    volume, machine = uuid4(), uuid4()
    driver.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS))
    spec = api.MachineSpec(machine, "m", 1, 64, (api.DiskSpec(volume, "vda"),))
    driver.machines.ensure(spec, Deadline(SECONDS))
    yield machine
    driver.machines.remove(machine, Deadline(SECONDS))
    driver.volumes.remove(volume, Deadline(SECONDS))


@pytest.mark.parametrize(("fault", "error"), TASK_FAULTS)
def test_a_tasks_fault_arrives_as_its_error_and_changes_nothing(
    sim: EsxSim, driver: Driver, off: UUID, fault: str, error: type[DriverError]
) -> None:
    sim.fault("PowerOnVM_Task", f"task:{fault}")
    with pytest.raises(error) as caught:
        driver.machines.power(off, PowerAction.ON, Deadline(SECONDS))
    if error is not Unsupported:
        assert caught.value.vendor_code == fault
    seen = driver.machines.inspect(off, Deadline(SECONDS))
    assert seen is not None
    assert seen.power is Power.OFF


@pytest.mark.parametrize("where", ["", "task:"])
def test_a_licence_that_only_lets_us_look_is_found_out_and_told(sim: EsxSim, where: str) -> None:
    """By a write that changes nothing; the host is not offered for anything but looking until it takes changes."""
    opened = connect(sim)
    every = api.capabilities(opened, DRIVER)
    sim.fault("MakeDirectory", "RestrictedVersion", times=2)
    for _ in range(2):
        assert "licence" in (opened.facts(Deadline(SECONDS)).restriction or "")
        looking = {Capability.STATE_EVENTS, Capability.ADOPTION, Capability.GUEST_SIGNS}
        assert api.capabilities(opened, DRIVER) == looking
        assert list(opened.machines.list(Deadline(SECONDS))) == []
    assert opened.facts(Deadline(SECONDS)).restriction is None
    assert api.capabilities(opened, DRIVER) == every == DRIVER.capabilities - {Capability.RELOCATE}
    sim.fault("CreateVirtualDisk_Task", f"{where}RestrictedVersion")
    with pytest.raises(HostAtFault):
        opened.volumes.ensure(api.VolumeSpec(uuid4(), MIB), Deadline(SECONDS))
    assert Capability.MACHINES not in api.capabilities(opened, DRIVER)
    assert opened.facts(Deadline(SECONDS)).restriction is None
    opened.close()


def test_every_line_of_the_table_is_a_fault_that_the_sdk_knows() -> None:
    from pyVmomi import vim, vmodl

    for name, (error, reason) in FAULTS.items():
        kind = getattr(vim.fault, name, None) or getattr(vmodl.fault, name, None) or getattr(vmodl.query, name, None)
        assert kind is not None, name
        made = driver_error(kind())
        assert type(made) is error, name
        assert made.reason == reason
        assert made.vendor_code == name


def test_missing_calls_are_unsupported(sim: EsxSim, driver: Driver, off: UUID) -> None:
    sim.fault("PowerOnVM_Task", "MethodNotFound")
    with pytest.raises(Unsupported) as caught:
        driver.machines.power(off, PowerAction.ON, Deadline(SECONDS))
    assert caught.value.capability is Capability.MACHINES


def test_a_full_datastore_leaves_no_half_volume(sim: EsxSim, driver: Driver, tmp_path: Path) -> None:
    volume = uuid4()
    sim.fault("CreateVirtualDisk_Task", "task:NoDiskSpace")
    with pytest.raises(HostAtFault):
        driver.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS))
    assert driver.volumes.inspect(volume, Deadline(SECONDS)) is None
    sim.fault("POST /nfc", "drop", times=2)
    broken = image(tmp_path)
    with pytest.raises(Transient):
        driver.volumes.ensure_image(broken, Deadline(SECONDS))
    assert broken.id not in driver.volumes.list_images(Deadline(SECONDS))
    driver.volumes.ensure_image(broken, Deadline(SECONDS))
    driver.volumes.remove_image(broken.id, Deadline(SECONDS))
    assert driver.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS)).size_bytes == MIB
    driver.volumes.remove(volume, Deadline(SECONDS))


def test_what_a_foreign_machine_holds_is_not_ours_to_take(sim: EsxSim, driver: Driver, off: UUID) -> None:
    """A machine that lost its mark is nobody's of ours, and still holds its volume."""
    from pyVmomi import vim

    volume = next(iter((driver.machines.inspect(off, Deadline(SECONDS)) or pytest.fail("gone")).volumes))
    machine = machine_of(content_of(sim), off)
    forget = vim.option.OptionValue(key="stratograph.id", value="")
    machine.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[forget]))
    deadline = Deadline(SECONDS)
    while driver.machines.inspect(off, deadline) is not None:
        deadline.check("waiting for the mark to go")
    with pytest.raises(Refused):
        driver.volumes.remove(volume, deadline)
    again = vim.option.OptionValue(key="stratograph.id", value=str(off))
    machine.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[again]))
    while driver.machines.inspect(off, deadline) is None:
        deadline.check("waiting for the mark to come back")
