"""Snapshots: independent full copies of volumes, point in time even under a running machine.

A volume nobody runs on is copied by the host's storage layer. Under a running machine QEMU writes the copy (a push
backup): it shows the disk as it was when the job began. A copy is never a layer that others depend on.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import Capability, Deadline, Refused, Snapshot, Transient
from drivers.kvm import files, holders, xml
from drivers.kvm.errors import found, told
from drivers.kvm.holders import Holder
from drivers.kvm.link import Link
from drivers.kvm.names import PoolFile
from drivers.kvm.sources import Sources


def take(sources: Sources, volume_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Snapshot:
    """Make the copy, unless it is there."""
    link = sources.link

    def work(where: Any) -> None:
        disk = sources.look_up(volume_id, deadline)
        if disk is None:
            raise Refused(f"there is no volume {volume_id}")
        wanted = xml.text(xml.volume(f"snapshot-{snapshot_id}.qcow2", disk.size_bytes))
        running = [each for each in holders.of_file(link.open(deadline), disk.path) if each.active]
        deadline.check("copying a volume")
        if running:
            target = where.createXML(wanted, 0)
            with link.only(deadline, "backup", str(running[0].id)):
                _push(link, running[0], target.path(), deadline)
        else:
            with sources.readable(disk, deadline) as volume:
                where.createXMLFrom(wanted, volume, 0)

    with told(f"making snapshot {snapshot_id}", Capability.VOLUME_SNAPSHOT):
        files.make(link, PoolFile("snapshot", snapshot_id, "qcow2"), work, deadline)
        copy = files.whole(files.pool(link, deadline), "snapshot", snapshot_id)
        sizes = files.info(copy) if copy is not None else None
    if sizes is None:
        raise Transient(f"snapshot {snapshot_id} went away while it was looked at")
    return Snapshot(snapshot_id, sizes[0])


def remove(link: Link, snapshot_id: UUID, deadline: Deadline) -> None:
    """Delete the copy."""
    with told(f"removing snapshot {snapshot_id}", Capability.VOLUME_SNAPSHOT):
        files.remove(files.pool(link, deadline), "snapshot", snapshot_id)


def everything(link: Link, deadline: Deadline) -> Sequence[Snapshot]:
    """Every whole snapshot of ours."""
    with told("listing snapshots", Capability.VOLUME_SNAPSHOT):
        there = files.all_whole(files.pool(link, deadline), "snapshot")
        sized = [(file, files.info(volume)) for file, volume in there]
    return [Snapshot(file.id, sizes[0]) for file, sizes in sized if sizes]


def _push(link: Link, holder: Holder, path: str, deadline: Deadline) -> None:
    """Have QEMU copy the disk into the existing file at ``path`` and wait for it; ended early, the job is ended."""
    others = [each for each in holder.devices if each != holder.device]
    job = xml.text(xml.backup(holder.device, others, path))
    holder.domain.backupBegin(job, None, libvirt.VIR_DOMAIN_BACKUP_BEGIN_REUSE_EXTERNAL)

    def is_over() -> bool:
        return bool(holder.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE)

    if not link.wait_until(is_over, deadline):
        with suppress(libvirt.libvirtError):  # it may end by itself at this very moment
            holder.domain.abortJob()
        raise Transient("the deadline passed while the running machine's disk was copied")
    stats = found(lambda: holder.domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED), "OPERATION_INVALID")
    if (
        not stats
        or stats.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP
        or not stats.get("success", False)
    ):
        raise Transient("the copy of a running machine's disk did not come to its end")
