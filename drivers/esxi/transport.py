"""Disks out of an ESXi host and into it, whole and checked, through the leases of carriers.

Coming in, a disk is made with a carrier of its own in that carrier's folder, filled, checked, and only then moved to
where it belongs: what breaks off on the way lies in a folder that says until when it is wanted, and nowhere else.
Going out, a carrier is built on the very disk, which no running machine may have. Both begin by collecting what earlier
tries left. The content is never converted here: a lease knows stream-optimized VMDKs and nothing else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pyVmomi import vim, vmodl

from drivers.api import (
    Capability,
    Deadline,
    DiskFile,
    DiskFormat,
    HostAtFault,
    Progress,
    Refused,
    Transient,
    Unsupported,
)
from drivers.esxi import carriers, nfc, reading, vmdk
from drivers.esxi.session import LostAnswerError
from drivers.esxi.site import Site
from drivers.esxi.store import KIB, Store, kib

CHUNK_BYTES = 1024**2
PERCENT = 100
NOTHING_CAME = (Refused, HostAtFault, Unsupported, vmodl.MethodFault)
"""What :func:`bring` raises when nothing can have come to its target: a lost answer, which may hide a disk, is none."""


def check(file: DiskFile) -> None:
    """Raise Refused for a file that a host would not take, before anything is sent."""
    if file.format is not DiskFormat.VMDK:
        raise Unsupported(Capability.DISK_TRANSPORT, f"an ESXi host takes disks as VMDK, not {file.format}")
    try:
        size_bytes, header = file.path.stat().st_size, vmdk.of(file.path)
    except OSError as error:
        raise Transient(f"the disk's file cannot be read on the worker: {error.strerror}") from error
    if size_bytes != file.size_bytes:
        raise Refused(f"the disk's file has {size_bytes} bytes instead of {file.size_bytes}")
    if header is None or not header.streams:
        raise Refused("the disk's file is no stream-optimized VMDK")
    if header.capacity_bytes != -(-file.virtual_size_bytes // vmdk.SECTOR_BYTES) * vmdk.SECTOR_BYTES:
        raise Refused(f"the disk has {header.capacity_bytes} bytes instead of {file.virtual_size_bytes}")


def bring(store: Store, file: DiskFile, target: str, deadline: Deadline, progress: Progress) -> None:
    """Make the disk ``target`` (a whole datastore path, in a folder that is there) of the file's content."""
    check(file)
    site = store.site
    carriers.collect(store, deadline)
    with carriers.planned(store, deadline) as carrier:
        path = store.path(carrier.disk, deadline)
        device = carriers.disk(path, capacity_kib=kib(file.virtual_size_bytes))
        vmx = store.path(f"{carrier.folder}/carrier.vmx", deadline)
        document = vim.vm.VmImportSpec(configSpec=carriers.config(carrier, vmx, device, create=True))
        place = site.place(deadline)

        def start() -> object:
            return place.pool.ImportVApp(spec=document, folder=place.vm_folder, host=site.host)

        with nfc.leased(site, start, deadline) as lease:
            nfc.send(lease, _sent(file, lease, deadline, progress), file.size_bytes, deadline)
            lease.complete(deadline)
        made = _own_disk(site, lease.info.entity, deadline)
        carriers.unregister(site, lease.info.entity, deadline)
        try:
            store.move_disk(made, target, deadline)
        except vim.fault.FileNotFound as error:
            raise LostAnswerError("what was imported is gone", vendor_code="FileNotFound") from error


def _sent(file: DiskFile, lease: nfc.Lease, deadline: Deadline, progress: Progress) -> Iterator[bytes]:
    """The file in pieces; Refused at its end when it was not what it should be, so that the lease is aborted."""
    digest, done = hashlib.sha256(), 0
    with file.path.open("rb") as source:
        while chunk := source.read(CHUNK_BYTES):
            deadline.check("sending a disk to the host")
            digest.update(chunk)
            done += len(chunk)
            if done > file.size_bytes:
                raise Refused(f"the disk's file has more than {file.size_bytes} bytes")
            if done == file.size_bytes and digest.hexdigest() != file.sha256.lower():
                raise Refused("the disk's file does not have the checksum it should have")
            lease.percent = min(PERCENT - 1, done * PERCENT // max(1, file.size_bytes))
            progress(done, file.size_bytes)
            yield chunk
    if done != file.size_bytes:
        raise Refused(f"the disk's file has {done} bytes instead of {file.size_bytes}")


def _own_disk(site: Site, machine: object, deadline: Deadline) -> str:
    """The file of a carrier's one disk, wherever the host has put it."""
    found = site.look(lambda: reading.one(site.content, machine, ("config.hardware.device",)), deadline)
    devices = found.get("config.hardware.device") or ()
    disks: list[Any] = [each for each in devices if isinstance(each, vim.vm.device.VirtualDisk)]
    files = [each.backing.fileName for each in disks]
    if len(files) != 1:
        raise LostAnswerError("what was imported has no disk any more", vendor_code="HttpNfcLease")
    return str(files[0])


def take_out(store: Store, disk: str, target: Path, deadline: Deadline, progress: Progress) -> DiskFile:
    """Write the disk (a whole datastore path) to a new file. Whatever goes wrong leaves no file."""
    carriers.collect(store, deadline)
    try:
        out = os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb")
    except FileExistsError as error:
        raise Refused("there is a file already where the disk was to go") from error
    except OSError as error:
        raise Transient(f"the disk cannot be written on the worker: {error.strerror}") from error
    try:
        with out:
            done, digest = _received(store, disk, out, deadline, progress)
        return DiskFile(target, DiskFormat.VMDK, done, _capacity(target), digest)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _received(
    store: Store, disk: str, out: BinaryIO, deadline: Deadline, progress: Progress
) -> tuple[int, str]:  # fmt: skip
    """Write what the host sends of the disk, through a carrier built on it; its length and SHA-256."""
    digest, done = hashlib.sha256(), 0
    with carriers.planned(store, deadline) as carrier:
        machine = carriers.make(store, carrier, carriers.disk(disk, thin=False), deadline, create=False)
        with nfc.leased(store.site, machine.ExportVm, deadline) as lease:
            expected = max(1, int(lease.info.totalDiskCapacityInKB or 0) * KIB)
            for chunk in nfc.fetch(lease, deadline, CHUNK_BYTES):
                digest.update(chunk)
                _write(out, chunk)
                done += len(chunk)
                lease.percent = min(PERCENT - 1, done * PERCENT // expected)
                progress(done, None)
            lease.complete(deadline)
    _write(out, b"")
    return done, digest.hexdigest()


def _write(out: BinaryIO, chunk: bytes) -> None:
    """Write, or with nothing more to write bring all to stable storage. Raises Transient when the worker cannot."""
    try:
        out.write(chunk)
        if not chunk:
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise Transient(f"the disk cannot be written on the worker: {error.strerror}") from error


def _capacity(target: Path) -> int:
    """The size of the disk in a file that came whole."""
    header = vmdk.of(target)
    if header is None or not vmdk.is_whole(target):
        raise HostAtFault("what the host sent is no whole stream-optimized VMDK")
    return header.capacity_bytes
