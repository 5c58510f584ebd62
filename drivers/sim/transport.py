"""Disks out of a simulated host and into it, as sparse RAW files.

A simulated volume has no bytes but the *name of its content*, so an exported disk begins with that name behind a mark
and is zeros after it; brought in again anywhere, it is the same content. A file without the mark is content of its own,
named after its SHA-256; one of nothing but zeros is blank.
"""

from __future__ import annotations

import errno
import hashlib
import os
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from drivers.api import (
    Capability,
    Deadline,
    DiskFile,
    DiskFormat,
    DiskSource,
    Power,
    Progress,
    Refused,
    Transient,
    Unsupported,
    Volume,
    untold,
)
from drivers.sim.gate import Gate
from drivers.sim.records import MachineRecord, SnapshotRecord, VolumeRecord
from drivers.sim.store import Transaction
from drivers.sim.volumes import METADATA_BYTES, ZEROS, SimVolumes, existing, seen

MARK = b"stratograph-sim:"
NAME_BYTES = 4096
OFF = frozenset({Power.OFF.value, Power.CRASHED.value})
CHUNK_BYTES = 4 * 1024 * 1024
_ZEROS = bytes(CHUNK_BYTES)


class SimTransport:
    """The transport verbs of a connection. See :class:`drivers.api.DiskTransport`."""

    gate: Gate
    volumes: SimVolumes

    def export_disk(
        self, source: DiskSource, target: Path, deadline: Deadline, progress: Progress = untold
    ) -> DiskFile:  # fmt: skip
        """See :meth:`drivers.api.DiskTransport.export_disk`."""
        with self.gate.verb("transport.export_disk", deadline, write=False) as transaction:
            content, size_bytes = _source(transaction, source)
        head = b"" if content == ZEROS else MARK + content.encode() + b"\n"
        try:
            with os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as out:
                try:
                    out.write(head[:size_bytes])
                    out.truncate(size_bytes)
                    out.flush()
                    progress(size_bytes, size_bytes)
                    digest = _digest(head[:size_bytes], size_bytes)
                    deadline.check("taking a disk out of the simulated host")
                except BaseException:
                    target.unlink(missing_ok=True)
                    raise
        except FileExistsError as error:
            raise Refused("there is a file already where the disk was to go") from error
        except OSError as error:
            raise Transient(f"the disk cannot be written on the worker: {error.strerror}") from error
        return DiskFile(target, DiskFormat.RAW, size_bytes, size_bytes, digest)

    def import_disk(self, volume_id: UUID, file: DiskFile, deadline: Deadline, progress: Progress = untold) -> Volume:
        """See :meth:`drivers.api.DiskTransport.import_disk`."""
        if file.format is not DiskFormat.RAW:
            raise Unsupported(Capability.DISK_TRANSPORT, f"a simulated host takes a volume as RAW, not {file.format}")
        found: list[str] = []

        def look() -> None:
            with self.gate.store.read(deadline) as transaction:
                there = transaction.get(VolumeRecord, str(volume_id)) is not None
            if not there:
                found.append(_checked(file, deadline, progress))

        # Ahead of the transaction: reading a large file would hold up every writer.
        with self.gate.verb("transport.import_disk", deadline, ahead=look) as transaction:
            there = transaction.get(VolumeRecord, str(volume_id))
            if there is None:
                if not found:
                    raise Transient("the volume went away while it was looked at")
                self.volumes.claim(transaction, file.virtual_size_bytes)
                there = VolumeRecord(str(volume_id), file.virtual_size_bytes, found[0], METADATA_BYTES)
                transaction.put(there)
            return seen(there)


@lru_cache(maxsize=64)
def _digest(head: bytes, size_bytes: int) -> str:
    """The SHA-256 of a file of that size which begins so and is zeros after it: for most disks a second's work."""
    digest, left = hashlib.sha256(head), size_bytes - len(head)
    while left:
        piece = _ZEROS[: min(left, CHUNK_BYTES)]
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()


def _source(transaction: Transaction, source: DiskSource) -> tuple[str, int]:
    """Content and size of what is to leave."""
    if source.volume_id is not None:
        volume = existing(transaction, source.volume_id)
        holders = [transaction.get(MachineRecord, each) for each in transaction.holders(f"volume:{volume.id}")]
        if any(each is not None and each.power not in OFF for each in holders):
            raise Refused(f"the machine of the volume {volume.id} is not off: export a snapshot of it")
        return volume.content, volume.size_bytes
    snapshot = transaction.get(SnapshotRecord, str(source.snapshot_id))
    if snapshot is None:
        raise Refused(f"the simulated host has no snapshot {source.snapshot_id}")
    return snapshot.content, snapshot.size_bytes


def _checked(file: DiskFile, deadline: Deadline, progress: Progress) -> str:
    """The name of the file's content, once size and checksum are what they were said to be."""
    try:
        size_bytes = file.path.stat().st_size
        if size_bytes != file.size_bytes or size_bytes != file.virtual_size_bytes:
            raise Refused(f"the disk's file has {size_bytes} bytes instead of {file.size_bytes}")
        digest, blank = _read(file.path, deadline, progress)
        with file.path.open("rb") as source:
            head = source.read(NAME_BYTES)
    except OSError as error:
        raise Transient(f"the disk's file cannot be read on the worker: {error.strerror}") from error
    if digest != file.sha256.lower():
        raise Refused("the disk's file does not have the checksum it should have")
    if head.startswith(MARK):
        return head[len(MARK) :].partition(b"\n")[0].decode("ascii", "replace")
    return ZEROS if blank else digest


def _read(path: Path, deadline: Deadline, progress: Progress) -> tuple[str, bool]:
    """The file's SHA-256, and whether there is nothing but zeros in it."""
    digest, done, blank = hashlib.sha256(), 0, True
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if _end_of_data(file.fileno()) <= NAME_BYTES:  # as files of simulated hosts are
            head = file.read(NAME_BYTES).rstrip(b"\0")
            progress(size_bytes, size_bytes)
            return _digest(head, size_bytes), not head
        while piece := file.read(CHUNK_BYTES):
            deadline.check("reading a disk's file")
            digest.update(piece)
            blank = blank and piece == _ZEROS[: len(piece)]
            done += len(piece)
            progress(done, size_bytes)
    return digest.hexdigest(), blank


def _end_of_data(file: int) -> int:
    """Where the data of an open file end, as far as its file system knows: only a hole, which reads as zeros, follows.
    Leaves the file at its beginning.
    """
    end = size_bytes = os.fstat(file).st_size
    if hasattr(os, "SEEK_DATA"):
        end = 0
        while end < size_bytes:
            try:
                end = os.lseek(file, os.lseek(file, end, os.SEEK_DATA), os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:  # ENXIO: no data from there on
                    end = size_bytes
                break
    os.lseek(file, 0, os.SEEK_SET)
    return end
