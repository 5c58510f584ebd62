"""Snapshots of whole machines: libvirt's internal ones, kept inside the disks' own qcow2 files.

So a volume stays the one file that it is, and removing a snapshot leaves no chain behind. libvirt snapshots a running
machine with its memory only: one that is asked for without is made with it all the same, marked, and its memory is
never run again. A name tells our id, a description what was asked for; snapshots that others made are left alone. UEFI
machines cannot have any here: their variables lie in a raw file, which libvirt 9 does not snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import Deadline, MachineSnapshot, Refused, Transient
from drivers.kvm import guests, names, power, xml
from drivers.kvm.errors import found
from drivers.kvm.xml.common import E, Element, strings

_MEMORY, _DISKS, _QUIESCED = "memory", "disks", "disks, quiesced"
_ABSENT = ("NO_DOMAIN_SNAPSHOT", "NO_DOMAIN")
_PARENTS_FIRST = libvirt.VIR_DOMAIN_SNAPSHOT_LIST_TOPOLOGICAL
_PAUSED = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_PAUSED | libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE
_RUNNING = libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING | libvirt.VIR_DOMAIN_SNAPSHOT_REVERT_FORCE


def make(domain: Any, snapshot_id: UUID, deadline: Deadline, *, memory: bool, quiesce: bool) -> MachineSnapshot:
    """Make one, unless it is there."""
    if _look_up(domain, snapshot_id) is None:
        power.check_not_suspended(domain)
        runs = bool(domain.isActive())
        deadline.check("snapshotting a machine")
        if runs and quiesce and not memory:
            with guests.held_still(domain, deadline) as still:
                _take(domain, snapshot_id, _QUIESCED if still else _DISKS)
        else:
            _take(domain, snapshot_id, _MEMORY if memory and runs else _DISKS)
    seen = next((each for each in every(domain) if each.id == snapshot_id), None)
    if seen is None:
        raise Transient("the snapshot went away as soon as it was made")
    return seen


def _take(domain: Any, snapshot_id: UUID, kind: str) -> None:
    plan = E.domainsnapshot(E.name(names.alias(snapshot_id)), E.description(kind))
    domain.snapshotCreateXML(xml.text(plan), 0)


def revert(domain: Any, snapshot_id: UUID, deadline: Deadline) -> None:
    """Bring disks and memory back. Raises Refused when there is no such snapshot."""
    snapshot = _look_up(domain, snapshot_id)
    if snapshot is None:
        raise Refused(f"the machine has no snapshot {snapshot_id}")
    power.cut(domain)  # what it does now is lost in any case, and memory that was saved earlier goes with it
    deadline.check("reverting a machine")
    described = xml.parse(snapshot.getXMLDesc(0))
    if _kind(described) == _MEMORY:
        domain.revertToSnapshot(snapshot, _RUNNING)
    elif strings(described, "state/text()") == ["shutoff"]:
        domain.revertToSnapshot(snapshot, 0)
    else:  # its memory comes back with it, and goes again without having run
        domain.revertToSnapshot(snapshot, _PAUSED)
        power.cut(domain)


def remove(domain: Any, snapshot_id: UUID, deadline: Deadline) -> None:
    """Forget one; libvirt gives its children to its parent."""
    snapshot = _look_up(domain, snapshot_id)
    if snapshot is not None:
        deadline.check("removing a snapshot")
        found(lambda: snapshot.delete(0), *_ABSENT)


def every(domain: Any) -> Sequence[MachineSnapshot]:
    """Those of ours, parents before children, each under the nearest above it that is ours."""
    return found(lambda: _ours(domain), *_ABSENT) or []


def check_none(domain: Any) -> None:
    """Raise Refused for a domain that has snapshots, whoever made them: they remember its devices and their sizes."""
    if domain.snapshotNum(0):
        raise Refused("the machine has snapshots; remove them first")


def drop_all(domain: Any) -> None:
    """Remove what all snapshots of a domain that is off, ours or not, hold in its disks."""
    for each in reversed(found(lambda: domain.listAllSnapshots(_PARENTS_FIRST), "NO_DOMAIN") or []):
        found(lambda snapshot=each: snapshot.delete(0), *_ABSENT)  # type: ignore[misc]  # mypy: default of a lambda


def _look_up(domain: Any, snapshot_id: UUID) -> Any | None:
    return found(lambda: domain.snapshotLookupByName(names.alias(snapshot_id), 0), "NO_DOMAIN_SNAPSHOT")


def _ours(domain: Any) -> list[MachineSnapshot]:
    current = domain.snapshotCurrent(0).getName() if domain.hasCurrentSnapshot(0) else None
    nearest: dict[str, UUID | None] = {}
    seen: list[MachineSnapshot] = []
    for each in domain.listAllSnapshots(_PARENTS_FIRST):
        described, name = xml.parse(each.getXMLDesc(0)), each.getName()
        parent = nearest.get(next(iter(strings(described, "parent/name/text()")), ""))
        our_id = names.from_alias(name)
        nearest[name] = our_id or parent
        if our_id is not None:
            kind = _kind(described)
            seen.append(MachineSnapshot(our_id, parent, kind == _MEMORY, name == current, kind == _QUIESCED))
    return seen


def _kind(described: Element) -> str:
    """What was asked for when it was made, by its description."""
    return next(iter(strings(described, "description/text()")), "")
