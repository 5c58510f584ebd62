"""What a host tells of many machines at once, read from its XML with no object in between that nobody looks at.

The SDK makes an object of every element, a keyboard's and a bus's too: 1.3 ms of our processor for each machine, ten
times what the host needs to tell it. Of a machine's devices only the disks are wanted here, so this takes the bytes,
lets the standard library's parser build its tree, and picks. Requests, sessions, faults and their errors are the SDK's
and those of ``session.py``; what is found has the very form in which ``reading.py`` finds it. Only the properties of
:data:`FORMS` can be asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET
from xml.parsers.expat import ExpatError

from pyVmomi import Iso8601, vim, vmodl

from drivers.esxi.reading import Properties
from drivers.esxi.session import Session

V = "{urn:vim25}"
TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
DISK = "VirtualDisk"
Found = tuple[Any, Properties]


def related(session: Session, start: Any, path: str, names: Sequence[str], page: int) -> list[Found]:
    """The machines in property ``path`` of ``start``, each with those of the properties that are set."""
    collector = vmodl.query.PropertyCollector
    way = collector.TraversalSpec(name="way", type=type(start), path=path, skip=False)
    return _read(session, [collector.ObjectSpec(obj=start, skip=True, selectSet=[way])], names, page)


def everywhere(session: Session, names: Sequence[str], page: int) -> list[Found]:
    """Every machine of the inventory."""
    view = session.content.viewManager.CreateContainerView(session.content.rootFolder, [vim.VirtualMachine], True)
    try:
        return related(session, view, "view", names, page)
    finally:
        view.DestroyView()


def several(session: Session, machines: Sequence[Any], names: Sequence[str], page: int) -> list[Found]:
    """These machines. Raises ManagedObjectNotFound when one of them is gone."""
    collector = vmodl.query.PropertyCollector
    return _read(session, [collector.ObjectSpec(obj=each) for each in machines], names, page)


def _read(session: Session, objects: Sequence[Any], names: Sequence[str], page: int) -> list[Found]:
    kinds, collector = vmodl.query.PropertyCollector, session.content.propertyCollector
    wish = kinds.PropertySpec(type=vim.VirtualMachine, all=False, pathSet=list(names))
    spec = kinds.FilterSpec(objectSet=list(objects), propSet=[wish])
    forms = {name: FORMS[name] for name in names}
    answer = session.answer(collector, "RetrievePropertiesEx", [spec], kinds.RetrieveOptions(maxObjects=page))
    found: list[Found] = []
    while True:
        told = _result(answer)
        if told is None:
            if not found:
                session.check()  # an old host tells nothing when the session has ended
            return found
        found += [(session.managed(vim.VirtualMachine, ref), seen) for ref, seen in _objects(told, forms)]
        token = told.findtext(f"{V}token")
        if not token:
            return found
        answer = session.answer(collector, "ContinueRetrievePropertiesEx", token)


def _result(answer: bytes) -> ET.Element | None:
    try:
        root = ET.fromstring(answer)  # noqa: S314 - expat bounds what entities may grow to, and the SDK reads with it too
    except ET.ParseError as error:
        raise ExpatError(str(error)) from error
    return root.find(f".//{V}returnval")


def _objects(told: ET.Element, forms: Mapping[str, Callable[[ET.Element], Any]]) -> Iterator[tuple[str, Properties]]:
    for each in told.iterfind(f"{V}objects"):
        for hole in each.iterfind(f"{V}missingSet/{V}fault/{V}fault"):
            if _type(hole) == "NotAuthenticated":
                raise vim.fault.NotAuthenticated
        seen = {}
        for held in each.iterfind(f"{V}propSet"):
            name, value = held.findtext(f"{V}name") or "", held.find(f"{V}val")
            if value is not None:
                seen[name] = forms[name](value)
        yield each.findtext(f"{V}obj") or "", seen


def _type(element: ET.Element) -> str:
    return element.get(TYPE, "").rpartition(":")[2]


def _text(value: ET.Element) -> str:
    return value.text or ""


def _number(value: ET.Element) -> int:
    return int(_text(value))


def _moment(value: ET.Element) -> Any:
    return Iso8601.ParseISO8601(_text(value))


def _options(value: ET.Element) -> list[Any]:
    return [
        vim.option.OptionValue(key=each.findtext(f"{V}key") or "", value=each.findtext(f"{V}value") or "")
        for each in value
    ]


def _disks(value: ET.Element) -> list[Any]:
    return [_disk(each) for each in value if _type(each) == DISK]


def _disk(device: ET.Element) -> Any:
    unit, backing = device.findtext(f"{V}unitNumber"), device.find(f"{V}backing")
    return vim.vm.device.VirtualDisk(
        key=int(device.findtext(f"{V}key") or 0),
        unitNumber=int(unit) if unit is not None else None,
        backing=_chain(backing) if backing is not None else None,
    )


def _chain(backing: ET.Element) -> Any:
    """The files of a disk, the newest first, whatever kind of file they are."""
    parent = backing.find(f"{V}parent")
    return vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=backing.findtext(f"{V}fileName") or "",
        diskMode=backing.findtext(f"{V}diskMode") or "",
        parent=_chain(parent) if parent is not None else None,
    )


FORMS: Mapping[str, Callable[[ET.Element], Any]] = {
    "name": _text,
    "config.instanceUuid": _text,
    "config.changeVersion": _text,
    "config.extraConfig": _options,
    "config.hardware.numCPU": _number,
    "config.hardware.memoryMB": _number,
    "config.hardware.device": _disks,
    "runtime.powerState": _text,
    "runtime.connectionState": _text,
    "runtime.bootTime": _moment,
    "summary.quickStats.guestMemoryUsage": _number,
}
"""What is told of a property, by its path. Of the devices: the disks, with their files and nothing else."""
