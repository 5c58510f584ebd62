"""Volumes that stand on an image: children whose disk holds only what differs from it, made by a carrier.

It takes a moment and next to no room however large the image is. A child cannot grow and needs its image for ever, so
before it grows it is made to stand alone: copied whole beside itself, then put in its own place, each step found again
by a mark when a worker dies between them. The volume is there all the while, under one name or the other.
"""

from __future__ import annotations

from contextlib import suppress

from pyVmomi import vim

from drivers.api import Deadline, HostAtFault
from drivers.esxi import carriers
from drivers.esxi.store import DISK, Folder, Store, kib

CHILD = "child"
ALONE = "alone"
ALONE_DISK, OLD_DISK = "alone.vmdk", "old.vmdk"


def make(store: Store, parent: str, target: str, size_bytes: int, deadline: Deadline) -> None:
    """Make the disk ``target`` (relative) a child of ``parent`` (a whole path), which has that size."""
    with carriers.planned(store, deadline) as carrier:
        device = carriers.disk(store.path(target, deadline), parent=parent, capacity_kib=kib(size_bytes))
        machine = carriers.make(store, carrier, device, deadline, create=True)
        carriers.unregister(store.site, machine, deadline)


def is_child(folder: Folder) -> bool:
    """Whether the volume of that folder stands on an image."""
    return CHILD in folder.marks


def size_of(folder: Folder) -> tuple[int, int] | None:
    """Capacity and bytes taken of the volume in that folder."""
    return folder.disks.get(DISK) or (folder.disks.get(ALONE_DISK) if ALONE in folder.marks else None)


def stand_alone(store: Store, folder: str, found: Folder, deadline: Deadline) -> None:
    """Make the volume in ``folder`` depend on nothing. No machine may run on it.

    While the child's disk has its name, it is the truth and a copy beside it is of an earlier try; once that name is
    free, the copy is, and nothing could have written to either.
    """
    alone, disk, old = (f"{folder}/{name}" for name in (ALONE_DISK, DISK, OLD_DISK))
    if DISK in found.disks:
        if ALONE in found.marks:
            store.delete(f"{folder}/{ALONE}", deadline)
        if not store.site.goes_on(alone):
            store.delete_disk(alone, deadline)
        store.copy_disk(store.path(disk, deadline), alone, deadline)
        store.make_folder(f"{folder}/{ALONE}", deadline)
        store.delete_disk(old, deadline)
        store.move_disk(store.path(disk, deadline), store.path(old, deadline), deadline)
    settle(store, folder, deadline)


def is_between(folder: Folder) -> bool:
    """Whether a worker died over the volume after the child's disk gave way: no machine can start with it so."""
    return DISK not in folder.disks and size_of(folder) is not None


def settle(store: Store, folder: str, deadline: Deadline) -> None:
    """Put the copy that stands alone in its place, once the child's disk has given way."""
    alone, disk = store.path(f"{folder}/{ALONE_DISK}", deadline), store.path(f"{folder}/{DISK}", deadline)
    with suppress(vim.fault.FileNotFound):  # another worker was first
        store.move_disk(alone, disk, deadline)
    found = store.search(folder, deadline)[""]
    if DISK not in found.disks:
        raise HostAtFault("a volume's disk is gone while it was made to stand alone")
    for mark in (CHILD, *(each for each in found.marks if each.startswith("of_")), ALONE):
        store.delete(f"{folder}/{mark}", deadline)
    store.delete_disk(f"{folder}/{OLD_DISK}", deadline)
