"""Disks out of a KVM host and into it, as qcow2 files through libvirt's streams.

A volume leaves as a copy that the host's own storage layer makes of it (qemu-img on the host), because the volume is a
thin layer over its image; the copy is a file of the pool like any other, called ``export-ID``, and goes when it was
sent. What a worker that died left of one goes with the next export of that volume, or with the volume.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import (
    Capability,
    Deadline,
    DiskFile,
    DiskFormat,
    DiskSource,
    Progress,
    Refused,
    Transient,
    Unsupported,
)
from drivers.kvm import files, xml
from drivers.kvm.errors import told
from drivers.kvm.link import Link
from drivers.kvm.names import PoolFile
from drivers.kvm.sources import Sources
from drivers.kvm.xml.common import strings


def export(sources: Sources, source: DiskSource, target: Path, deadline: Deadline, progress: Progress) -> DiskFile:
    """See :meth:`drivers.api.DiskTransport.export_disk`."""
    link = sources.link
    with told("taking a disk out of the host", Capability.DISK_TRANSPORT):
        if source.volume_id is None:
            assert source.snapshot_id is not None  # noqa: S101 - a source is one of the two; this tells mypy
            return _fetch(_snapshot(link, source.snapshot_id, deadline), target, deadline, progress)
        with link.only(deadline, "export", str(source.volume_id)):
            disk = sources.look_up(source.volume_id, deadline)
            if disk is None:
                raise Refused(f"there is no volume {source.volume_id} on this host")
            sources.need_still(disk, deadline)
            copy = PoolFile("export", disk.id, "qcow2")
            files.delete(files.pool(link, deadline), copy)
            try:
                with sources.readable(disk, deadline) as volume:
                    deadline.check("copying a volume")
                    wanted = xml.text(xml.volume(str(copy), disk.size_bytes))
                    made = files.pool(link, deadline).createXMLFrom(wanted, volume, 0)
                sources.need_still(disk, deadline)
                return _fetch(made, target, deadline, progress)
            finally:
                with suppress(libvirt.libvirtError):  # what stays goes with the next export or with the volume
                    files.delete(files.pool(link, Deadline(30)), copy)


def bring(link: Link, volume_id: UUID, file: DiskFile, deadline: Deadline, progress: Progress) -> None:
    """See :meth:`drivers.api.DiskTransport.import_disk`."""
    if file.format is not DiskFormat.QCOW2:
        raise Unsupported(Capability.DISK_TRANSPORT, f"a KVM host takes a volume as QCOW2, not {file.format}")

    def work(where: Any) -> None:
        _send(where, volume_id, file, deadline, progress)

    with told(f"bringing in volume {volume_id}", Capability.DISK_TRANSPORT):
        files.make(link, PoolFile("volume", volume_id, "qcow2"), work, deadline)


def _snapshot(link: Link, snapshot_id: UUID, deadline: Deadline) -> Any:
    found = files.whole(files.pool(link, deadline), "snapshot", snapshot_id)
    if found is None:
        raise Refused(f"there is no snapshot {snapshot_id} on this host")
    return found


def _fetch(volume: Any, target: Path, deadline: Deadline, progress: Progress) -> DiskFile:
    """Write the libvirt volume's file to a new file of the worker."""
    _, virtual_bytes, allocated_bytes = volume.info()
    digest, done = hashlib.sha256(), 0
    stream = volume.connect().newStream(0)
    try:
        with os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as out:
            try:
                volume.download(stream, 0, 0, 0)  # to the file's end
                while piece := stream.recv(files.CHUNK_BYTES):
                    deadline.check("taking a disk out of the host")
                    digest.update(piece)
                    out.write(piece)
                    done += len(piece)
                    progress(done, max(done, int(allocated_bytes)))
                stream.finish()
                out.flush()
                os.fsync(out.fileno())
            except BaseException:
                target.unlink(missing_ok=True)
                with suppress(libvirt.libvirtError):  # the stream may be dead already
                    stream.abort()
                raise
    except FileExistsError as error:
        raise Refused("there is a file already where the disk was to go") from error
    except OSError as error:
        raise Transient(f"the disk cannot be written on the worker: {error.strerror}") from error
    return DiskFile(target, DiskFormat.QCOW2, done, int(virtual_bytes), digest.hexdigest())


def _send(where: Any, volume_id: UUID, file: DiskFile, deadline: Deadline, progress: Progress) -> None:
    digest, done = hashlib.sha256(), 0

    def seen(piece: bytes) -> None:
        nonlocal done
        digest.update(piece)
        done += len(piece)
        progress(done, file.size_bytes)

    try:
        with file.path.open("rb") as source:
            size_bytes = file.path.stat().st_size
            if size_bytes != file.size_bytes:
                raise Refused(f"the disk's file has {size_bytes} bytes instead of {file.size_bytes}")
            name = f"volume-{volume_id}.qcow2"
            volume = where.createXML(xml.text(xml.volume(name, 0)), 0)
            files.upload(volume, source, size_bytes, deadline, seen)
    except OSError as error:
        raise Transient(f"the disk's file cannot be read on the worker: {error.strerror}") from error
    if digest.hexdigest() != file.sha256.lower():
        raise Refused("the disk's file does not have the checksum it should have")
    if strings(xml.parse(volume.XMLDesc(0)), "backingStore/path/text()"):
        raise Refused("the disk's file is built on another file")
    if int(volume.info()[1]) != file.virtual_size_bytes:
        raise Refused(f"the disk has {int(volume.info()[1])} bytes instead of {file.virtual_size_bytes}")
