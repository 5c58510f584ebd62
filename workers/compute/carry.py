"""Carrying disks from one host to another through files of the worker.

Each disk leaves its host in the format which that writes best, is converted (by qemu-img in its cage, both formats
named) to what the other takes, and is read back from there: only when what the guest sees has the same SHA-256 before
and after does it count. The files lie in a folder of the migration and are gone when the disk is over, whatever
happened; what a worker that died left there goes with the next try, or by :func:`tidy`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlmodel import select

from drivers.api import (
    Capability,
    Deadline,
    DiskFile,
    DiskFormat,
    DiskSource,
    Driver,
    Refused,
    Snapshots,
    Unsupported,
)
from gateway.compute.migration import Migration, MigrationStatus
from gateway.kernel.settings import Settings
from workers.compute import disks
from workers.compute.disks import CARRY_S
from workers.reach import address, call
from workers.saga import Run
from workers.sweep import Context, reconciler

FOLDER = "migrations"


@dataclass(frozen=True, slots=True)
class Way:
    """From where to where, and the folder of the worker between them."""

    run: Run
    source_id: int
    target_id: int
    folder: Path
    target_format: DiskFormat


def way(run: Run, source_id: int, target_id: int, migration_uid: UUID) -> Way:
    """The way of a migration, with an empty folder."""
    folder = folder_of(run.settings, migration_uid)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    with run.read() as session:
        wanted = run.hosts.type_of(address(session, target_id)).image_formats[0]
    return Way(run, source_id, target_id, folder, wanted)


def folder_of(settings: Settings, migration_uid: UUID) -> Path:
    """Where a migration's files lie for a while."""
    return settings.state_dir / FOLDER / str(migration_uid)


def carry(way: Way, disk_uid: UUID, device: str) -> dict[str, Any]:
    """Bring one disk over, unless it is there whole already; what it was, for the record. Raises the driver's errors,
    Refused when the content does not arrive as it left.
    """
    with _emptied(way):
        return _over(way, disk_uid, device, _export(way, way.source_id, disk_uid, way.folder / "left"))


def carry_snapshot(way: Way, disk_uid: UUID, device: str, snapshot_uid: UUID) -> dict[str, Any]:
    """Bring one disk over as it is at some moment of now, while its machine runs; the record says ``ahead``."""

    def take(driver: Driver, deadline: Deadline) -> None:
        snapshots_of(driver).snapshot(disk_uid, snapshot_uid, deadline)

    call(way.run, way.source_id, take, seconds=CARRY_S)
    try:
        with _emptied(way):
            source = DiskSource(snapshot_id=snapshot_uid)
            left = disks.take_out(way.run, way.source_id, source, way.folder / "left")
            return {**_over(way, disk_uid, device, left), "ahead": True}
    finally:
        drop_snapshot(way.run, way.source_id, snapshot_uid)


def carry_rest(way: Way, disk_uid: UUID, device: str, ahead: dict[str, Any]) -> dict[str, Any]:
    """Bring over what changed since :func:`carry_snapshot`: nothing, or all of it again."""
    with _emptied(way):
        left = _export(way, way.source_id, disk_uid, way.folder / "left")
        if _content(way, left) != ahead["sha256_after"]:
            return _over(way, disk_uid, device, left)
    return {key: value for key, value in ahead.items() if key != "ahead"}


def snapshots_of(driver: Driver) -> Snapshots:
    """The driver's verbs for snapshots. Raises the driver's Unsupported."""
    if not isinstance(driver, Snapshots):
        raise Unsupported(Capability.VOLUME_SNAPSHOT, "this host makes no snapshots")
    return driver


def drop_snapshot(run: Run, host_id: int, snapshot_uid: UUID) -> None:
    """Remove a snapshot that a move made; one that is not there is no matter."""
    call(run, host_id, lambda driver, deadline: snapshots_of(driver).remove_snapshot(snapshot_uid, deadline))


@contextmanager
def _emptied(way: Way) -> Iterator[None]:
    """Leave no file behind, whatever happens."""
    try:
        yield
    finally:
        for each in way.folder.glob("*"):
            each.unlink(missing_ok=True)


def _over(way: Way, disk_uid: UUID, device: str, left: DiskFile) -> dict[str, Any]:
    before = _content(way, left)
    sent = disks.converted(way.run, left, way.target_format, way.folder / "sent")
    _import(way, disk_uid, sent)
    after = _read_back(way, disk_uid, sent)
    if after != before:
        _drop(way, disk_uid)
        raise Refused(f"the disk {device} did not arrive as it left: {before[:12]} became {after[:12]}")
    return {
        "uid": str(disk_uid),
        "device": device,
        "size_bytes": left.virtual_size_bytes,
        "copied_bytes": left.size_bytes,
        "sha256_before": before,
        "sha256_after": after,
    }


def fetch(way: Way, disk_uid: UUID, name: str) -> tuple[DiskFile, str]:
    """One disk in a file of the folder, and the SHA-256 of what the guest sees."""
    left = _export(way, way.source_id, disk_uid, way.folder / name)
    return left, _content(way, left)


def bring(way: Way, disk_uid: UUID, file: DiskFile) -> str:
    """A file of the folder as a disk of the new host; the SHA-256 of what the guest will see there."""
    sent = disks.converted(way.run, file, way.target_format, way.folder / f"{file.path.name}.sent")
    _import(way, disk_uid, sent)
    return _read_back(way, disk_uid, sent)


# ------------------------------------------------------------------------------------------------ parts


def _export(way: Way, host_id: int, disk_uid: UUID, target: Path) -> DiskFile:
    return disks.take_out(way.run, host_id, DiskSource(volume_id=disk_uid), target)


def _import(way: Way, disk_uid: UUID, file: DiskFile) -> None:
    told = disks.Teller(way.run, f"Bringing disk {disk_uid} to the new host")

    def work(driver: Driver, deadline: Deadline) -> None:
        there = driver.volumes.inspect(disk_uid, deadline)
        if there is not None:  # half of an earlier try, or all of it: what counts is what is brought now
            driver.volumes.remove(disk_uid, deadline)
        disks.transport(driver).import_disk(disk_uid, file, deadline, told)

    call(way.run, way.target_id, work, seconds=CARRY_S)


def _read_back(way: Way, disk_uid: UUID, sent: DiskFile) -> str:
    """The SHA-256 of the disk as the new host has it."""
    sent.path.unlink(missing_ok=True)
    return _content(way, _export(way, way.target_id, disk_uid, way.folder / "back"))


def _drop(way: Way, disk_uid: UUID) -> None:
    call(way.run, way.target_id, lambda driver, deadline: driver.volumes.remove(disk_uid, deadline))


def _content(way: Way, file: DiskFile) -> str:
    """The SHA-256 of what a guest sees of a disk's file."""
    if file.format is DiskFormat.RAW:
        return file.sha256
    raw = disks.converted(way.run, file, DiskFormat.RAW, way.folder / f"{file.path.name}.raw")
    raw.path.unlink(missing_ok=True)
    return raw.sha256


@reconciler("migrations", every_s=300.0)
def tidy(context: Context) -> None:
    """Delete what workers that died left of disks on their way."""
    there = context.settings.state_dir / FOLDER
    if not there.is_dir():
        return
    with context.db.read() as session:
        running = select(Migration.uid).where(Migration.status == MigrationStatus.RUNNING)
        kept = {str(uid) for uid in session.exec(running)}
    for folder in there.iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)
