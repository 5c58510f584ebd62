"""Files of the storage pool are whole or not there: what dead and living workers leave, and how it is taken over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers.api import Deadline, Refused, Transient, VolumeSpec
from drivers.kvm.driver import KvmDriver
from tests.drivers.kvm_host import SECONDS, connect, image, libvirt_host
from tests.servers.libvirt_host import LibvirtHost

POOL = "/var/lib/libvirt/images/stratograph"
MIB = 1024 * 1024


@dataclass
class Pool:
    host: LibvirtHost
    driver: KvmDriver

    def names(self) -> set[str]:
        return set(self.host.run(("ls", POOL)).split())

    def leave(self, name: str, content: str, age_seconds: int) -> None:
        """A file as a worker that died so long ago left it."""
        self.host.run(
            ("sh", "-c", f"printf {content!r} >{POOL}/{name}; touch -d '-{age_seconds} seconds' {POOL}/{name}")
        )
        self.host.run(("virsh", "pool-refresh", "stratograph"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with libvirt_host("files") as host:
        driver = connect(host, tmp_path_factory.mktemp("scratch"))
        yield Pool(host, driver)
        driver.close()


def marker(kind: str, our_id: UUID) -> str:
    return f"making-{kind}-{our_id}-0123456789ab"


def test_what_a_dead_worker_left_does_not_count_and_is_made_anew(pool: Pool) -> None:
    spec = replace(image(), id=uuid4())
    pool.leave(f"image-{spec.id}.qcow2", "half an image", 120)
    pool.leave(marker("image", spec.id), "", 120)
    assert spec.id not in pool.driver.volumes.list_images(Deadline(SECONDS))
    with pytest.raises(Refused):
        pool.driver.volumes.ensure(VolumeSpec(uuid4(), 512 * MIB, image_id=spec.id), Deadline(SECONDS))
    pool.driver.volumes.ensure_image(spec, Deadline(SECONDS))
    assert spec.id in pool.driver.volumes.list_images(Deadline(SECONDS))
    pool.host.run(("cmp", f"{POOL}/image-{spec.id}.qcow2", str(spec.path)))
    pool.driver.volumes.remove_image(spec.id, Deadline(SECONDS))
    assert not [each for each in pool.names() if str(spec.id) in each]


def test_the_work_of_a_living_worker_is_left_to_it(pool: Pool) -> None:
    identity = uuid4()
    pool.leave(f"volume-{identity}.qcow2", "being written", 3)
    pool.leave(marker("volume", identity), "", 3)
    before = pool.names()
    with pytest.raises(Transient):
        pool.driver.volumes.ensure(VolumeSpec(identity, MIB), Deadline(SECONDS))
    assert pool.names() == before
    assert pool.driver.volumes.inspect(identity, Deadline(SECONDS)) is None
    assert identity not in [each.id for each in pool.driver.volumes.list(Deadline(SECONDS))]
    pool.driver.volumes.remove(identity, Deadline(SECONDS))
    assert not [each for each in pool.names() if str(identity) in each]


def test_a_failed_upload_leaves_nothing(pool: Pool, tmp_path: Path) -> None:
    before = pool.names()
    spec = replace(image(), id=uuid4(), sha256="f" * 64)
    with pytest.raises(Refused):
        pool.driver.volumes.ensure_image(spec, Deadline(SECONDS))
    with pytest.raises(Transient):
        pool.driver.volumes.ensure_image(replace(spec, path=tmp_path / "none"), Deadline(SECONDS))
    assert pool.names() == before


def test_foreign_files_are_not_ours(pool: Pool) -> None:
    pool.leave("somebody.qcow2", "theirs", 0)
    pool.leave(f"volume-{uuid4()}.qcow2.bak", "theirs", 0)
    assert pool.driver.volumes.list(Deadline(SECONDS)) == []
    assert pool.driver.list_snapshots(Deadline(SECONDS)) == []


def test_volumes_are_thin_clones_and_snapshots_are_full_copies(pool: Pool) -> None:
    volumes, driver = pool.driver.volumes, pool.driver
    volumes.ensure_image(image(), Deadline(SECONDS))
    clone, snapshot, copy = uuid4(), uuid4(), uuid4()
    size = image().virtual_size_bytes
    made = volumes.ensure(VolumeSpec(clone, size + MIB, image_id=image().id), Deadline(SECONDS))
    assert made.size_bytes == size + MIB
    assert made.allocated_bytes is not None
    assert made.allocated_bytes < MIB
    driver.snapshot(clone, snapshot, Deadline(SECONDS))
    volumes.remove(clone, Deadline(SECONDS))
    volumes.remove_image(image().id, Deadline(SECONDS))
    volumes.ensure(VolumeSpec(copy, size + MIB, snapshot_id=snapshot), Deadline(SECONDS))
    info = pool.host.run(("qemu-img", "info", "-f", "qcow2", f"{POOL}/volume-{copy}.qcow2"))
    assert "backing file" not in info
    assert "compat: 1.1" in info
    image_path, copy_path = str(image().path), f"{POOL}/volume-{copy}.qcow2"
    compared = pool.host.run(("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", image_path, copy_path))
    assert "Images are identical" in compared
    driver.remove_snapshot(snapshot, Deadline(SECONDS))
    volumes.remove(copy, Deadline(SECONDS))


def test_a_console_log_goes_on_in_the_file_before(pool: Pool) -> None:
    """Virtlogd renames a full log; what is asked for may begin in the renamed one."""
    machine = uuid4()
    pool.leave(f"console-{machine}.log", "new", 0)
    assert pool.driver.console_log(machine, 100, Deadline(SECONDS)) == b"new"
    pool.leave(f"console-{machine}.log.0", "old and ", 0)
    assert pool.driver.console_log(machine, 100, Deadline(SECONDS)) == b"old and new"
    assert pool.driver.console_log(machine, 7, Deadline(SECONDS)) == b"and new"
    assert pool.driver.console_log(machine, 2, Deadline(SECONDS)) == b"ew"
    pool.driver.machines.remove(machine, Deadline(SECONDS))
    assert not [each for each in pool.names() if str(machine) in each]
