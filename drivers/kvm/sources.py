"""Disks that can be read: volumes of our pool, and disks of adopted machines, whose files lie anywhere on the host.

An empty layer of our own over an adopted disk's file (path and format are the domain's own, never probed) is a volume
of our pool like any other: copying it reads what lies below. Nothing is written to the disk, and the layer goes again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import Deadline, Refused
from drivers.kvm import files, holders, xml
from drivers.kvm.errors import found
from drivers.kvm.link import Link
from drivers.kvm.names import PoolFile
from drivers.kvm.register import Register
from drivers.kvm.xml.foreign import domain_disks

_CLEAR_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Source:
    """A disk: its path on the host, its size, and either the volume of our pool or the format of an adopted one."""

    id: UUID
    path: str
    size_bytes: int
    volume: Any = None
    format: str = "qcow2"


@dataclass(frozen=True, slots=True)
class Sources:
    """The disks of one host."""

    link: Link
    register: Register

    def look_up(self, volume_id: UUID, deadline: Deadline) -> Source | None:
        """The whole volume or the adopted disk of that id."""
        where = files.pool(self.link, deadline)
        volume = files.whole(where, "volume", volume_id)
        sizes = files.info(volume) if volume is not None else None
        if volume is not None and sizes is not None:
            return Source(volume_id, volume.path(), sizes[0], volume)
        record = self.register.of_volume(where, volume_id)
        return None if record is None else self._adopted(record.domain, record.disks[volume_id][0], volume_id, deadline)

    def _adopted(self, domain_id: UUID, key: str, volume_id: UUID, deadline: Deadline) -> Source:
        connection = self.link.open(deadline)
        domain = found(lambda: connection.lookupByUUIDString(str(domain_id)), "NO_DOMAIN")
        if domain is None:
            raise Refused(f"the machine of the disk {volume_id} is gone from this host")
        for each in domain_disks(xml.parse(domain.XMLDesc(0))):
            if each.key == key and each.path is not None and each.obstacle is None:
                return Source(volume_id, each.path, int(domain.blockInfo(key)[0]), format=each.format)
        raise Refused(f"the machine has no disk {key} any more that could be read")

    def need_still(self, source: Source, deadline: Deadline) -> None:
        """Raise Refused when a machine writes to the disk, or would go on from memory that knows it."""
        held = holders.of_file(self.link.open(deadline), source.path)
        if any(each.active or each.domain.hasManagedSaveImage(0) for each in held):
            raise Refused(f"the machine of the volume {source.id} is not off: export a snapshot of it")

    @contextmanager
    def readable(self, source: Source, deadline: Deadline) -> Iterator[Any]:
        """A volume of our pool that shows what is on the disk, for a while; nothing may write to it meanwhile."""
        if source.volume is not None:
            yield source.volume
            return
        where = files.pool(self.link, deadline)
        clear(where, source.id)
        name = str(PoolFile("overlay", source.id, "qcow2"))
        wanted = xml.volume(name, source.size_bytes, backing=(source.path, source.format))
        try:
            yield where.createXML(xml.text(wanted), 0)
        finally:
            with suppress(libvirt.libvirtError):  # what stays goes next time, or when the machine goes back
                clear(files.pool(self.link, Deadline(_CLEAR_SECONDS)), source.id)


def clear(where: Any, volume_id: UUID) -> None:
    """Delete what is left of a layer over that disk."""
    files.delete(where, PoolFile("overlay", volume_id, "qcow2"))
