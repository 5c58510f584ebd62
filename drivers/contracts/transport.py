"""What :class:`drivers.api.DiskTransport` promises, as tests: disks leave whole, come in whole, or not at all."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import Capability, DiskFile, DiskFormat, DiskSource, DiskTransport, PowerAction
from drivers.contracts.rig import Rig, refused, unchanged


class StoppedError(Exception):
    """What the tests' progress raises."""


class TransportContract:
    """Disks out of a host and into it."""

    def test_a_disk_that_leaves_and_comes_back_is_the_same(self, rig: Rig, tmp_path: Path) -> None:
        driver = rig.driver
        if not isinstance(driver, DiskTransport):
            rig.lacking(Capability.DISK_TRANSPORT)
            return
        told: list[tuple[int, int | None]] = []
        with unchanged(rig), rig.boot_volume() as volume:
            first = driver.export_disk(
                DiskSource(volume), tmp_path / "out", rig.deadline, lambda done, total: told.append((done, total))
            )
            _check_file(first)
            assert first.virtual_size_bytes == rig.image.virtual_size_bytes
            assert [done for done, _ in told] == sorted(done for done, _ in told)
            assert told[-1][0] == first.size_bytes
            with _imported(rig, converted(first, rig.type.image_formats[0], tmp_path / "in")) as copy:
                again = driver.export_disk(DiskSource(copy), tmp_path / "again", rig.deadline)
                assert again.virtual_size_bytes == first.virtual_size_bytes
                assert content(again, tmp_path) == content(first, tmp_path)
        rig.works(Capability.DISK_TRANSPORT)

    def test_a_volume_that_is_there_is_not_imported_over(self, rig: Rig, tmp_path: Path) -> None:
        driver = rig.driver
        if not isinstance(driver, DiskTransport):
            return
        with rig.volume() as volume, rig.volume(rig.volume_bytes * 2) as other:
            file = driver.export_disk(DiskSource(volume), tmp_path / "out", rig.deadline)
            wanted = converted(file, rig.type.image_formats[0], tmp_path / "in")
            with unchanged(rig):
                assert driver.import_disk(other, wanted, rig.deadline).size_bytes == rig.volume_bytes * 2

    def test_a_snapshot_leaves_while_its_volumes_machine_runs_and_the_volume_does_not(
        self, rig: Rig, tmp_path: Path
    ) -> None:
        driver = rig.driver
        if not isinstance(driver, DiskTransport):
            return
        with rig.volume() as volume, rig.machine(volume) as machine:
            off = driver.export_disk(DiskSource(volume), tmp_path / "off", rig.deadline)
            rig.power(machine.id, PowerAction.ON)
            with refused(rig):
                driver.export_disk(DiskSource(volume), tmp_path / "on", rig.deadline)
            assert not (tmp_path / "on").exists()
            if rig.has(Capability.SUSPEND):
                rig.power(machine.id, PowerAction.SUSPEND)
                with refused(rig):
                    driver.export_disk(DiskSource(volume), tmp_path / "on", rig.deadline)
                rig.power(machine.id, PowerAction.ON)
            if isinstance(driver, api.Snapshots):
                snapshot_id = uuid4()
                driver.snapshot(volume, snapshot_id, rig.deadline)
                file = driver.export_disk(DiskSource(snapshot_id=snapshot_id), tmp_path / "snap", rig.deadline)
                driver.remove_snapshot(snapshot_id, rig.deadline)
                _check_file(file)
                assert file.virtual_size_bytes == off.virtual_size_bytes == rig.volume_bytes

    def test_a_wrong_file_is_not_imported(self, rig: Rig, tmp_path: Path) -> None:
        driver = rig.driver
        if not isinstance(driver, DiskTransport):
            return
        with rig.volume() as volume:
            file = driver.export_disk(DiskSource(volume), tmp_path / "out", rig.deadline)
            file = converted(file, rig.type.image_formats[0], tmp_path / "in")
            short = tmp_path / "short"
            short.write_bytes(file.path.read_bytes()[:-512])
            wrong = (replace(file, sha256="0" * 64), replace(file, path=short), replace(file, virtual_size_bytes=512))
            for each in wrong:
                with refused(rig):
                    driver.import_disk(uuid4(), each, rig.deadline)
            with refused(rig, api.Unsupported):
                driver.import_disk(uuid4(), replace(file, format=DiskFormat.ISO), rig.deadline)

    def test_what_is_not_there_does_not_leave(self, rig: Rig, tmp_path: Path) -> None:
        driver = rig.driver
        if not isinstance(driver, DiskTransport):
            return
        for source in (DiskSource(uuid4()), DiskSource(snapshot_id=uuid4())):
            with refused(rig):
                driver.export_disk(source, tmp_path / "out", rig.deadline)
        taken = tmp_path / "taken"
        taken.write_bytes(b"somebody's")
        with rig.volume() as volume, refused(rig):
            driver.export_disk(DiskSource(volume), taken, rig.deadline)
        assert taken.read_bytes() == b"somebody's"
        assert not (tmp_path / "out").exists()

    def test_a_transfer_that_is_stopped_leaves_nothing(self, rig: Rig, tmp_path: Path) -> None:
        driver = rig.driver
        if not isinstance(driver, DiskTransport):
            return
        with rig.boot_volume() as volume:
            file = driver.export_disk(DiskSource(volume), tmp_path / "out", rig.deadline)
            file = converted(file, rig.type.image_formats[0], tmp_path / "in")
            with unchanged(rig):
                with pytest.raises(StoppedError):
                    driver.export_disk(DiskSource(volume), tmp_path / "stopped", rig.deadline, _stop)
                with pytest.raises(StoppedError):
                    driver.import_disk(uuid4(), file, rig.deadline, _stop)
            assert not (tmp_path / "stopped").exists()
            with _imported(rig, file) as copy:
                assert driver.volumes.inspect(copy, rig.deadline) is not None


def converted(file: DiskFile, wanted: DiskFormat, target: Path) -> DiskFile:
    """The same disk in that format, as a worker would convert it; both formats are named to qemu-img."""
    if file.format is wanted:
        return file
    options = ["-o", "subformat=streamOptimized"] if wanted is DiskFormat.VMDK else []
    _qemu_img("convert", "-f", _name(file.format), "-O", _name(wanted), *options, str(file.path), str(target))
    made = target.read_bytes()
    return DiskFile(target, wanted, len(made), file.virtual_size_bytes, hashlib.sha256(made).hexdigest())


def content(file: DiskFile, folder: Path) -> str:
    """The SHA-256 of what a guest would read from the whole disk."""
    raw = folder / f"{uuid4()}.raw"
    _qemu_img("convert", "-f", _name(file.format), "-O", "raw", str(file.path), str(raw))
    with raw.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    raw.unlink()
    return found


def _name(disk_format: DiskFormat) -> str:
    return "raw" if disk_format is DiskFormat.ISO else disk_format.value.lower()


def _qemu_img(*arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, timeout=120)


def _check_file(file: DiskFile) -> None:
    with file.path.open("rb") as opened:
        assert hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
    assert file.path.stat().st_size == file.size_bytes
    assert file.path.stat().st_mode & 0o777 == 0o600


def _stop(_done: int, _total: int | None) -> None:
    raise StoppedError


@contextmanager
def _imported(rig: Rig, file: DiskFile) -> Iterator[UUID]:
    """A volume of that file for the length of a test."""
    driver, identity = rig.driver, uuid4()
    assert isinstance(driver, DiskTransport)
    for _ in range(2):
        made = driver.import_disk(identity, file, rig.deadline)
        assert (made.id, made.size_bytes) == (identity, file.virtual_size_bytes)
    try:
        yield identity
    finally:
        driver.volumes.remove(identity, rig.deadline)
