"""Volumes and snapshots: thin VMDKs in folders of their own, which count once they are whole.

A volume from an image or a snapshot is a full copy; a mark in its folder's name tells its image, so that the image is
not removed under it. A volume that a machine holds grows through that machine. A snapshot of a volume in use is copied
from the disk that a machine's own snapshot froze, and the machine's snapshot is taken back at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import Deadline, Power, Refused, Snapshot, Transient, Volume, VolumeSpec
from drivers.esxi import holders
from drivers.esxi.holders import Holder
from drivers.esxi.images import Images
from drivers.esxi.site import Site, verb
from drivers.esxi.store import DISK, WHOLE, Folder, Store, kib

VOLUMES, SNAPSHOTS = "volumes", "snapshots"
BOOKKEEPING_SNAPSHOT = "stratograph-copy"


class EsxiVolumes(Images):
    """See :class:`drivers.api.Volumes`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.store = Store(site)

    @verb
    def ensure(self, spec: VolumeSpec, deadline: Deadline) -> Volume:
        """See :meth:`drivers.api.Volumes.ensure`."""
        if spec.image_id is not None and spec.snapshot_id is not None:
            raise Refused("a volume has at most one source")
        if spec.size_bytes <= 0:
            raise Refused("a volume needs a size")
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
        with self.site.only(deadline, "claims"):
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
        with self.site.only(deadline, "claims"):
            there = self._look(VOLUMES, volume_id, deadline)
            if there is None:
                raise Refused(f"there is no volume {volume_id} on this host")
            if there[0] < size_bytes:
                holder = holders.of(self.site, volume_id, deadline)
                if holder is None:
                    self.store.extend_disk(f"{VOLUMES}/{volume_id}/{DISK}", size_bytes, deadline)
                else:
                    self._extend_held(holder, size_bytes, deadline)
                there = self._look(VOLUMES, volume_id, deadline) or there
            return Volume(volume_id, *there)

    # ------------------------------------------------------------------------------------- snapshots

    @verb
    def snapshot(self, volume_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Snapshot:
        """See :meth:`drivers.api.Snapshots.snapshot`."""
        with self.site.only(deadline, "snapshot", str(snapshot_id)), self.site.only(deadline, "copy", str(volume_id)):
            there = self._look(SNAPSHOTS, snapshot_id, deadline)
            if there is None:
                source = self._look(VOLUMES, volume_id, deadline)
                if source is None:
                    raise Refused(f"there is no volume {volume_id} on this host")
                if not self.site.goes_on(f"{SNAPSHOTS}/{snapshot_id}/{DISK}"):
                    self._begin(SNAPSHOTS, snapshot_id, deadline)
                self._copy_still(volume_id, f"{SNAPSHOTS}/{snapshot_id}/{DISK}", deadline)
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

    def _look(self, kind: str, identity: UUID, deadline: Deadline) -> tuple[int, int] | None:
        """Capacity and bytes taken, None when there is no whole one."""
        found = self.store.search(f"{kind}/{identity}", deadline).get("")
        return found.disks[DISK] if found is not None and counts(found) else None

    def _every(self, kind: str, deadline: Deadline) -> Sequence[tuple[UUID, tuple[int, int]]]:
        found = self.store.search(kind, deadline)
        named = [(identity_of(name), folder) for name, folder in found.items() if counts(folder)]
        return [(each, folder.disks[DISK]) for each, folder in named if each is not None]

    def _begin(self, kind: str, identity: UUID, deadline: Deadline) -> None:
        """An empty folder, where an earlier try may have left something."""
        self.store.delete(f"{kind}/{identity}", deadline)
        self.store.make_folder(f"{kind}/{identity}", deadline)

    def _make(self, spec: VolumeSpec, deadline: Deadline) -> None:
        source, mark = None, WHOLE
        if spec.image_id is not None:
            source, mark = self.image_folder(spec.image_id), f"{WHOLE}_{spec.image_id}"
            self._check_source(source, spec.size_bytes, "image", deadline)
        elif spec.snapshot_id is not None:
            source = f"{SNAPSHOTS}/{spec.snapshot_id}"
            self._check_source(source, spec.size_bytes, "snapshot", deadline)
        disk = f"{VOLUMES}/{spec.id}/{DISK}"
        if not self.site.goes_on(disk):
            self._begin(VOLUMES, spec.id, deadline)
        if source is None:
            self.store.create_disk(disk, spec.size_bytes, deadline)
        else:
            self.store.copy_disk(f"{source}/{DISK}", disk, deadline)
            if self.store.search(f"{VOLUMES}/{spec.id}", deadline)[""].disks[DISK][0] < spec.size_bytes:
                self.store.extend_disk(disk, spec.size_bytes, deadline)
        self.store.make_folder(f"{VOLUMES}/{spec.id}/{mark}", deadline)

    def _check_source(self, folder: str, size_bytes: int, kind: str, deadline: Deadline) -> None:
        found = self.store.search(folder, deadline).get("")
        if found is None or not counts(found):
            raise Refused(f"there is no {kind} {folder.rpartition('/')[2]} on this host")
        if found.disks[DISK][0] > kib(size_bytes) * 1024:
            raise Refused(f"the volume would be smaller than its {kind}")

    def _extend_held(self, holder: Holder, size_bytes: int, deadline: Deadline) -> None:
        self._need_no_snapshots(holder, deadline)
        holder.device.capacityInKB = kib(size_bytes)
        holder.device.capacityInBytes = None
        change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=holder.device)
        spec = vim.vm.ConfigSpec(deviceChange=[change])
        self.site.carry_out(lambda: holder.machine.ReconfigVM_Task(spec), deadline)

    def _copy_still(self, volume_id: UUID, target: str, deadline: Deadline) -> None:
        """Copy the volume while nothing writes to the disk that is read."""
        holder = holders.of(self.site, volume_id, deadline)
        source = f"{VOLUMES}/{volume_id}/{DISK}"
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
    return folder.whole is not None and DISK in folder.disks


def identity_of(name: str) -> UUID | None:
    """The id that a folder is called after."""
    try:
        return UUID(name)
    except ValueError:
        return None
