"""Reads many properties of many objects in few calls, and turns them into the driver's values.

One RetrievePropertiesEx a page, never a property at a time. A dead session hides in the answer (a missingSet full of
NotAuthenticated, or no objects at all from an old host): both are raised as NotAuthenticated, so that the session logs
in and asks again. The functions on the found values are pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from pyVmomi import vim, vmodl

from drivers.api import HostFacts, Machine, Power

PAGE = 500
MIB = 1024**2
GIB = 1024**3
MARK = "stratograph.id"
NAME_MARK = "stratograph.name"
DISK_MARK = "stratograph.disk."
ADOPTED_MARK = "stratograph.adopted."
PREFIX = "stratograph."
VOLUME_PATH = re.compile(r"/volumes/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/")
POWERS = {"poweredOn": Power.RUNNING, "poweredOff": Power.OFF, "suspended": Power.SUSPENDED}
SHOWN = (
    "name",
    "config.instanceUuid",
    "config.extraConfig",
    "config.hardware.numCPU",
    "config.hardware.memoryMB",
    "config.hardware.device",
    "runtime.powerState",
    "runtime.connectionState",
)
"""What :func:`our_machine` is made of."""
MACHINE = (*SHOWN, "snapshot")
TOOLS = ("guest.toolsRunningStatus", "runtime.powerState")
"""Whether VMware's tools answer in the guest; what was last said of them stays while it is off."""
SAMPLE = ("runtime.bootTime", "summary.quickStats.guestMemoryUsage")
HOST = (
    "name",
    "summary.hardware.numCpuThreads",
    "summary.hardware.memorySize",
    "summary.hardware.cpuModel",
    "summary.config.product.version",
    "summary.config.product.build",
    "summary.runtime.connectionState",
)

Properties = Mapping[str, Any]


def related(content: Any, start: Any, path: str, kind: type, names: tuple[str, ...]) -> list[tuple[Any, Properties]]:
    """The objects of that kind in property ``path`` of ``start``, each with those of the properties that are set."""
    collector = vmodl.query.PropertyCollector
    way = collector.TraversalSpec(name="way", type=type(start), path=path, skip=False)
    objects = collector.ObjectSpec(obj=start, skip=True, selectSet=[way])
    return _read(content, objects, kind, names)


def one(content: Any, target: Any, names: tuple[str, ...]) -> Properties:
    """Those of the object's properties that are set."""
    found = _read(content, vmodl.query.PropertyCollector.ObjectSpec(obj=target), type(target), names)
    return found[0][1] if found else {}


def hosts(content: Any) -> list[tuple[Any, Properties]]:
    """Every host of the inventory: one on ESXi, all on vCenter."""
    return everywhere(content, vim.HostSystem, ("name",))


def everywhere(content: Any, kind: type, names: tuple[str, ...]) -> list[tuple[Any, Properties]]:
    """Every object of that kind in the whole inventory."""
    view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
    try:
        return related(content, view, "view", kind, names)
    finally:
        view.DestroyView()


def facts_of(host: Properties, datastores: list[Properties]) -> HostFacts:
    """What a host says of itself. Raises ValueError when it leaves out what every host has."""
    capacity = sum(int(each["summary.capacity"]) for each in datastores if each.get("summary.accessible"))
    threads, memory = host.get("summary.hardware.numCpuThreads"), host.get("summary.hardware.memorySize")
    if not threads or not memory:
        raise ValueError("a host without processors or memory")
    version, build = host.get("summary.config.product.version"), host.get("summary.config.product.build")
    return HostFacts(
        hypervisor="ESXi",
        version=f"{version or 'unknown'} build {build or 'unknown'}",
        vcpus=int(threads),
        ram_mib=int(memory) // MIB,
        disk_gib=capacity // GIB,
        architecture="x86_64",
        cpu_model=host.get("summary.hardware.cpuModel"),
    )


def marks_of(found: Properties) -> dict[str, Any]:
    """What extraConfig says; a key that was emptied says nothing."""
    return {each.key: each.value for each in found.get("config.extraConfig") or ()}


def is_ours(found: Properties) -> bool:
    """Whether the machine carries our mark and the mark names its own id; a copy by somebody else does not."""
    identity = found.get("config.instanceUuid")
    return bool(identity) and str(marks_of(found).get(MARK, "")).lower() == str(identity).lower()


def our_machine(found: Properties) -> Machine | None:
    """The machine, if it is ours."""
    if not is_ours(found):
        return None
    marks, identity = marks_of(found), found["config.instanceUuid"]
    connected = found.get("runtime.connectionState") == "connected"
    power = POWERS.get(str(found.get("runtime.powerState")), Power.UNKNOWN) if connected else Power.UNKNOWN
    return Machine(
        id=UUID(str(identity)),
        name=str(marks.get(NAME_MARK) or found.get("name")),
        power=power,
        vcpus=int(found.get("config.hardware.numCPU") or 0),
        ram_mib=int(found.get("config.hardware.memoryMB") or 0),
        volumes=dict(_volumes(found.get("config.hardware.device") or (), marks)),
        reason=None if connected else str(found.get("runtime.connectionState")),
    )


def volume_devices(devices: Any, marks: Mapping[str, Any] | None = None) -> Iterator[tuple[Any, UUID]]:
    """The disks that are volumes of ours, known by the folder of the newest file of their chain that is a volume's:
    above it are snapshots, below it is the image that it stands on. With the machine's ``marks`` also those that were
    adopted with it where they lie, known by their device keys.
    """
    adopted = {str(key): name for name, key in (marks or {}).items() if key and name.startswith(ADOPTED_MARK)}
    for device in devices:
        if not isinstance(device, vim.vm.device.VirtualDisk):
            continue
        if str(device.key) in adopted:
            yield device, UUID(adopted[str(device.key)].removeprefix(ADOPTED_MARK))
            continue
        backing = getattr(device, "backing", None)
        while backing is not None:
            match = VOLUME_PATH.search(str(getattr(backing, "fileName", None) or ""))
            if match:
                yield device, UUID(match.group(1))
                break
            backing = getattr(backing, "parent", None)


def nics(devices: Any) -> Iterator[tuple[str, Any]]:
    """The network cards, each with where it is plugged in: a port group's name, or a distributed one's key."""
    cards = vim.vm.device.VirtualEthernetCard
    for device in devices:
        backing = device.backing if isinstance(device, cards) else None
        if isinstance(backing, cards.NetworkBackingInfo):
            yield str(backing.deviceName), device
        elif isinstance(backing, cards.DistributedVirtualPortBackingInfo):
            yield str(backing.port.portgroupKey), device


def _volumes(devices: Any, marks: Mapping[str, Any]) -> Iterator[tuple[UUID, str]]:
    """Volumes with the name they were attached by, else the one a guest's kernel gives a disk of that unit number."""
    for device, volume_id in volume_devices(devices, marks):
        unit = int(device.unitNumber or 0)
        yield volume_id, str(marks.get(f"{DISK_MARK}{volume_id}") or f"sd{chr(ord('a') + unit % 26)}")


def _read(content: Any, objects: Any, kind: type, names: tuple[str, ...]) -> list[tuple[Any, Properties]]:
    collector = content.propertyCollector
    wish = vmodl.query.PropertyCollector.PropertySpec(type=kind, all=False, pathSet=list(names))
    spec = vmodl.query.PropertyCollector.FilterSpec(objectSet=[objects], propSet=[wish])
    options = vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=PAGE)
    page = collector.RetrievePropertiesEx([spec], options)
    if page is None and content.sessionManager.currentSession is None:
        raise vim.fault.NotAuthenticated
    found: list[tuple[Any, Properties]] = []
    while page is not None:
        for each in page.objects:
            for hole in each.missingSet or ():
                if isinstance(hole.fault, vim.fault.NotAuthenticated):
                    raise hole.fault
            found.append((each.obj, {item.name: item.val for item in each.propSet or ()}))
        page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
    return found
