"""Which machine holds which volume, on the whole host and whoever made the machine.

A disk is known by the folder of its file, or of the file that its chain of snapshots began with. Every machine is asked
for the version of its configuration, and for its disks only where that is another than when they were last read, or not
told. So a host with thousands of machines tells a few hundred bytes of each, and whoever is found is read once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pyVmomi import vim, vmodl

from drivers.api import Deadline, Power, Transient
from drivers.esxi import bulk, carriers, reading
from drivers.esxi.site import Site, reference


@dataclass(frozen=True, slots=True)
class Holder:
    """A machine, its device of the volume, its power, and the names of its snapshots."""

    machine: Any
    instance_uuid: str
    device: Any
    power: Power
    snapshots: tuple[str, ...]


VERSION = "config.changeVersion"
DISKS = ("config.extraConfig", "config.hardware.device")
FEWER, MANY = 500, 5000
NAMES = ("config.instanceUuid", "config.extraConfig", "config.hardware.device", "runtime.powerState", "snapshot")


def of(site: Site, volume_id: UUID, deadline: Deadline, *, carried: bool = False) -> Holder | None:
    """Who holds the volume, None when nobody does. A carrier is nobody; while one is at work on the volume, Transient
    is raised, unless ``carried`` says that it is no matter. One whose time is over is forgotten here.
    """
    carrying: list[tuple[Any, int]] = []
    for machine in _with(site, volume_id, deadline):
        properties = _one(site, machine, deadline)
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


def _with(site: Site, volume_id: UUID, deadline: Deadline) -> list[Any]:
    """The machines that have the volume, as far as the versions of their configurations tell."""
    known = site.holdings
    seen = {at: found.get(VERSION) for at, found in site.every_machine((VERSION,), MANY, deadline)}
    stale = [at for at, version in seen.items() if not version or known.get(reference(at), ("",))[0] != version]
    holdings = {reference(at): known[reference(at)] for at in seen.keys() - set(stale)}
    for at, found in _disks(site, stale, deadline):
        held = reading.volume_devices(found.get("config.hardware.device") or (), reading.marks_of(found))
        holdings[reference(at)] = (str(found.get(VERSION) or ""), frozenset(volume for _, volume in held))
    site.holdings = holdings
    session = site.session
    return [session.managed(vim.VirtualMachine, ref) for ref, (_, held) in holdings.items() if volume_id in held]


def _disks(site: Site, machines: list[Any], deadline: Deadline) -> list[bulk.Found]:
    """These machines' disks, each with the version that it was read at; of all machines when one of them went."""
    if not machines:
        return []
    names = (VERSION, *DISKS)
    try:
        return site.look(lambda: bulk.several(site.session, machines, names, FEWER), deadline)
    except vmodl.fault.ManagedObjectNotFound:
        return site.every_machine(names, FEWER, deadline)


def _one(site: Site, machine: Any, deadline: Deadline) -> reading.Properties:
    try:
        return site.look(lambda: reading.one(site.content, machine, NAMES), deadline)
    except vmodl.fault.ManagedObjectNotFound:
        return {}  # it went meanwhile


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
