"""Plugging volumes into domains and out of them.

A disk is in a running domain's live definition, in its persistent one, or both; each is looked at and brought to the
state asked for, so that a call which died half-way is finished by the next. Unplugging is a request to the guest: it is
done when the live definition has lost the disk, and Transient until then.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import libvirt

from drivers.api import Deadline, Devices, DiskSpec, Refused, Transient
from drivers.kvm import files, holders, names, xml
from drivers.kvm.errors import found
from drivers.kvm.link import Link
from drivers.kvm.xml.common import strings
from drivers.kvm.xml.domain import has_vmware_devices

_ASK_AGAIN_SECONDS = 5.0
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG


def source(where: Any, disk: DiskSpec) -> xml.DiskSource:
    """The disk with its file. Raises Refused when there is no such volume or device name."""
    volume = files.whole(where, "volume", disk.volume_id)
    if volume is None:
        raise Refused(f"there is no volume {disk.volume_id} on this host")
    if not (disk.device.startswith("vd") and disk.device[2:].isascii() and disk.device[2:].isalpha()):
        raise Refused(f"{disk.device!r} is not the name of a virtio disk (vda, vdb ...)")
    return xml.DiskSource(disk, volume.path())


def check_free(connection: Any, disk: xml.DiskSource, machine_id: UUID) -> None:
    """Raises Refused when another domain has the volume."""
    for each in holders.of_file(connection, disk.path):
        if each.id != machine_id:
            raise Refused(f"volume {disk.spec.volume_id} is used by {each.domain.name()}")


def attach(link: Link, domain: Any, disk: DiskSpec, deadline: Deadline) -> None:
    """Plug it in, for now and for every start to come."""
    with link.only(deadline, "claims"):
        wanted = source(files.pool(link, deadline), disk)
        check_free(link.open(deadline), wanted, UUID(bytes=domain.UUID()))
        flags = 0
        for flag, there in _definitions(domain):
            if there.get(disk.volume_id, disk.device) != disk.device:
                raise Refused(f"volume {disk.volume_id} is already attached as {there[disk.volume_id]}")
            if disk.volume_id not in there:
                if disk.device in there.values():
                    raise Refused(f"the machine has another disk as {disk.device}")
                flags |= flag
        if flags:
            deadline.check("attaching a volume")
            vmware = has_vmware_devices(xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
            look = Devices.VMWARE if vmware else Devices.OWN
            domain.attachDeviceFlags(xml.text(xml.disk(wanted, link.options.disk_cache, devices=look)), flags)


def detach(link: Link, domain: Any, volume_id: UUID, deadline: Deadline) -> None:
    """Unplug it and wait for the guest, then forget it for the starts to come."""
    deadline.check("detaching a volume")
    alias = names.alias(volume_id)

    def is_gone() -> bool:
        return volume_id not in dict(_definitions(domain)).get(_LIVE, {})

    while not is_gone():
        # A guest that is starting may not have heard it, and one that has says so with an error: the look decides.
        found(lambda: domain.detachDeviceAlias(alias, _LIVE), "OPERATION_FAILED", "OPERATION_INVALID", "DEVICE_MISSING")
        if (
            not link.wait_until(is_gone, Deadline(min(_ASK_AGAIN_SECONDS, deadline.remaining)))
            and not deadline.remaining
        ):
            raise Transient(f"the guest did not let go of volume {volume_id}")
    if volume_id in dict(_definitions(domain))[_CONFIG]:
        found(lambda: domain.detachDeviceAlias(alias, _CONFIG), "DEVICE_MISSING")


def _definitions(domain: Any) -> list[tuple[int, dict[UUID, str]]]:
    """Volumes and device names in the persistent definition and, when the domain is active, in the live one."""
    answer = [(_CONFIG, _volumes(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))]
    if domain.isActive():
        answer.append((_LIVE, _volumes(domain.XMLDesc(0))))
    return answer


def _volumes(definition: str) -> dict[UUID, str]:
    there: dict[UUID, str] = {}
    for each in xml.parse(definition).iterfind("devices/disk"):
        paths, devices = strings(each, "source/@file"), strings(each, "target/@dev")
        file = names.pool_file(paths[0]) if paths else None
        if file is not None and file.kind == "volume" and devices:
            there[file.id] = devices[0]
    return there
