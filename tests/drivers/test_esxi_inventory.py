"""What a list of machines costs where most are somebody else's, and that what is remembered is never wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pyVmomi import vim

from drivers.api import (
    Adoption,
    AdoptionSpec,
    Deadline,
    DiskSpec,
    Driver,
    MachineSpec,
    Power,
    PowerAction,
    Refused,
    VolumeSpec,
)
from drivers.contracts.rig import wait_for
from drivers.esxi import bulk, holders, reading
from drivers.esxi.machines import EsxiMachines
from tests.drivers.esxi_host import MIB, SECONDS, connect, content_of, finished, machine_of
from tests.migration.theirs import machine as foreign
from tests.servers.esxsim import EsxSim

MANY = 1000
PAGES = {"RetrievePropertiesEx", "ContinueRetrievePropertiesEx"}


@pytest.fixture(scope="module")
def crowd(program: Path) -> Iterator[EsxSim]:
    """A host with 1,000 machines of somebody else's."""
    sim = EsxSim.create(program, machines=MANY)
    yield sim
    sim.stop()


@pytest.fixture
def driver(crowd: EsxSim) -> Iterator[Driver]:
    made = connect(crowd)
    yield made
    made.close()


def bare_list(driver: Driver, sim: EsxSim) -> tuple[list[UUID], dict[str, int], int]:
    """Our machines' ids, the calls that telling them took, and the bytes."""
    sim.calls()
    sim.sent()
    listed = [each.id for each in driver.machines.list(Deadline(SECONDS))]
    calls = sim.calls()
    return listed, calls, sum(sim.sent().values())


def mark(sim: EsxSim, count: int) -> set[UUID]:
    """Have so many of the machines be ours from now on, as adoptions would; the others bear no mark of ours."""
    content = content_of(sim)
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    wanted = {each: uuid4() for each in view.view[:count]}
    seen = reading.related(content, view, "view", vim.VirtualMachine, ("config.instanceUuid", "config.extraConfig"))
    others = {each: uuid4() for each, found in seen if reading.is_ours(found)}
    for each, identity in (others | wanted).items():
        option = vim.option.OptionValue(key=reading.MARK, value=str(identity) if each in wanted else "")
        each.ReconfigVM_Task(vim.vm.ConfigSpec(instanceUuid=str(identity), extraConfig=[option]))

    def carried_out() -> bool:
        told = reading.related(content, view, "view", vim.VirtualMachine, ("config.instanceUuid",))
        return {str(each) for each in (others | wanted).values()} <= {str(f["config.instanceUuid"]) for _, f in told}

    wait_for(carried_out, SECONDS, "the machines bear their marks")
    return set(wanted.values())


def test_a_thousand_machines_take_three_calls_and_those_of_others_few_bytes(crowd: EsxSim, driver: Driver) -> None:
    ours = mark(crowd, 3)
    for each_of_others in (700, 400):  # bytes, at first and from then on; with all its devices a machine is 7,200
        listed, calls, size = bare_list(driver, crowd)
        assert set(listed) == ours
        assert set(calls) <= PAGES
        assert sum(calls.values()) <= 3
        assert size < MANY * each_of_others
    assert len(driver.machines.sample(Deadline(SECONDS))) == 3
    assert sum(count for name, count in crowd.calls().items() if name in PAGES) <= 3


def test_a_thousand_machines_of_ours_take_three_calls(program: Path) -> None:
    sim = EsxSim.create(program, machines=MANY, ours=True)
    try:
        driver = connect(sim)
        for _ in range(2):
            listed, calls, _ = bare_list(driver, sim)
            assert len(set(listed)) == MANY
            assert sum(calls.values()) == 3
        driver.close()
    finally:
        sim.stop()


def test_looking_for_who_has_a_volume_reads_disks_once(crowd: EsxSim, driver: Driver) -> None:
    """However often it is asked, and anew of the machine that changed; a machine of another client's counts as well."""
    volume, other = uuid4(), uuid4()
    for each in (volume, other):
        driver.volumes.ensure(VolumeSpec(each, MIB), Deadline(SECONDS))
    spec = MachineSpec(uuid4(), "m", 1, 64, (DiskSpec(volume, "vda"),))
    driver.machines.ensure(spec, Deadline(SECONDS))
    for _ in range(2):
        crowd.sent()
        with pytest.raises(Refused):
            driver.volumes.remove(volume, Deadline(SECONDS))
        assert sum(crowd.sent().values()) < MANY * 500  # every disk of them all is more than twice of that
    with foreign(crowd) as theirs:
        (path,) = crowd.daemon.folder.glob(f"*/stratograph/*/volumes/{other}/disk.vmdk")
        store = theirs.vm.datastore[0].name
        name = f"[{store}] {path.relative_to(next(crowd.daemon.folder.glob('*/stratograph')).parent)}"
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=name, diskMode="persistent")
        disk = vim.vm.device.VirtualDisk(key=-9, controllerKey=1000, unitNumber=5, capacityInKB=1024, backing=backing)
        change = vim.vm.device.VirtualDeviceSpec(operation="add", device=disk)
        finished(theirs.vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
        with pytest.raises(Refused):
            driver.volumes.remove(other, Deadline(SECONDS))
        change = vim.vm.device.VirtualDeviceSpec(operation="remove", device=theirs.vm.config.hardware.device[-1])
        finished(theirs.vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))
        driver.volumes.remove(other, Deadline(SECONDS))
    driver.machines.detach(spec.id, volume, Deadline(SECONDS))
    driver.volumes.remove(volume, Deadline(SECONDS))
    driver.machines.remove(spec.id, Deadline(SECONDS))


def test_what_comes_goes_and_is_taken_over_between_two_lists_is_seen(program: Path) -> None:
    sim = EsxSim.create(program)
    driver = connect(sim)
    try:
        assert isinstance(driver, Adoption)
        assert bare_list(driver, sim)[0] == []
        with foreign(sim) as theirs:
            assert bare_list(driver, sim)[0] == []
            found = driver.inspect_foreign(theirs.ref, Deadline(SECONDS))
            assert found is not None
            disks = {each.key: DiskSpec(uuid4(), f"vd{'ab'[at]}") for at, each in enumerate(found.disks)}
            spec = AdoptionSpec(theirs.ref, uuid4(), "adopted", disks)
            made = driver.adopt(spec, Deadline(SECONDS))
            assert list(driver.machines.list(Deadline(SECONDS))) == [made]
            driver.machines.power(spec.id, PowerAction.ON, Deadline(SECONDS))
            assert [each.power for each in driver.machines.list(Deadline(SECONDS))] == [Power.RUNNING]
            driver.machines.power(spec.id, PowerAction.OFF, Deadline(SECONDS))
            driver.disown(spec.id, Deadline(SECONDS))
            assert bare_list(driver, sim)[0] == []
            driver.adopt(spec, Deadline(SECONDS))
            assert bare_list(driver, sim)[0] == [spec.id]
            sim.fault("RetrievePropertiesEx", "ManagedObjectNotFound", skip=1)  # it went between the two questions
            assert bare_list(driver, sim)[0] == [spec.id]
            driver.disown(spec.id, Deadline(SECONDS))
        assert bare_list(driver, sim)[0] == []
    finally:
        driver.close()
        sim.stop()


def test_the_quick_way_of_reading_finds_what_the_sdk_finds(program: Path) -> None:
    """Everything that a machine is made of, with two disks, children of images and a value for each form."""
    sim = EsxSim.create(program)
    driver = connect(sim)
    try:
        machines = driver.machines
        assert isinstance(machines, EsxiMachines)
        assert isinstance(driver, Adoption)
        with foreign(sim) as theirs:
            found = driver.inspect_foreign(theirs.ref, Deadline(SECONDS))
            assert found is not None
            disks = {each.key: DiskSpec(uuid4(), f"vd{'ab'[at]}") for at, each in enumerate(found.disks)}
            spec = AdoptionSpec(theirs.ref, uuid4(), """<a> & "b" ü""", disks)
            driver.adopt(spec, Deadline(SECONDS))
            machines.power(spec.id, PowerAction.ON, Deadline(SECONDS))
            site, names = machines.site, (*reading.SHOWN, *reading.SAMPLE, holders.VERSION)
            assert set(names) == set(bulk.FORMS)
            slow = dict(reading.related(site.content, site.host, "vm", vim.VirtualMachine, names))
            quick = bulk.related(site.session, site.host, "vm", names, 500)
            assert len(quick) == len(slow) == 3
            for at, seen in quick:
                told = next(each for key, each in slow.items() if key._moId == at._moId)
                assert reading.our_machine(seen) == reading.our_machine(told)
                assert reading.marks_of(seen) == {key: str(each) for key, each in reading.marks_of(told).items()}
                for name in set(names) - {"config.extraConfig", "config.hardware.device"}:
                    assert seen.get(name) == told.get(name), name
                chains = [[_chain(each.backing) for each in side if isinstance(each, vim.vm.device.VirtualDisk)]
                          for side in (seen["config.hardware.device"], told["config.hardware.device"])]  # fmt: skip
                assert chains[0] == chains[1]
            assert machine_of(content_of(sim), spec.id).runtime.powerState == "poweredOn"
            machines.power(spec.id, PowerAction.OFF, Deadline(SECONDS))
            driver.disown(spec.id, Deadline(SECONDS))
    finally:
        driver.close()
        sim.stop()


def _chain(backing: object) -> list[str]:
    names = []
    while backing is not None:
        names.append(str(backing.fileName))  # type: ignore[attr-defined]  # pyVmomi's object
        backing = getattr(backing, "parent", None)
    return names
