"""Which machine holds which volume, on the whole host and whoever made the machine.

A disk is known by the folder of its file, or of the file that its chain of snapshots began with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import Deadline, Power, Transient
from drivers.esxi import carriers, reading
from drivers.esxi.site import Site


@dataclass(frozen=True, slots=True)
class Holder:
    """A machine, its device of the volume, its power, and the names of its snapshots."""

    machine: Any
    instance_uuid: str
    device: Any
    power: Power
    snapshots: tuple[str, ...]


NAMES = ("config.instanceUuid", "config.extraConfig", "config.hardware.device", "runtime.powerState", "snapshot")


def of(site: Site, volume_id: UUID, deadline: Deadline, *, carried: bool = False) -> Holder | None:
    """Who holds the volume, None when nobody does. A carrier is nobody; while one is at work on the volume, Transient
    is raised, unless ``carried`` says that it is no matter. One whose time is over is forgotten here.
    """
    found = site.every_machine(NAMES, deadline)
    carrying: list[tuple[Any, int]] = []
    for machine, properties in found:
        marks = reading.marks_of(properties)
        for device, held in reading.volume_devices(properties.get("config.hardware.device") or (), marks):
            if held != volume_id:
                continue
            until_s = carriers.until(properties)
            if until_s is None:
                power = reading.POWERS.get(str(properties.get("runtime.powerState")), Power.UNKNOWN)
                identity = str(properties.get("config.instanceUuid") or "")
                return Holder(machine, identity, device, power, tuple(_names(properties.get("snapshot"))))
            carrying.append((machine, until_s))
    for machine, until_s in () if carried else carrying:
        if until_s >= int(site.look(site.session.now, deadline).timestamp()):
            raise Transient(f"the volume {volume_id} is on its way out of the host")
        carriers.unregister(site, machine, deadline)
    return None


def _names(snapshots: Any) -> Iterator[str]:
    waiting = list(snapshots.rootSnapshotList or ()) if snapshots is not None else []
    while waiting:
        each = waiting.pop()
        waiting += each.childSnapshotList or ()
        yield str(each.name)


def networks(site: Site, deadline: Deadline) -> Iterator[tuple[str, str]]:
    """The (port group, MAC) of every NIC of every machine on the host: a name, or a distributed one's key."""
    found = site.look(
        lambda: reading.related(site.content, site.host, "vm", vim.VirtualMachine, ("config.hardware.device",)),
        deadline,
    )
    for _, properties in found:
        for key, device in reading.nics(properties.get("config.hardware.device") or ()):
            yield key, str(device.macAddress).lower()
