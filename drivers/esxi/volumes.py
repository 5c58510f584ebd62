"""Volumes and snapshots: thin VMDKs in folders of their own, which count once they are whole.

A volume from an image is a child of it (or a copy, by the option ``disks``); a mark in its folder, made before the
disk, tells its image, so that the image is not removed under it. One from a snapshot or a file is a disk on its own. A
volume that a machine holds grows through that machine; a child is made to stand alone before, which needs the machine
off. A snapshot of a volume in use is copied from the disk that a machine's own snapshot froze, and the machine's
snapshot is taken back at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import (
    Capability,
    Deadline,
    DiskFile,
    DiskSource,
    DriverError,
    Power,
    Progress,
    Refused,
    Snapshot,
    Transient,
    Unsupported,
    Volume,
    VolumeSpec,
)
from drivers.esxi import carriers, children, holders, transport, turns
from drivers.esxi.errors import as_driver_errors
from drivers.esxi.holders import Holder
from drivers.esxi.images import OF, Images
from drivers.esxi.options import DiskWay
from drivers.esxi.site import Site, verb
from drivers.esxi.store import DISK, SHARED, WHOLE, Folder, Store, kib

VOLUMES, SNAPSHOTS = "volumes", "snapshots"
TIDY_S = 3600.0
BOOKKEEPING_SNAPSHOT = "stratograph-copy"


class EsxiVolumes(Images):
    """See :class:`drivers.api.Volumes`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.store = Store(site)
        self.shared = Store(site, within=SHARED)
        self.everyones = Store(site, within="")
        self._tidied_at: float | None = None

    @verb
    def ensure(self, spec: VolumeSpec, deadline: Deadline) -> Volume:
        """See :meth:`drivers.api.Volumes.ensure`."""
        if spec.image_id is not None and spec.snapshot_id is not None:
            raise Refused("a volume has at most one source")
        if spec.size_bytes <= 0:
            raise Refused("a volume needs a size")
        self._tidy(deadline)
        with self.site.only(deadline, "volume", str(spec.id)):
            there = self._look(VOLUMES, spec.id, deadline)
            if there is None:
                self._make(spec, deadline)
                there = self._look(VOLUMES, spec.id, deadline)
            if there is None:
                raise Transient("the volume went away as soon as it was made")
            return Volume(spec.id, *there)

    @verb
    def remove(self, volume_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.remove`."""
        self._tidy(deadline)
        with self.site.claim(deadline, volume_id):
            if holders.of(self.site, volume_id, deadline) is not None:
                raise Refused(f"a machine holds the volume {volume_id}")
            self.store.delete(f"{VOLUMES}/{volume_id}", deadline)

    @verb
    def inspect(self, volume_id: UUID, deadline: Deadline) -> Volume | None:
        """See :meth:`drivers.api.Volumes.inspect`."""
        there = self._look(VOLUMES, volume_id, deadline)
        return None if there is None else Volume(volume_id, *there)

    @verb
    def list(self, deadline: Deadline) -> Sequence[Volume]:
        """See :meth:`drivers.api.Volumes.list`."""
        return [Volume(each, *sizes) for each, sizes in self._every(VOLUMES, deadline)]

    @verb
    def extend(self, volume_id: UUID, size_bytes: int, deadline: Deadline) -> Volume:
        """See :meth:`drivers.api.Volumes.extend`."""
        with self.site.claim(deadline, volume_id):
            there = self._look(VOLUMES, volume_id, deadline)
            if there is None:
                raise Refused(f"there is no volume {volume_id} on this host")
            if there[0] < size_bytes:
                self._grow(volume_id, size_bytes, deadline)
                there = self._look(VOLUMES, volume_id, deadline) or there
            return Volume(volume_id, *there)

    def _grow(self, volume_id: UUID, size_bytes: int, deadline: Deadline) -> None:
        holder = holders.of(self.site, volume_id, deadline)
        self._settled(volume_id, deadline)
        found = self.store.search(f"{VOLUMES}/{volume_id}", deadline)[""]
        if children.is_child(found):
            if holder is not None and holder.power is not Power.OFF:
                why = "this volume stands on its image and cannot grow under a running machine: stop it first"
                raise Unsupported(Capability.VOLUME_HOT_EXTEND, why)
            if holder is not None:
                self._need_no_snapshots(holder, deadline)
            children.stand_alone(self.store, f"{VOLUMES}/{volume_id}", found, deadline)
            if holder is not None:  # what the host told of the chain is no longer so, and is sent back with the change
                holder.device.backing.parent = None
        if holder is None:
            self.store.extend_disk(f"{VOLUMES}/{volume_id}/{DISK}", size_bytes, deadline)
        else:
            self._extend_held(holder, size_bytes, deadline)

    # ------------------------------------------------------------------------------------- transport

    @verb
    def export_disk(self, source: DiskSource, target: Path, progress: Progress, deadline: Deadline) -> DiskFile:
        """See :meth:`drivers.api.DiskTransport.export_disk`."""
        if source.volume_id is None:
            assert source.snapshot_id is not None  # noqa: S101 - a source is one of the two; this tells mypy
            if self._look(SNAPSHOTS, source.snapshot_id, deadline) is None:
                raise Refused(f"there is no snapshot {source.snapshot_id} on this host")
            disk = self.store.path(f"{SNAPSHOTS}/{source.snapshot_id}/{DISK}", deadline)
            return transport.take_out(self.store, disk, target, deadline, progress)
        volume_id = source.volume_id
        with self.site.only(deadline, "export", str(volume_id)):
            holder = holders.of(self.site, volume_id, deadline, carried=True)
            if holder is not None and holder.power is not Power.OFF:
                raise Refused(f"the machine of the volume {volume_id} is not off: export a snapshot of it")
            if holder is not None:  # its own word: the newest of a chain, or a disk that was adopted where it lies
                disk = str(holder.device.backing.fileName)
            else:
                if self._look(VOLUMES, volume_id, deadline) is None:
                    raise Refused(f"there is no volume {volume_id} on this host")
                self._settled(volume_id, deadline)
                disk = self.store.path(f"{VOLUMES}/{volume_id}/{DISK}", deadline)
            return transport.take_out(self.store, disk, target, deadline, progress)

    @verb
    def import_disk(self, volume_id: UUID, file: DiskFile, progress: Progress, deadline: Deadline) -> Volume:
        """See :meth:`drivers.api.DiskTransport.import_disk`."""
        with self.site.only(deadline, "volume", str(volume_id)):
            there = self._look(VOLUMES, volume_id, deadline)
            if there is None:
                transport.check(file)
                folder = f"{VOLUMES}/{volume_id}"
                self._begin(VOLUMES, volume_id, deadline)
                try:
                    target = self.store.path(f"{folder}/{DISK}", deadline)
                    transport.bring(self.store, file, target, deadline, progress)
                except transport.NOTHING_CAME:
                    with suppress(DriverError), as_driver_errors():
                        self.store.delete(folder, deadline)
                    raise
                self.store.make_folder(f"{folder}/{WHOLE}", deadline)
                there = self._look(VOLUMES, volume_id, deadline)
            if there is None:
                raise Transient("the volume went away as soon as it was made")
            return Volume(volume_id, *there)

    # ------------------------------------------------------------------------------------- snapshots

    @verb
    def snapshot(self, volume_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Snapshot:
        """See :meth:`drivers.api.Snapshots.snapshot`."""
        with self.site.only(deadline, "snapshot", str(snapshot_id)), self.site.only(deadline, "copy", str(volume_id)):
            there = self._look(SNAPSHOTS, snapshot_id, deadline)
            if there is None:
                source = self._look(VOLUMES, volume_id, deadline)
                path = self.store.path(f"{VOLUMES}/{volume_id}/{DISK}", deadline)
                if source is None:
                    source, path = self._adopted(volume_id, deadline)
                if not self.site.goes_on(f"{SNAPSHOTS}/{snapshot_id}/{DISK}"):
                    self._begin(SNAPSHOTS, snapshot_id, deadline)
                self._copy_still(volume_id, path, f"{SNAPSHOTS}/{snapshot_id}/{DISK}", deadline)
                self.store.make_folder(f"{SNAPSHOTS}/{snapshot_id}/{WHOLE}", deadline)
                there = source
            return Snapshot(snapshot_id, there[0])

    @verb
    def remove_snapshot(self, snapshot_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Snapshots.remove_snapshot`."""
        self.store.delete(f"{SNAPSHOTS}/{snapshot_id}", deadline)

    @verb
    def list_snapshots(self, deadline: Deadline) -> Sequence[Snapshot]:
        """See :meth:`drivers.api.Snapshots.list_snapshots`."""
        return [Snapshot(each, sizes[0]) for each, sizes in self._every(SNAPSHOTS, deadline)]

    # ------------------------------------------------------------------------------------- parts

    def _tidy(self, deadline: Deadline) -> None:
        """Take away what dead workers left, at a connection's first change and then once an hour."""
        if self._tidied_at is not None and time.monotonic() - self._tidied_at < TIDY_S:
            return
        self._tidied_at = time.monotonic()
        with suppress(DriverError), as_driver_errors():  # what could not go now goes another time
            carriers.collect(self.store, deadline)
            turns.collect(self.shared, deadline)
            for name, folder in self.store.search(VOLUMES, deadline).items():
                if children.is_between(folder):
                    children.settle(self.store, f"{VOLUMES}/{name}", deadline)

    def _look(self, kind: str, identity: UUID, deadline: Deadline) -> tuple[int, int] | None:
        """Capacity and bytes taken, None when there is no whole one."""
        found = self.store.search(f"{kind}/{identity}", deadline).get("")
        return children.size_of(found) if found is not None and counts(found) else None

    def _every(self, kind: str, deadline: Deadline) -> Sequence[tuple[UUID, tuple[int, int]]]:
        found = self.store.search(kind, deadline)
        named = [(identity_of(name), folder) for name, folder in found.items() if counts(folder)]
        sized = [(each, children.size_of(folder)) for each, folder in named if each is not None]
        return [(each, sizes) for each, sizes in sized if sizes is not None]

    def _begin(self, kind: str, identity: UUID, deadline: Deadline) -> None:
        """An empty folder, where an earlier try may have left something."""
        self.store.delete(f"{kind}/{identity}", deadline)
        self.store.make_folder(f"{kind}/{identity}", deadline)

    def _make(self, spec: VolumeSpec, deadline: Deadline) -> None:
        folder = f"{VOLUMES}/{spec.id}"
        disk = f"{folder}/{DISK}"
        if spec.image_id is not None:
            self._make_of_image(spec.id, spec.image_id, spec.size_bytes, deadline)
        elif spec.snapshot_id is not None:
            source = f"{SNAPSHOTS}/{spec.snapshot_id}"
            self._check_snapshot(source, spec.size_bytes, deadline)
            if not self.site.goes_on(disk):
                self._begin(VOLUMES, spec.id, deadline)
            self.store.copy_disk(self.store.path(f"{source}/{DISK}", deadline), disk, deadline)
            if self.store.search(folder, deadline)[""].disks[DISK][0] < spec.size_bytes:
                self.store.extend_disk(disk, spec.size_bytes, deadline)
        else:
            self._begin(VOLUMES, spec.id, deadline)
            self.store.create_disk(disk, spec.size_bytes, deadline)
        self.store.make_folder(f"{folder}/{WHOLE}", deadline)

    def _make_of_image(self, volume_id: UUID, image_id: UUID, size_bytes: int, deadline: Deadline) -> None:
        folder = f"{VOLUMES}/{volume_id}"
        disk = f"{folder}/{DISK}"
        source = self.image_disk(image_id, size_bytes, deadline)  # refuses before anything is made
        if not self.site.goes_on(disk):
            self.store.delete(folder, deadline)
            self.store.make_folder(f"{folder}/{OF}{image_id}", deadline)
        self.stay(image_id, deadline)  # it is there, and now it sees us
        if self.site.options.disks is DiskWay.FULL:
            self.store.copy_disk(source, disk, deadline)
        else:
            children.make(self.store, source, disk, size_bytes, deadline)
            self.store.make_folder(f"{folder}/{children.CHILD}", deadline)

    def _settled(self, volume_id: UUID, deadline: Deadline) -> None:
        """Finish what a worker that died left of a volume that was being made to stand alone."""
        found = self.store.search(f"{VOLUMES}/{volume_id}", deadline).get("")
        if found is not None and children.is_between(found):
            children.settle(self.store, f"{VOLUMES}/{volume_id}", deadline)

    def _check_snapshot(self, folder: str, size_bytes: int, deadline: Deadline) -> None:
        found = self.store.search(folder, deadline).get("")
        if found is None or not counts(found):
            raise Refused(f"there is no snapshot {folder.rpartition('/')[2]} on this host")
        if found.disks[DISK][0] > kib(size_bytes) * 1024:
            raise Refused("the volume would be smaller than its snapshot")

    def _extend_held(self, holder: Holder, size_bytes: int, deadline: Deadline) -> None:
        self._need_no_snapshots(holder, deadline)
        holder.device.capacityInKB = kib(size_bytes)
        holder.device.capacityInBytes = None
        change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=holder.device)
        spec = vim.vm.ConfigSpec(deviceChange=[change])
        self.site.carry_out(lambda: holder.machine.ReconfigVM_Task(spec), deadline)

    def _adopted(self, volume_id: UUID, deadline: Deadline) -> tuple[tuple[int, int], str]:
        """Sizes and file of a disk that was adopted where it lies; the file under a snapshot of ours, if there is one.
        Raises Refused when no machine was adopted with such a disk.
        """
        holder = holders.of(self.site, volume_id, deadline, carried=True)
        if holder is None:
            raise Refused(f"there is no volume {volume_id} on this host")
        backing = holder.device.backing
        if BOOKKEEPING_SNAPSHOT in holder.snapshots:
            backing = backing.parent
        capacity = getattr(holder.device, "capacityInBytes", None) or int(holder.device.capacityInKB or 0) * 1024
        return (int(capacity), 0), str(backing.fileName)

    def _copy_still(self, volume_id: UUID, source: str, target: str, deadline: Deadline) -> None:
        """Copy the volume while nothing writes to the disk that is read."""
        holder = holders.of(self.site, volume_id, deadline, carried=True)
        if holder is None or (holder.power is Power.OFF and not holder.snapshots):
            self.store.copy_disk(source, target, deadline)
            return
        machine = holder.machine
        if not self.site.goes_on(target):
            self._need_no_snapshots(holder, deadline)
            self.site.carry_out(
                lambda: machine.CreateSnapshot_Task(BOOKKEEPING_SNAPSHOT, "", False, False), deadline
            )  # neither memory nor quiesced: crash-consistent
        try:
            self.store.copy_disk(source, target, deadline)
        finally:
            if not self.site.goes_on(target):  # the disk has to stand still as long as it is read
                self._thaw(machine, deadline)

    def _need_no_snapshots(self, holder: Holder, deadline: Deadline) -> None:
        """Take back what an earlier try of ours left. Raises Refused when there are snapshots of somebody else."""
        if set(holder.snapshots) - {BOOKKEEPING_SNAPSHOT}:
            raise Refused("the machine that holds the volume has snapshots of somebody else's")
        if holder.snapshots:
            self._thaw(holder.machine, deadline)

    def _thaw(self, machine: Any, deadline: Deadline) -> None:
        left = deadline if deadline.remaining else Deadline(30)
        self.site.carry_out(lambda: machine.RemoveAllSnapshots_Task(True), left)


def counts(folder: Folder) -> bool:
    """Whether what is in the folder is whole."""
    return folder.whole is not None and children.size_of(folder) is not None


def identity_of(name: str) -> UUID | None:
    """The id that a folder is called after."""
    try:
        return UUID(name)
    except ValueError:
        return None
