"""Machines: ours are those whose extraConfig names their own instance UUID, which is our id.

A machine's folder holds its configuration and nothing of a volume, so that removing a machine (unregister it, delete
that folder) cannot delete one. A volume belongs to one machine at a time: check and claim happen under the volume's
lock of this process. Nothing is ever found by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pyVmomi import vim, vmodl

from drivers.api import (
    Deadline,
    DiskSpec,
    GuestSigns,
    Machine,
    MachineSpec,
    Power,
    PowerAction,
    Refused,
    Sample,
    Transient,
)
from drivers.esxi import first_boot, hardware, holders, power, reading, rewinding, seed
from drivers.esxi.first_boot import MACHINES, SEED_ISO
from drivers.esxi.inventory import Inventory
from drivers.esxi.networks import EsxiNetworks
from drivers.esxi.options import SeedWay
from drivers.esxi.samples import Counters
from drivers.esxi.site import Site, reference, verb
from drivers.esxi.store import DISK, Store
from drivers.esxi.volumes import VOLUMES, counts

Seen = tuple[Any, reading.Properties, Machine]


class EsxiMachines:
    """See :class:`drivers.api.Machines`."""

    def __init__(self, site: Site, networks: EsxiNetworks) -> None:
        self.site = site
        self.store = Store(site)
        self.networks = networks
        self._counters = Counters(site)
        self._inventory = Inventory(site)

    # ------------------------------------------------------------------------------------- existence

    @verb
    def ensure(self, spec: MachineSpec, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Machines.ensure`. One that is there gets name, marks, vcpus and ram when it is off."""
        with self.site.only(deadline, "machine", str(spec.id)):
            found = self.find(spec.id, deadline)
            if found is None and self._elsewhere(spec.id, deadline):
                raise Refused("the machine is on another host of the same pool")
            if found is None:
                self._create(spec, deadline)
            else:
                self._change(*found, spec, deadline)
            self._order_boot(spec, deadline)
            return self._seen(spec.id, deadline)

    @verb
    def remove(self, machine_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Machines.remove`."""
        with self.site.only(deadline, "machine", str(machine_id)):
            found = self.find(machine_id, deadline)
            if found is not None:
                machine, _ = found
                if power.state(self.site, machine, deadline) is not Power.OFF:
                    power.reach(self.site, machine.PowerOffVM_Task, deadline)
                self._merge_snapshots(machine, deadline)
                self.site.send(machine.UnregisterVM, deadline)
            elif self._elsewhere(machine_id, deadline):
                return  # its folder is shared, and it moved away
            self.store.delete(f"{MACHINES}/{machine_id}", deadline)

    @verb
    def inspect(self, machine_id: UUID, deadline: Deadline) -> Machine | None:
        """See :meth:`drivers.api.Machines.inspect`."""
        found = self.find(machine_id, deadline)
        return reading.our_machine(found[1]) if found is not None else None

    @verb
    def list(self, deadline: Deadline) -> Sequence[Machine]:
        """See :meth:`drivers.api.Machines.list`."""
        return [machine for _, _, machine in self._every(deadline)]

    @verb
    def sample(self, deadline: Deadline) -> Sequence[Sample]:
        """See :meth:`drivers.api.Machines.sample`."""
        return self._counters.read(self._every(deadline, reading.SAMPLE), deadline)

    # ------------------------------------------------------------------------------------- verbs on one machine

    @verb
    def power(self, machine_id: UUID, action: PowerAction, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Machines.power`."""
        machine, found = self.must(machine_id, deadline)
        first_boot.before(self.site, machine, found, action, deadline)
        power.act(self.site, machine, action, deadline)
        first_boot.after(self.store, machine, machine_id, deadline)
        return self._seen(machine_id, deadline)

    @verb
    def signs(self, machine_id: UUID, deadline: Deadline) -> GuestSigns:
        """See :meth:`drivers.api.GuestListening.guest_signs`: VMware's tools are the agent; the host leases nothing."""
        machine, _ = self.must(machine_id, deadline)
        found = self.site.look(lambda: reading.one(self.site.content, machine, reading.TOOLS), deadline)
        runs = reading.POWERS.get(str(found.get("runtime.powerState"))) is Power.RUNNING
        return GuestSigns(agent=runs and found.get("guest.toolsRunningStatus") == "guestToolsRunning")

    @verb
    def attach(self, machine_id: UUID, disk: DiskSpec, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Machines.attach`."""
        with self.site.only(deadline, "machine", str(machine_id)), self.site.claim(deadline, disk.volume_id):
            machine, found = self.must(machine_id, deadline)
            power.check_not_suspended(found)
            rewinding.check_none(found)
            seen = reading.our_machine(found)
            if seen is None or disk.volume_id not in seen.volumes:
                if seen is not None and disk.device in seen.volumes.values():
                    raise Refused(f"the machine has another disk {disk.device}")
                path = self._free(disk.volume_id, deadline)
                change = hardware.plug(disk, path, found["config.hardware.device"])
                self.site.carry_out(lambda: machine.ReconfigVM_Task(change), deadline)
            return self._seen(machine_id, deadline)

    @verb
    def detach(self, machine_id: UUID, volume_id: UUID, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Machines.detach`."""
        with self.site.only(deadline, "machine", str(machine_id)), self.site.claim(deadline, volume_id):
            machine, found = self.must(machine_id, deadline)
            power.check_not_suspended(found)
            rewinding.check_none(found)
            held = reading.volume_devices(found["config.hardware.device"])
            devices = [device for device, each in held if each == volume_id]
            if devices:
                change = hardware.unplug(devices, [volume_id])
                self.site.carry_out(lambda: machine.ReconfigVM_Task(change), deadline)
            return self._seen(machine_id, deadline)

    # ------------------------------------------------------------------------------------- finding

    def find(self, machine_id: UUID, deadline: Deadline) -> tuple[Any, reading.Properties] | None:
        """The object and its properties, if it is ours and on this host."""
        content = self.site.content

        def ask() -> tuple[Any, reading.Properties] | None:
            found = content.searchIndex.FindByUuid(None, str(machine_id), True, True)
            if found is None:
                return None
            try:
                properties = reading.one(content, found, (*reading.MACHINE, "runtime.host"))
            except vmodl.fault.ManagedObjectNotFound:
                return None  # it went between the two questions
            host = properties.get("runtime.host")
            here = host is not None and reference(host) == self.site.host_id
            return (found, properties) if here and reading.our_machine(properties) is not None else None

        return self.site.look(ask, deadline)

    def _elsewhere(self, machine_id: UUID, deadline: Deadline) -> bool:
        """Whether the machine is on another host that shares its folder with ours."""
        if self.site.options.shared is None:
            return False
        index = self.site.content.searchIndex
        return self.site.look(lambda: index.FindByUuid(None, str(machine_id), True, True), deadline) is not None

    def must(self, machine_id: UUID, deadline: Deadline) -> tuple[Any, reading.Properties]:
        """The machine. Raises Refused when it is not there."""
        found = self.find(machine_id, deadline)
        if found is None:
            raise Refused(f"there is no machine {machine_id} on this host")
        return found

    def _seen(self, machine_id: UUID, deadline: Deadline) -> Machine:
        found = self.find(machine_id, deadline)
        machine = reading.our_machine(found[1]) if found is not None else None
        if machine is None:
            raise Transient("the machine went away meanwhile")
        return machine

    def _every(self, deadline: Deadline, names: tuple[str, ...] = ()) -> Sequence[Seen]:
        found = self._inventory.ours((*reading.SHOWN, *names), deadline)
        read = [(at, properties, reading.our_machine(properties)) for at, properties in found]
        return [(at, properties, machine) for at, properties, machine in read if machine is not None]

    # ------------------------------------------------------------------------------------- making

    def _create(self, spec: MachineSpec, deadline: Deadline) -> None:
        if not spec.disks:
            raise Refused("a machine needs a disk to boot from")
        if len({each.device for each in spec.disks}) < len(spec.disks):
            raise Refused("two disks have the same device name")
        place = self.site.place(deadline)
        backings = {nic.port_id: self.networks.plug(nic.network_id, nic.port_id, deadline) for nic in spec.nics}
        by_iso = self.site.options.seed is SeedWay.ISO
        extra = {} if by_iso else seed.guestinfo(spec.seed)
        folder = f"{MACHINES}/{spec.id}"
        wanted = [*(each.volume_id for each in spec.disks), *(nic.network_id for nic in spec.nics), *backings]
        with self.site.claim(deadline, *wanted):
            paths = {each.volume_id: self._free(each.volume_id, deadline) for each in spec.disks}
            vmx = self.store.path(f"{folder}/{spec.id}.vmx", deadline)
            config = hardware.machine(spec, paths, backings, vmx=vmx, extra=extra)
            self.store.delete(folder, deadline)  # what an earlier try left; no machine of this id is there
            self.store.make_folder(folder, deadline)
            if by_iso and spec.seed is not None:
                image = seed.iso(spec.seed)
                self.store.upload(f"{folder}/{SEED_ISO}", [image], len(image), deadline)
                config.deviceChange += hardware.cdrom(self.store.path(f"{folder}/{SEED_ISO}", deadline))
            self.site.carry_out(
                lambda: place.vm_folder.CreateVM_Task(config=config, pool=place.pool, host=self.site.host), deadline
            )

    def _free(self, volume_id: UUID, deadline: Deadline) -> str:
        """The file of a volume that no machine holds. Raises Refused."""
        found = self.store.search(f"{VOLUMES}/{volume_id}", deadline).get("")
        if found is None or not counts(found):
            raise Refused(f"there is no volume {volume_id} on this host")
        if holders.of(self.site, volume_id, deadline) is not None:
            raise Refused(f"another machine holds the volume {volume_id}")
        return self.store.path(f"{VOLUMES}/{volume_id}/{DISK}", deadline)

    def _change(self, machine: Any, found: reading.Properties, spec: MachineSpec, deadline: Deadline) -> None:
        """Name and marks at once, processors and memory while it is off."""
        now = reading.marks_of(found)
        disks = tuple(reading.DISK_MARK + str(each.volume_id) for each in spec.disks)
        told = {key: value for key, value in hardware.marks(spec).items() if key not in disks and now.get(key) != value}
        change: Any = vim.vm.ConfigSpec(extraConfig=hardware.options(told))
        size = (found.get("config.hardware.numCPU"), found.get("config.hardware.memoryMB"))
        resize = size != (spec.vcpus, spec.ram_mib) and str(found.get("runtime.powerState")) == "poweredOff"
        if resize:
            change.numCPUs, change.memoryMB = spec.vcpus, spec.ram_mib
        if told or resize:
            self.site.carry_out(lambda: machine.ReconfigVM_Task(change), deadline)

    def _order_boot(self, spec: MachineSpec, deadline: Deadline) -> None:
        """Have a machine that is off boot from its first disk, whatever else is plugged in later. The disk's key is the
        host's to choose, so that this comes after the machine.
        """
        machine, found = self.must(spec.id, deadline)
        if not spec.disks or str(found.get("runtime.powerState")) != "poweredOff":
            return
        held = reading.volume_devices(found.get("config.hardware.device") or ())
        key = next((int(device.key) for device, each in held if each == spec.disks[0].volume_id), None)
        now = self.site.look(lambda: reading.one(self.site.content, machine, ("config.bootOptions",)), deadline)
        order = getattr(now.get("config.bootOptions"), "bootOrder", None) or ()
        if key is not None and [getattr(each, "deviceKey", None) for each in order] != [key]:
            change = vim.vm.ConfigSpec(bootOptions=hardware.boot_from(key))
            self.site.carry_out(lambda: machine.ReconfigVM_Task(change), deadline)

    def _merge_snapshots(self, machine: Any, deadline: Deadline) -> None:
        """Bring what somebody's snapshots hold of a volume back into it."""
        found = self.site.look(lambda: reading.one(self.site.content, machine, ("snapshot",)), deadline)
        if found.get("snapshot") is not None:
            self.site.carry_out(lambda: machine.RemoveAllSnapshots_Task(True), deadline)
