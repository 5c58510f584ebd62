"""Machines on a host that others made: seen, taken over by a mark in extraConfig, and given back.

A foreign machine is known by its managed object's reference. Taking it over writes extraConfig and gives it our id as
instance UUID (the old one is kept beside it), in one call, running or not; no disk, device or file is touched. A disk
of an adopted machine is found by the device key that the mark names, wherever its file lies.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pyVmomi import vim, vmodl

from drivers.api import (
    MOST_FOREIGN,
    AdoptionSpec,
    Deadline,
    Firmware,
    ForeignDisk,
    ForeignMachine,
    ForeignNic,
    ForeignPage,
    Machine,
    Power,
    Refused,
    Transient,
)
from drivers.esxi import carriers, hardware, reading
from drivers.esxi.site import Site, reference, verb

BEFORE_MARK = "stratograph.before.instanceUuid"
FOREIGN = (
    *reading.MACHINE,
    "config.guestFullName",
    "config.guestId",
    "config.firmware",
    "config.template",
    "config.keyId",
    "runtime.host",
)
FIRMWARE = {"efi": Firmware.UEFI}


class EsxiAdoption:
    """The verbs of a connection. See :class:`drivers.api.Adoption`."""

    def __init__(self, site: Site) -> None:
        self.site = site

    @verb
    def list_foreign(self, after: str | None, limit: int, deadline: Deadline) -> ForeignPage:
        """See :meth:`drivers.api.Adoption.list_foreign`. One bulk read, whatever the page."""
        if not 1 <= limit <= MOST_FOREIGN:
            raise Refused(f"a page has 1 to {MOST_FOREIGN} machines")
        found = self.site.look(
            lambda: reading.related(self.site.content, self.site.host, "vm", vim.VirtualMachine, FOREIGN), deadline
        )
        theirs = {reference(machine): properties for machine, properties in found if _is_foreign(properties)}
        behind = sorted((ref for ref in theirs if after is None or _place(ref) > _place(after)), key=_place)
        page = behind[:limit]
        return ForeignPage(tuple(_shown(ref, theirs[ref]) for ref in page), page[-1] if len(behind) > limit else None)

    @verb
    def inspect_foreign(self, ref: str, deadline: Deadline) -> ForeignMachine | None:
        """See :meth:`drivers.api.Adoption.inspect_foreign`."""
        found = self._look(ref, deadline)
        return _shown(ref, found) if found is not None and _is_foreign(found) else None

    @verb
    def adopt(self, spec: AdoptionSpec, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Adoption.adopt`."""
        with self.site.only(deadline, "machine", str(spec.id)), self.site.only(deadline, "adopting"):
            found = self._look(spec.ref, deadline)
            if found is None or carriers.until(found) is not None:
                raise Refused(f"there is no machine {spec.ref} of somebody else's on this host")
            ours = reading.our_machine(found)
            if ours is None:
                self._mark(spec, found, deadline)
            elif ours.id != spec.id:
                raise Refused(f"the machine {spec.ref} is one of ours already")
            made = reading.our_machine(self._look(spec.ref, deadline) or {})
            if made is None or made.id != spec.id:
                raise Transient("the mark cannot be seen on the machine")
            return made

    @verb
    def disown(self, machine_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Adoption.disown`."""
        with self.site.only(deadline, "machine", str(machine_id)), self.site.only(deadline, "adopting"):
            search = self.site.content.searchIndex
            machine = self.site.look(lambda: search.FindByUuid(None, str(machine_id), True, True), deadline)
            found = self._look(reference(machine), deadline) if machine is not None else None
            if found is None or reading.our_machine(found) is None:
                return
            marks = reading.marks_of(found)
            before = marks.get(BEFORE_MARK)
            if not before:
                raise Refused(f"the machine {machine_id} was not adopted")
            own = {key: "" for key, value in marks.items() if key.startswith(reading.PREFIX) and value}
            change = vim.vm.ConfigSpec(instanceUuid=str(before), extraConfig=hardware.options(own))
            self.site.carry_out(lambda: machine.ReconfigVM_Task(change), deadline)

    # ------------------------------------------------------------------------------------- parts

    def _look(self, ref: str, deadline: Deadline) -> reading.Properties | None:
        """The properties of a machine on this host, whoever's."""
        machine: Any = self.site.session.managed(vim.VirtualMachine, ref)

        def ask() -> reading.Properties | None:
            try:
                return reading.one(self.site.content, machine, FOREIGN)
            except vmodl.fault.ManagedObjectNotFound:
                return None

        found = self.site.look(ask, deadline)
        here = found is not None and found.get("runtime.host") is not None
        return found if here and reference(found["runtime.host"]) == self.site.host_id else None  # type: ignore[index]  # here says that it is found

    def _mark(self, spec: AdoptionSpec, found: reading.Properties, deadline: Deadline) -> None:
        obstacles = _obstacles(found)
        if obstacles:
            raise Refused(obstacles[0])
        keys = [each.key for each in _disks(found)]
        if set(keys) != set(spec.disks):
            raise Refused("the machine's disks are not those that were named")
        devices = {each.device for each in spec.disks.values()}
        if len(devices) < len(keys) or len({each.volume_id for each in spec.disks.values()}) < len(keys):
            raise Refused("two disks of the machine share a device name or a volume")
        before = str(found["config.instanceUuid"])
        told = {reading.MARK: str(spec.id), reading.NAME_MARK: spec.name, BEFORE_MARK: before}
        for key, disk in spec.disks.items():
            told[f"{reading.DISK_MARK}{disk.volume_id}"] = disk.device
            told[f"{reading.ADOPTED_MARK}{disk.volume_id}"] = key
        told |= {f"{hardware.TAG_MARK}{key}": value for key, value in spec.marks.items()}
        change = vim.vm.ConfigSpec(instanceUuid=str(spec.id), extraConfig=hardware.options(told))
        machine: Any = self.site.session.managed(vim.VirtualMachine, spec.ref)
        self.site.carry_out(lambda: machine.ReconfigVM_Task(change), deadline)


def _place(ref: str) -> tuple[int, str]:
    """Where a reference stands: ``vm-9`` before ``vm-10``."""
    return (len(ref), ref)


def _is_foreign(found: reading.Properties) -> bool:
    ours = reading.our_machine(found) is not None or carriers.until(found) is not None
    return not ours and bool(found.get("config.instanceUuid"))


def _shown(ref: str, found: reading.Properties) -> ForeignMachine:
    connected = found.get("runtime.connectionState") == "connected"
    power = reading.POWERS.get(str(found.get("runtime.powerState")), Power.UNKNOWN)
    guest = found.get("config.guestFullName") or found.get("config.guestId")
    return ForeignMachine(
        ref=ref,
        name=str(found.get("name")),
        power=power if connected else Power.UNKNOWN,
        vcpus=int(found.get("config.hardware.numCPU") or 0),
        ram_mib=int(found.get("config.hardware.memoryMB") or 0),
        firmware=FIRMWARE.get(str(found.get("config.firmware")), Firmware.BIOS),
        disks=tuple(_disks(found)),
        nics=tuple(_nics(found)),
        guest=str(guest) if guest else None,
        obstacles=tuple(_obstacles(found)),
    )


def _virtual_disks(found: reading.Properties) -> list[Any]:
    """The disks in the order of their controllers and units, in which a BIOS looks for one to boot from."""
    devices = found.get("config.hardware.device") or ()
    disks: list[Any] = [each for each in devices if isinstance(each, vim.vm.device.VirtualDisk)]
    return sorted(disks, key=lambda each: (int(each.controllerKey or 0), int(each.unitNumber or 0), int(each.key)))


def _disks(found: reading.Properties) -> list[ForeignDisk]:
    return [
        ForeignDisk(str(each.key), int(getattr(each, "capacityInBytes", None) or int(each.capacityInKB or 0) * 1024))
        for each in _virtual_disks(found)
    ]


def _nics(found: reading.Properties) -> list[ForeignNic]:
    cards = vim.vm.device.VirtualEthernetCard
    told = []
    for device in found.get("config.hardware.device") or ():
        if isinstance(device, cards) and device.macAddress:
            backing = device.backing
            name = getattr(backing, "deviceName", None) or getattr(getattr(backing, "port", None), "portgroupKey", None)
            told.append(ForeignNic(str(device.macAddress).lower(), str(name) if name else None))
    return told


def _obstacles(found: reading.Properties) -> list[str]:
    """Why the machine cannot be taken over as it is."""
    told = []
    if found.get("runtime.connectionState") != "connected":
        told.append(f"the machine is {found.get('runtime.connectionState')}")
    if found.get("config.template"):
        told.append("it is a template, not a machine")
    if found.get("config.keyId") is not None:
        told.append("its files are encrypted")
    backings = [each.backing for each in _virtual_disks(found)]
    if any(isinstance(each, vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo) for each in backings):
        told.append("it has a raw device as a disk")
    if any(getattr(each, "sharing", None) == "sharingMultiWriter" for each in backings):
        told.append("it shares a disk with other machines")
    if not backings:
        told.append("it has no disk")
    return told
