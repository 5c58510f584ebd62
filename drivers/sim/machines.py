"""The machines of a simulated host: :class:`drivers.api.Machines` with the rules a real host enforces.

A machine needs its volumes and ports, a volume has one machine, devices have one disk each, and a host has only so much
memory. Memory and processors are claimed by power-on, as on a real host. ``ensure`` gives a machine that is there and
off the size of its spec, and else leaves it as it is. Guests listen to the power button and let go of disks unless the
weather makes them deaf.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from drivers.api import (
    Capability,
    Deadline,
    Devices,
    DiskSpec,
    Firmware,
    HostAtFault,
    Machine,
    MachineSpec,
    NicSpec,
    Power,
    PowerAction,
    Refused,
    Sample,
    Seed,
    Transient,
)
from drivers.sim import moments
from drivers.sim.faults import conditions, is_deaf
from drivers.sim.gate import Gate
from drivers.sim.guest import counters
from drivers.sim.power import HALTED, halted, restarted, resumed, started, stopped, tally
from drivers.sim.records import MachineRecord, MachineSnapshotRecord, PortRecord, SeedRecord, VolumeRecord, seen
from drivers.sim.store import Transaction

SEED_BYTES_MOST = 1024 * 1024
LISTEN_SECONDS = 0.02
HALTS = {
    PowerAction.SUSPEND: (Capability.SUSPEND, Power.SUSPENDED),
    PowerAction.PAUSE: (Capability.PAUSE, Power.PAUSED),
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SimMachines:
    """See :class:`drivers.api.Machines`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def ensure(self, spec: MachineSpec, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Machines.ensure`."""
        with self._gate.verb("machines.ensure", deadline) as transaction:
            there = transaction.get(MachineRecord, str(spec.id))
            if there is not None:
                size = (spec.vcpus, spec.ram_mib)
                if there.power != Power.OFF or (there.vcpus, there.ram_mib) == size:
                    return seen(there)
                return _told(transaction, replace(there, vcpus=spec.vcpus, ram_mib=spec.ram_mib))
            if spec.firmware is Firmware.UEFI:
                self._gate.need(Capability.UEFI)
            if spec.devices is Devices.VMWARE:
                self._gate.need(Capability.VMWARE_DEVICES)
            _check(spec)
            for disk in spec.disks:
                _take_disk(transaction, str(spec.id), disk)
            for nic in spec.nics:
                take_port(transaction, str(spec.id), nic)
            made = _record(spec, self._gate.now_ns(transaction))
            transaction.put(made)
            if spec.seed is not None:
                files = {name: base64.b64encode(data).decode() for name, data in spec.seed.files.items()}
                transaction.put(SeedRecord(made.id, files))
            transaction.tell(made.id, made)
            return seen(made)

    def remove(self, machine_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Machines.remove`."""
        with self._gate.verb("machines.remove", deadline) as transaction:
            machine = transaction.get(MachineRecord, str(machine_id))
            if machine is None:
                return
            stopped(transaction, machine, "destroyed", self._gate.now_ns(transaction))
            for volume_id in machine.disks:
                transaction.release(f"volume:{volume_id}", machine.id)
            for port_id, network_id in machine.nics.items():
                transaction.release(f"port:{port_id}", machine.id)
                transaction.release(f"network:{network_id}", machine.id)
            for each in moments.of_machine(transaction, machine.id):
                transaction.delete(MachineSnapshotRecord, each.id)
            transaction.delete(MachineRecord, machine.id)
            transaction.delete(SeedRecord, machine.id)
            transaction.tell(machine.id, None)

    def inspect(self, machine_id: UUID, deadline: Deadline) -> Machine | None:
        """See :meth:`drivers.api.Machines.inspect`."""
        with self._gate.verb("machines.inspect", deadline, write=False) as transaction:
            machine = transaction.get(MachineRecord, str(machine_id))
        return None if machine is None else seen(machine)

    def list(self, deadline: Deadline) -> Sequence[Machine]:
        """See :meth:`drivers.api.Machines.list`."""
        with self._gate.verb("machines.list", deadline, write=False) as transaction:
            machines = transaction.all(MachineRecord)
        return [seen(each) for each in machines]

    def power(self, machine_id: UUID, action: PowerAction, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Machines.power`."""
        with self._gate.verb("machines.power", deadline) as transaction:
            machine = existing(transaction, machine_id)
            deaf = is_deaf(conditions(transaction), "shutdown", machine.id)
            if action is PowerAction.SHUTDOWN and deaf and machine.power == Power.RUNNING:
                waiting = True
            else:
                waiting = False
                machine = self._act(transaction, machine, action)
        return self._await_off(machine, deadline) if waiting else seen(machine)

    def attach(self, machine_id: UUID, disk: DiskSpec, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Machines.attach`."""
        with self._gate.verb("machines.attach", deadline) as transaction:
            machine = existing(transaction, machine_id)
            volume_id = str(disk.volume_id)
            if machine.disks.get(volume_id) == disk.device:
                return seen(machine)
            if volume_id in machine.disks or disk.device in machine.disks.values():
                raise Refused(f"the machine has that volume or a disk called {disk.device} already")
            check_not_suspended(machine)
            moments.check_none(transaction, machine.id)
            if machine.power != Power.OFF:
                self._gate.need(Capability.VOLUME_HOT_ATTACH)
            _take_disk(transaction, machine.id, disk)
            read_only = [*machine.read_only, volume_id] if disk.read_only else machine.read_only
            now = replace(machine, disks={**machine.disks, volume_id: disk.device}, read_only=read_only)
            return _told(transaction, now)

    def detach(self, machine_id: UUID, volume_id: UUID, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Machines.detach`."""
        with self._gate.verb("machines.detach", deadline) as transaction:
            machine, key = existing(transaction, machine_id), str(volume_id)
            if key not in machine.disks:
                return seen(machine)
            check_not_suspended(machine)
            moments.check_none(transaction, machine.id)
            running = machine.power == Power.RUNNING
            if running:
                self._gate.need(Capability.VOLUME_HOT_ATTACH)
            if not running or not is_deaf(conditions(transaction), "detach", machine.id):
                disks = {volume: device for volume, device in machine.disks.items() if volume != key}
                transaction.release(f"volume:{key}", machine.id)
                read_only = [each for each in machine.read_only if each != key]
                return _told(transaction, replace(machine, disks=disks, read_only=read_only))
        time.sleep(deadline.remaining)
        raise Transient("the simulated guest did not let go of the disk", vendor_code="SIM_DEAF")

    def sample(self, deadline: Deadline) -> Sequence[Sample]:
        """See :meth:`drivers.api.Machines.sample`."""
        with self._gate.verb("machines.sample", deadline, write=False) as transaction:
            now_ns = self._gate.now_ns(transaction)
            machines = transaction.all(MachineRecord)
        return [_sample(self._gate.options.seed, each, now_ns) for each in machines]

    # ------------------------------------------------------------------------------------- parts

    def _act(self, transaction: Transaction, machine: MachineRecord, action: PowerAction) -> MachineRecord:
        now_ns = self._gate.now_ns(transaction)
        running = machine.power == Power.RUNNING
        if action in HALTS:
            return self._halt(transaction, machine, action)
        if action is PowerAction.ON:
            if not running and machine.power != Power.PAUSED:
                self._check_room(transaction, machine)
            if machine.power in HALTED:
                return resumed(transaction, machine, now_ns)
            return started(transaction, machine, "booted", now_ns)
        if action in {PowerAction.REBOOT, PowerAction.RESET}:
            if not running:
                raise Refused(f"the machine is {machine.power}, only a running one can {action.lower()}")
            return restarted(transaction, machine, action.lower(), now_ns)
        if machine.power == Power.CRASHED:  # what is left of it is cleared away
            return _kept_off(transaction, machine)
        return stopped(transaction, machine, "shutdown" if action is PowerAction.SHUTDOWN else "destroyed", now_ns)

    def _halt(self, transaction: Transaction, machine: MachineRecord, action: PowerAction) -> MachineRecord:
        capability, state = HALTS[action]
        self._gate.need(capability)
        if machine.power == state:
            return machine
        if machine.power != Power.RUNNING:
            raise Refused(f"the machine is {machine.power}, only a running one can {action.lower()}")
        return halted(transaction, machine, state, self._gate.now_ns(transaction))

    def _check_room(self, transaction: Transaction, machine: MachineRecord) -> None:
        used, options = tally(transaction), self._gate.options
        full = conditions(transaction).full
        if full or used.ram_mib + machine.ram_mib > options.ram_mib * options.ram_overcommit:
            raise HostAtFault("the simulated host has no memory left", vendor_code="SIM_NO_MEMORY")
        if used.vcpus + machine.vcpus > options.vcpus * options.vcpu_overcommit:
            raise HostAtFault("the simulated host has no processor time left", vendor_code="SIM_NO_CPU")

    def _await_off(self, machine: MachineRecord, deadline: Deadline) -> Machine:
        """Wait as long as the guest is asked to; it may be stopped by somebody else meanwhile."""
        while deadline.remaining and machine.power == Power.RUNNING:
            time.sleep(min(LISTEN_SECONDS, deadline.remaining))
            with self._gate.store.read(Deadline(1)) as transaction:
                machine = existing(transaction, UUID(machine.id))
        return seen(machine)


def existing(transaction: Transaction, machine_id: UUID) -> MachineRecord:
    """The machine. Raises Refused when there is none."""
    machine = transaction.get(MachineRecord, str(machine_id))
    if machine is None:
        raise Refused(f"the simulated host has no machine {machine_id}")
    return machine


def check_not_suspended(machine: MachineRecord) -> None:
    """Raise Refused for a machine whose saved memory knows the devices that it has."""
    if machine.power == Power.SUSPENDED:
        raise Refused("the machine is suspended: its guest remembers the disks that it has")


def _told(transaction: Transaction, machine: MachineRecord) -> Machine:
    transaction.put(machine)
    transaction.tell(machine.id, machine)
    return seen(machine)


def _kept_off(transaction: Transaction, machine: MachineRecord) -> MachineRecord:
    now = replace(machine, power=Power.OFF.value, reason="destroyed")
    transaction.put(now)
    transaction.tell(now.id, now)
    return now


def _check(spec: MachineSpec) -> None:
    if spec.vcpus < 1 or spec.ram_mib < 1:
        raise Refused("a machine has at least one vCPU and one MiB of memory")
    devices, volumes = {disk.device for disk in spec.disks}, {disk.volume_id for disk in spec.disks}
    if len(devices) != len(spec.disks) or len(volumes) != len(spec.disks):
        raise Refused("two disks of the machine share a device name or a volume")
    if len({nic.port_id for nic in spec.nics}) != len(spec.nics):
        raise Refused("the machine names a port twice")
    if spec.seed is not None and sum(len(data) for data in spec.seed.files.values()) > SEED_BYTES_MOST:
        raise Refused("the seed is larger than 1 MiB")


def _take_disk(transaction: Transaction, machine_id: str, disk: DiskSpec) -> None:
    target = f"volume:{disk.volume_id}"
    if transaction.get(VolumeRecord, str(disk.volume_id)) is None:
        raise Refused(f"the simulated host has no volume {disk.volume_id}")
    if transaction.holders(target):
        raise Refused(f"another machine holds the volume {disk.volume_id}")
    transaction.hold(target, machine_id)


def take_port(transaction: Transaction, machine_id: str, nic: NicSpec) -> None:
    """Put the machine on a port. Raises Refused when it is not there or another machine is on it."""
    port = transaction.get(PortRecord, str(nic.port_id))
    if port is None or port.network_id != str(nic.network_id):
        raise Refused(f"the simulated host has no port {nic.port_id} on the network {nic.network_id}")
    if port.mac.lower() != nic.mac.lower():
        raise Refused(f"the port {nic.port_id} has the address {port.mac}, not {nic.mac}")
    if transaction.holders(f"port:{port.id}"):
        raise Refused(f"another machine is on the port {nic.port_id}")
    transaction.hold(f"port:{port.id}", machine_id)
    transaction.hold(f"network:{port.network_id}", machine_id)


def _record(spec: MachineSpec, now_ns: int) -> MachineRecord:
    files = {} if spec.seed is None else spec.seed.files
    text = b"\n".join((files.get("meta-data", b""), files.get("user-data", b""))).decode(errors="replace")
    hostname = re.search(r"""^\s*(?:local-)?hostname:\s*["']?([A-Za-z0-9.-]{1,253})""", text, re.MULTILINE)
    return MachineRecord(
        str(spec.id),
        spec.name,
        spec.vcpus,
        spec.ram_mib,
        spec.firmware.value,
        disks={str(disk.volume_id): disk.device for disk in spec.disks},
        read_only=[str(disk.volume_id) for disk in spec.disks if disk.read_only],
        nics={str(nic.port_id): str(nic.network_id) for nic in spec.nics},
        marks=dict(spec.marks),
        hostname=hostname.group(1) if hostname else spec.name,
        ssh_keys=len(set(re.findall(r"\b(?:ssh-|ecdsa-sha2-|sk-ssh-)\S+ \S+", text))),
        seed_sha256=None if spec.seed is None else _digest(spec.seed),
        made_ns=now_ns,
    )


def _digest(seed: Seed) -> str:
    digest = hashlib.sha256()
    files: Mapping[str, bytes] = seed.files
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()


def _sample(seed: str, machine: MachineRecord, now_ns: int) -> Sample:
    at = EPOCH + timedelta(microseconds=now_ns // 1000)
    key, power = UUID(machine.id), Power(machine.power)
    paused = power is Power.PAUSED and machine.ran_ns is not None
    if machine.on_since_ns is None and not paused:
        return Sample(key, at, power, None, machine.vcpus, machine.ram_mib, None, None, None, None, None, None, None)
    ran_ns = machine.ran_ns if machine.on_since_ns is None else now_ns - machine.on_since_ns
    now = counters(seed, machine, max(0, ran_ns or 0))
    return Sample(
        machine_id=key,
        at=at,
        power=power,
        cpu_time_ns=now.cpu_time_ns,
        vcpus=machine.vcpus,
        ram_mib=machine.ram_mib,
        ram_used_mib=now.ram_used_mib,
        disk_read_bytes=now.disk_read_bytes,
        disk_written_bytes=now.disk_written_bytes,
        disk_reads=now.disk_reads,
        disk_writes=now.disk_writes,
        net_received_bytes=now.net_received_bytes,
        net_sent_bytes=now.net_sent_bytes,
    )
