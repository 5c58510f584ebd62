"""Carriers: machines that never run, for a host gives out, takes in and links disks only as part of a machine.

A carrier lives for one step. Its id is its instance UUID, so that one whose making was not answered is found; a mark in
its configuration and in its folder's name says until when it is wanted, by the host's clock. What a worker that died
left of one is taken away by :func:`collect`, which every import and export begins with. It is never one of our machines
(those carry another mark), and taking it away never deletes a disk outside its own folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from pyVmomi import vim, vmodl

from drivers.api import Deadline, DriverError
from drivers.esxi import reading
from drivers.esxi.errors import as_driver_errors
from drivers.esxi.session import LostAnswerError
from drivers.esxi.site import Site
from drivers.esxi.store import DISK, Store

CARRIERS = "carriers"
MARK = "stratograph.carrier"
UNTIL = "until_"
SPARE_S = 600
"""How long after its caller's deadline a carrier is still left alone: a lease of the host may hold it that long."""
CLEAN_S = 30.0
NAMES = ("config.instanceUuid", "config.extraConfig")
CONTROLLER_KEY, DISK_KEY = -100, -101


@dataclass(frozen=True, slots=True)
class Carrier:
    """One carrier to be: its id, its folder, and until when it is wanted (seconds since 1970 on the host's clock)."""

    id: UUID
    until_s: int

    @property
    def folder(self) -> str:
        """Where it lies, relative to the host's root folder."""
        return f"{CARRIERS}/{self.id}"

    @property
    def disk(self) -> str:
        """Where a disk of its own lies."""
        return f"{self.folder}/{DISK}"


@contextmanager
def planned(store: Store, deadline: Deadline) -> Iterator[Carrier]:
    """A carrier's id and folder; on leaving, machine and folder are gone as far as the host answers."""
    site = store.site
    now_s = int(site.look(site.session.now, deadline).timestamp())
    carrier = Carrier(uuid4(), now_s + int(deadline.remaining) + SPARE_S)
    store.make_folder(f"{carrier.folder}/{UNTIL}{carrier.until_s}", deadline)
    try:
        yield carrier
    finally:
        left = deadline if deadline.remaining > CLEAN_S else Deadline(CLEAN_S)
        with suppress(DriverError), as_driver_errors():  # what stays is collected later
            drop(store, carrier.id, left)


def config(carrier: Carrier, vmx: str, disk: Any, *, create: bool) -> Any:
    """The machine's document: one disk and nothing else. ``create``: the disk is made with it."""
    controller = vim.vm.device.VirtualLsiLogicController(key=CONTROLLER_KEY, busNumber=0, sharedBus="noSharing")
    made = vim.vm.device.VirtualDeviceSpec(
        operation="add", device=disk, fileOperation="create" if create else None
    )  # fmt: skip
    return vim.vm.ConfigSpec(
        name=f"stratograph-carrier-{carrier.id}",
        guestId="otherLinux64Guest",
        numCPUs=1,
        memoryMB=32,
        instanceUuid=str(carrier.id),
        files=vim.vm.FileInfo(vmPathName=vmx),
        extraConfig=[vim.option.OptionValue(key=MARK, value=str(carrier.until_s))],
        deviceChange=[vim.vm.device.VirtualDeviceSpec(operation="add", device=controller), made],
    )


def disk(path: str, *, capacity_kib: int = 0, parent: str | None = None, thin: bool = True) -> Any:
    """A carrier's disk as a device; ``parent`` makes it a child of that disk."""
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=path, diskMode="persistent")
    if thin:
        backing.thinProvisioned = True
    if parent is not None:
        backing.parent = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=parent, diskMode="persistent")
    return vim.vm.device.VirtualDisk(
        key=DISK_KEY, controllerKey=CONTROLLER_KEY, unitNumber=0, backing=backing, capacityInKB=capacity_kib
    )


def make(store: Store, carrier: Carrier, device: Any, deadline: Deadline, *, create: bool) -> Any:
    """The machine, made once even when the answer is lost."""
    site = store.site
    place = site.place(deadline)
    vmx = store.path(f"{carrier.folder}/carrier.vmx", deadline)
    document = config(carrier, vmx, device, create=create)
    try:
        return site.carry_out(
            lambda: place.vm_folder.CreateVM_Task(config=document, pool=place.pool, host=site.host), deadline
        )
    except LostAnswerError:
        site.rest(deadline)
        found = find(site, carrier.id, deadline)
        if found is None:
            raise
        return found


def find(site: Site, carrier_id: UUID, deadline: Deadline) -> Any | None:
    """The carrier of that id."""
    search = site.content.searchIndex
    return site.look(lambda: search.FindByUuid(None, str(carrier_id), True, True), deadline)


def drop(store: Store, carrier_id: UUID, deadline: Deadline) -> None:
    """Forget the machine, keep its disks elsewhere, and delete its folder."""
    machine = find(store.site, carrier_id, deadline)
    if machine is not None:
        unregister(store.site, machine, deadline)
    store.delete(f"{CARRIERS}/{carrier_id}", deadline)


def unregister(site: Site, machine: Any, deadline: Deadline) -> None:
    """Forget a machine; one that is gone is fine."""
    for again in (True, False):
        try:
            site.send(machine.UnregisterVM, deadline)
        except vmodl.fault.ManagedObjectNotFound:
            return
        except LostAnswerError:
            if not again:
                raise
        else:
            return


def until(found: reading.Properties) -> int | None:
    """Until when a machine with these properties is wanted as a carrier, None when it is none."""
    told = reading.marks_of(found).get(MARK)
    try:
        return int(told) if told else None
    except ValueError:
        return None


def collect(store: Store, deadline: Deadline) -> None:
    """Take away the carriers on this host that nobody can want any more, and folders that such left."""
    site = store.site
    now_s = int(site.look(site.session.now, deadline).timestamp())
    every = site.look(lambda: reading.related(site.content, site.host, "vm", vim.VirtualMachine, NAMES), deadline)
    for machine, found in every:
        wanted_s = until(found)
        if wanted_s is not None and wanted_s < now_s:
            with suppress(vmodl.MethodFault):  # a lease of the host holds it still
                unregister(site, machine, deadline)
    for name, folder in store.search(CARRIERS, deadline).items():
        ends = [each.removeprefix(UNTIL) for each in folder.marks if each.startswith(UNTIL)]
        over = [each for each in ends if each.isdecimal() and int(each) < now_s]
        if over and "/" not in name:
            with suppress(vmodl.MethodFault):  # a file of it is open still
                store.delete(f"{CARRIERS}/{name}", deadline)
