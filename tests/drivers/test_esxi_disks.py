"""Images and volumes on an ESXi host: the bytes of disks, children that stand on images, one worker at a time."""

from __future__ import annotations

import hashlib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import (
    Capability,
    Deadline,
    DiskSource,
    DiskTransport,
    Driver,
    HostAtFault,
    ImageSpec,
    PowerAction,
    Refused,
    Transient,
    Unsupported,
)
from tests.drivers.esxi_host import (
    CLUSTER,
    MIB,
    SECONDS,
    carriers,
    connect,
    content,
    flat,
    image,
    on_datastore,
    simulated,
)
from tests.servers.esxsim import EsxSim

# ------------------------------------------------------------------------------------------ bytes


@pytest.mark.parametrize("mode", ["esxi", "vcenter"])
def test_raw_to_vmdk_through_leases_to_raw_is_the_same(program: Path, tmp_path: Path, mode: str) -> None:
    """The way of an image to a server's disk, of that disk out of the host, and back in as a volume."""
    wanted = hashlib.sha256(content(4 * MIB)).hexdigest()
    with simulated(program, mode=mode) as own:
        driver = connect(own, **({"host": "DC0_H0"} if mode == "vcenter" else {}))
        assert isinstance(driver, DiskTransport)
        base, volume, copy = image(tmp_path, 4 * MIB), uuid4(), uuid4()
        driver.volumes.ensure_image(base, Deadline(SECONDS))
        driver.volumes.ensure(api.VolumeSpec(volume, 4 * MIB, image_id=base.id), Deadline(SECONDS))
        out = driver.export_disk(DiskSource(volume), tmp_path / "out.vmdk", Deadline(SECONDS))
        driver.import_disk(copy, out, Deadline(SECONDS))
        again = driver.export_disk(DiskSource(copy), tmp_path / "again.vmdk", Deadline(SECONDS))
        for each in (base.path, out.path, again.path):
            raw = tmp_path / "raw"
            subprocess.run(
                ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(each), str(raw)], check=True, timeout=60
            )
            assert hashlib.sha256(raw.read_bytes()).hexdigest() == wanted
        assert hashlib.sha256(flat(own, copy)).hexdigest() == wanted
        assert carriers(own) == []
        driver.close()


def test_a_servers_disk_is_a_child_of_the_one_image(
    sim: EsxSim, driver: Driver, standing: tuple[ImageSpec, UUID]
) -> None:
    base, volume = standing
    other, machine = uuid4(), uuid4()
    sim.calls()
    driver.volumes.ensure_image(base, Deadline(SECONDS))
    driver.volumes.ensure(api.VolumeSpec(other, MIB, image_id=base.id), Deadline(SECONDS))
    calls = sim.calls()
    reads = {"RetrievePropertiesEx", "SearchDatastoreSubFolders_Task", "FindByUuid", "CurrentTime"}
    assert {name: count for name, count in calls.items() if name not in reads} == {
        "CreateVM_Task": 1, "UnregisterVM": 1, "MakeDirectory": 4, "DeleteDatastoreFile_Task": 2,
    }  # fmt: skip
    assert calls["SearchDatastoreSubFolders_Task"] <= 5
    for each in (volume, other):
        (text,) = sim.daemon.folder.glob(f"*/stratograph/*/volumes/{each}/disk.vmdk")
        assert f"images/{base.id}/disk.vmdk" in text.read_text()
    disks = (api.DiskSpec(volume, "vda"),)
    driver.machines.ensure(api.MachineSpec(machine, "m", 1, 64, disks), Deadline(SECONDS))
    assert driver.machines.power(machine, PowerAction.ON, Deadline(SECONDS)).volumes == {volume: "vda"}
    driver.machines.remove(machine, Deadline(SECONDS))
    driver.volumes.remove(other, Deadline(SECONDS))
    assert base.id in driver.volumes.list_images(Deadline(SECONDS))
    assert flat(sim, volume) == content(MIB)
    with pytest.raises(Refused):
        driver.volumes.remove_image(base.id, Deadline(SECONDS))
    assert base.id in driver.volumes.list_images(Deadline(SECONDS))


def test_larger_volumes_stand_on_a_copy_of_their_size_which_is_made_once(
    sim: EsxSim, driver: Driver, base: ImageSpec
) -> None:
    driver.volumes.ensure_image(base, Deadline(SECONDS))
    volumes = [uuid4() for _ in range(3)]
    sim.calls()
    for each in volumes:
        made = driver.volumes.ensure(api.VolumeSpec(each, 3 * MIB, image_id=base.id), Deadline(SECONDS))
        assert made.size_bytes == 3 * MIB
    calls = sim.calls()
    assert (calls["CopyVirtualDisk_Task"], calls["ExtendVirtualDisk_Task"]) == (1, 1)
    assert flat(sim, volumes[0]) == content(MIB).ljust(3 * MIB, b"\0")
    for each in volumes:
        driver.volumes.remove(each, Deadline(SECONDS))
    driver.volumes.remove_image(base.id, Deadline(SECONDS))
    assert on_datastore(sim, "*/images/*") == []


# ------------------------------------------------------------------------------------------ children that grow


def test_a_child_grows_once_it_stands_alone_and_not_under_a_running_machine(
    sim: EsxSim, driver: Driver, standing: tuple[ImageSpec, UUID]
) -> None:
    base, volume = standing
    machine = uuid4()
    driver.machines.ensure(
        api.MachineSpec(machine, "m", 1, 64, (api.DiskSpec(volume, "vda"),)), Deadline(SECONDS)
    )  # fmt: skip
    driver.machines.power(machine, PowerAction.ON, Deadline(SECONDS))
    with pytest.raises(Unsupported) as caught:
        driver.volumes.extend(volume, 2 * MIB, Deadline(SECONDS))
    assert caught.value.capability is Capability.VOLUME_HOT_EXTEND
    assert driver.volumes.inspect(volume, Deadline(SECONDS)) is not None
    driver.machines.power(machine, PowerAction.OFF, Deadline(SECONDS))
    assert driver.volumes.extend(volume, 2 * MIB, Deadline(SECONDS)).size_bytes == 2 * MIB
    assert flat(sim, volume) == content(MIB).ljust(2 * MIB, b"\0")
    driver.volumes.remove_image(base.id, Deadline(SECONDS))  # nothing stands on it any more
    driver.machines.power(machine, PowerAction.ON, Deadline(SECONDS))
    assert driver.volumes.extend(volume, 3 * MIB, Deadline(SECONDS)).size_bytes == 3 * MIB
    driver.machines.remove(machine, Deadline(SECONDS))


@pytest.mark.parametrize(
    ("method", "skip"),
    [
        ("CopyVirtualDisk_Task", 0),
        ("MoveVirtualDisk_Task", 0),
        ("MoveVirtualDisk_Task", 1),
        ("DeleteVirtualDisk_Task", 1),
        ("ExtendVirtualDisk_Task", 0),
    ],
)
@pytest.mark.parametrize("how", ["drop", "task:SystemError"])
def test_a_child_that_was_being_made_to_stand_alone_is_there_all_the_while(
    sim: EsxSim, driver: Driver, standing: tuple[ImageSpec, UUID], *, method: str, skip: int, how: str
) -> None:
    """An answer is lost, or the worker dies, at each step; between the two renamings above all."""
    _, volume = standing
    sim.fault(method, how, skip=skip)
    try:
        driver.volumes.extend(volume, 2 * MIB, Deadline(SECONDS))
    except HostAtFault:
        seen = driver.volumes.inspect(volume, Deadline(SECONDS))
        assert seen is not None
        assert seen.size_bytes == MIB
        assert [each.id for each in driver.volumes.list(Deadline(SECONDS))] == [volume]
        anew, other = connect(sim), uuid4()  # a worker that was started anew puts it right at its first change
        anew.volumes.ensure(api.VolumeSpec(other, MIB), Deadline(SECONDS))
        anew.volumes.remove(other, Deadline(SECONDS))
        anew.close()
        assert len(on_datastore(sim, f"*/volumes/{volume}/disk.vmdk")) == 1
    assert driver.volumes.extend(volume, 2 * MIB, Deadline(SECONDS)).size_bytes == 2 * MIB
    assert flat(sim, volume) == content(MIB).ljust(2 * MIB, b"\0")


def test_a_copy_that_an_earlier_try_left_never_takes_the_place_of_newer_data(
    sim: EsxSim, driver: Driver, standing: tuple[ImageSpec, UUID]
) -> None:
    _, volume = standing
    sim.fault("MoveVirtualDisk_Task", "task:SystemError")
    with pytest.raises(HostAtFault):
        driver.volumes.extend(volume, 2 * MIB, Deadline(SECONDS))
    (disk,) = sim.daemon.folder.glob(f"*/stratograph/*/volumes/{volume}/disk-flat.vmdk")
    disk.write_bytes(b"what a guest wrote meanwhile".ljust(MIB, b"."))
    driver.volumes.extend(volume, 2 * MIB, Deadline(SECONDS))
    assert flat(sim, volume).startswith(b"what a guest wrote meanwhile....")


# ------------------------------------------------------------------------------------------ one at a time


@pytest.mark.parametrize(
    ("mode", "names", "folder"), [("vcenter", "DC0_H{}", "shared"), ("cluster", "DC0_C0_H{}", "pool-one/shared")]
)
def test_hosts_that_ask_at_once_bring_an_image_in_once_and_it_goes_with_the_last(
    program: Path, base: ImageSpec, mode: str, names: str, folder: str
) -> None:
    with simulated(program, mode=mode, machines=0) as vcenter:
        more = CLUSTER if mode == "cluster" else {}
        first, second = (connect(vcenter, host=names.format(number), **more) for number in range(2))
        vcenter.calls()
        with ThreadPoolExecutor(4) as pool:
            asked = [
                pool.submit(each.volumes.ensure_image, base, Deadline(SECONDS))
                for each in (first, second, first, second)
            ]
            for each in asked:
                each.result()
        assert vcenter.calls()["ImportVApp"] == 1
        assert len(on_datastore(vcenter, f"{folder}/images/{base.id}/disk.vmdk")) == 1
        volume = uuid4()
        first.volumes.remove_image(base.id, Deadline(SECONDS))
        assert first.volumes.list_images(Deadline(SECONDS)) == []
        assert second.volumes.list_images(Deadline(SECONDS)) == [base.id]
        with pytest.raises(Refused):
            first.volumes.ensure(api.VolumeSpec(uuid4(), MIB, image_id=base.id), Deadline(SECONDS))
        second.volumes.ensure(api.VolumeSpec(volume, MIB, image_id=base.id), Deadline(SECONDS))
        with pytest.raises(Refused):
            second.volumes.remove_image(base.id, Deadline(SECONDS))
        second.volumes.remove(volume, Deadline(SECONDS))
        second.volumes.remove_image(base.id, Deadline(SECONDS))
        assert on_datastore(vcenter, f"{folder}/images/*") == on_datastore(vcenter, f"{folder}/locks/*") == []
        first.close()
        second.close()


def test_an_image_that_a_dead_worker_was_removing_stays_for_who_stands_on_it(
    sim: EsxSim, driver: Driver, base: ImageSpec
) -> None:
    driver.volumes.ensure_image(base, Deadline(SECONDS))
    (folder,) = sim.daemon.folder.glob(f"*/stratograph/shared/images/{base.id}")
    (mine,) = folder.glob("host_*")
    going = folder / mine.name.replace("host_", "going_")
    going.mkdir()
    driver.volumes.ensure_image(base, Deadline(SECONDS))
    assert not going.exists()
    going.mkdir()
    volume = uuid4()
    driver.volumes.ensure(api.VolumeSpec(volume, MIB, image_id=base.id), Deadline(SECONDS))
    assert not going.exists()
    with pytest.raises(Refused):
        driver.volumes.remove_image(base.id, Deadline(SECONDS))
    driver.volumes.remove(volume, Deadline(SECONDS))
    driver.volumes.remove_image(base.id, Deadline(SECONDS))
    assert not folder.exists()


def test_no_images_disk_goes_while_a_volume_of_whatever_host_says_that_it_stands_on_it(
    sim: EsxSim, driver: Driver, base: ImageSpec
) -> None:
    driver.volumes.ensure_image(base, Deadline(SECONDS))
    (folder,) = sim.daemon.folder.glob(f"*/stratograph/shared/images/{base.id}")
    stranger = folder.parent.parent.parent / f"some-other-host/volumes/{uuid4()}/of_{base.id}"
    stranger.mkdir(parents=True)
    driver.volumes.remove_image(base.id, Deadline(SECONDS))
    assert driver.volumes.list_images(Deadline(SECONDS)) == []
    assert (folder / "disk.vmdk").exists()
    stranger.rmdir()
    driver.volumes.remove_image(base.id, Deadline(SECONDS))
    assert not folder.exists()


def test_a_lock_is_waited_for_and_taken_from_who_died(sim: EsxSim, driver: Driver, base: ImageSpec) -> None:
    driver.volumes.ensure_image(base, Deadline(SECONDS))  # so that this host has its folder
    driver.volumes.remove_image(base.id, Deadline(SECONDS))
    (datastore,) = {each.parent for each in sim.daemon.folder.glob("*/stratograph")}
    lock = datastore / f"stratograph/shared/locks/image_{base.id}"
    (lock / "until_99999999999").mkdir(parents=True)
    with pytest.raises(Transient, match="another worker"):
        driver.volumes.ensure_image(base, Deadline(1.5))
    assert base.id not in driver.volumes.list_images(Deadline(SECONDS))
    (lock / "until_99999999999").rename(lock / "until_1000000000")
    driver.volumes.ensure_image(base, Deadline(SECONDS))
    assert base.id in driver.volumes.list_images(Deadline(SECONDS))
    driver.volumes.remove_image(base.id, Deadline(SECONDS))
    assert on_datastore(sim, "shared/locks/*") == []
