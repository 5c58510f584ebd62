"""Ports plugged in and out, whole-machine snapshots, and moves to another simulated host.

A snapshot of a machine keeps the names of its disks' contents; since a simulated guest writes nothing by itself, what
changes a disk between two snapshots is the operator's side door. A move writes the whole machine on the target first
and forgets it on the source afterwards: who dies in between and asks again finishes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from drivers.api import (
    Capability,
    Deadline,
    HostConfig,
    Machine,
    MachineSnapshot,
    NicSpec,
    Power,
    Refused,
    Unsupported,
)
from drivers.sim import moments
from drivers.sim.data_centre import DataCentre, data_centre
from drivers.sim.faults import conditions, is_deaf
from drivers.sim.gate import Gate
from drivers.sim.machines import check_not_suspended, existing, take_port
from drivers.sim.options import Options, parse
from drivers.sim.power import started, stopped, tally
from drivers.sim.records import (
    ImageRecord,
    MachineRecord,
    MachineSnapshotRecord,
    PortRecord,
    SeedRecord,
    VolumeRecord,
    seen,
)
from drivers.sim.store import Transaction


class SimPlugging:
    """See :class:`drivers.api.PortPlugging`."""

    gate: Gate

    def plug_port(self, machine_id: UUID, nic: NicSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.PortPlugging.plug_port`."""
        with self.gate.verb("ports.plug", deadline) as transaction:
            machine = existing(transaction, machine_id)
            if str(nic.port_id) in machine.nics:
                return
            check_not_suspended(machine)
            moments.check_none(transaction, machine.id)
            take_port(transaction, machine.id, nic)
            _put(transaction, replace(machine, nics={**machine.nics, str(nic.port_id): str(nic.network_id)}))

    def unplug_port(self, machine_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.PortPlugging.unplug_port`."""
        with self.gate.verb("ports.unplug", deadline) as transaction:
            machine = transaction.get(MachineRecord, str(machine_id))
            if machine is None or str(port_id) not in machine.nics:
                return
            check_not_suspended(machine)
            moments.check_none(transaction, machine.id)
            nics = {port: network for port, network in machine.nics.items() if port != str(port_id)}
            transaction.release(f"port:{port_id}", machine.id)
            if machine.nics[str(port_id)] not in nics.values():
                transaction.release(f"network:{machine.nics[str(port_id)]}", machine.id)
            _put(transaction, replace(machine, nics=nics))

    def plugged_ports(self, machine_id: UUID, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.PortPlugging.plugged_ports`."""
        with self.gate.verb("ports.plugged", deadline, write=False) as transaction:
            machine = transaction.get(MachineRecord, str(machine_id))
        return [] if machine is None else [UUID(port) for port in machine.nics]


class SimRewinding:
    """See :class:`drivers.api.MachineSnapshots`."""

    gate: Gate

    def snapshot_machine(
        self,
        machine_id: UUID,
        snapshot_id: UUID,
        deadline: Deadline,
        *,
        memory: bool = False,
        quiesce: bool = False,
    ) -> MachineSnapshot:
        """See :meth:`drivers.api.MachineSnapshots.snapshot_machine`."""
        with self.gate.verb("machine_snapshots.make", deadline) as transaction:
            machine = existing(transaction, machine_id)
            made = transaction.get(MachineSnapshotRecord, str(snapshot_id))
            if made is None:
                check_not_suspended(machine)
                made = self._made(transaction, machine, snapshot_id, memory=memory, quiesce=quiesce)
                transaction.put(made)
                transaction.put(replace(machine, snapshot_id=made.id))
                machine = existing(transaction, machine_id)
            return _told(made, machine)

    def _made(
        self, transaction: Transaction, machine: MachineRecord, snapshot_id: UUID, *, memory: bool, quiesce: bool
    ) -> MachineSnapshotRecord:
        volumes = {key: transaction.get(VolumeRecord, key) for key in machine.disks}
        contents = {key: volume.content for key, volume in volumes.items() if volume is not None}
        runs = machine.power == Power.RUNNING
        still = runs and quiesce and not memory and not is_deaf(conditions(transaction), "quiesce", machine.id)
        return MachineSnapshotRecord(
            str(snapshot_id), machine.id, machine.snapshot_id, memory and runs, contents, quiesced=still
        )

    def revert_machine(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.MachineSnapshots.revert_machine`."""
        with self.gate.verb("machine_snapshots.revert", deadline) as transaction:
            machine = existing(transaction, machine_id)
            made = transaction.get(MachineSnapshotRecord, str(snapshot_id))
            if made is None or made.machine_id != machine.id:
                raise Refused(f"the machine has no snapshot {snapshot_id}")
            for key, content in made.contents.items():
                volume = transaction.get(VolumeRecord, key)
                if volume is not None:
                    transaction.put(replace(volume, content=content))
            now_ns = self.gate.now_ns(transaction)
            machine = stopped(transaction, machine, "reverted", now_ns)
            machine = replace(machine, power=Power.OFF.value, reason="reverted", snapshot_id=made.id)
            transaction.put(machine)
            if made.memory:
                machine = started(transaction, machine, "reverted", now_ns)
            transaction.tell(machine.id, machine)
            return seen(machine)

    def remove_machine_snapshot(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.MachineSnapshots.remove_machine_snapshot`."""
        with self.gate.verb("machine_snapshots.remove", deadline) as transaction:
            gone = transaction.get(MachineSnapshotRecord, str(snapshot_id))
            if gone is None or gone.machine_id != str(machine_id):
                return
            for each in moments.of_machine(transaction, gone.machine_id):
                if each.parent_id == gone.id:
                    transaction.put(replace(each, parent_id=gone.parent_id))
            machine = transaction.get(MachineRecord, gone.machine_id)
            if machine is not None and machine.snapshot_id == gone.id:
                transaction.put(replace(machine, snapshot_id=gone.parent_id))
            transaction.delete(MachineSnapshotRecord, gone.id)

    def list_machine_snapshots(self, machine_id: UUID, deadline: Deadline) -> Sequence[MachineSnapshot]:
        """See :meth:`drivers.api.MachineSnapshots.list_machine_snapshots`."""
        with self.gate.verb("machine_snapshots.list", deadline, write=False) as transaction:
            machine = transaction.get(MachineRecord, str(machine_id))
            found = moments.of_machine(transaction, str(machine_id))
        ordered: list[MachineSnapshotRecord] = []
        while fresh := [
            each
            for each in found
            if each not in ordered and (each.parent_id is None or each.parent_id in {one.id for one in ordered})
        ]:
            ordered += sorted(fresh, key=lambda each: each.id)
        return [] if machine is None else [_told(each, machine) for each in ordered]


class SimRelocating:
    """See :class:`drivers.api.Relocation`."""

    gate: Gate

    def relocate(self, machine_id: UUID, target: HostConfig, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Relocation.relocate`."""
        options = parse(target)
        there = data_centre(options.name, options.folder)
        with self.gate.verb("relocate", deadline) as source:
            machine = source.get(MachineRecord, str(machine_id))
            if there.store is self.gate.store:
                return seen(existing(source, machine_id))
            if machine is None:
                with there.store.read(deadline) as goal:
                    return seen(existing(goal, machine_id))
            if machine.power not in {Power.RUNNING, Power.OFF}:
                raise Refused(f"the machine is {machine.power}; only one that runs or is off moves")
            if moments.of_machine(source, machine.id):
                raise Unsupported(Capability.RELOCATE, "a simulated machine with snapshots stays where it is")
            moved = self._write(source, machine, (there, options), deadline)
            self._forget(source, machine)
            return seen(moved)

    def _write(
        self, source: Transaction, machine: MachineRecord, where: tuple[DataCentre, Options], deadline: Deadline
    ) -> MachineRecord:
        there, options = where
        with there.store.write(deadline) as goal:
            kept = goal.get(MachineRecord, machine.id)
            if kept is not None:
                return kept
            used = tally(goal)
            if machine.power == Power.RUNNING and used.ram_mib + machine.ram_mib > options.ram_mib:
                raise Refused("the other simulated host has no memory left")
            for port_id, network_id in machine.nics.items():
                port = goal.get(PortRecord, port_id)
                if port is None:
                    raise Refused(f"the other host has no port {port_id}")
                take_port(goal, machine.id, NicSpec(UUID(port_id), UUID(network_id), port.mac))
            for key in machine.disks:
                volume = source.get(VolumeRecord, key)
                if volume is not None:
                    known = volume.image_id is not None and goal.get(ImageRecord, volume.image_id) is not None
                    goal.put(replace(volume, image_id=volume.image_id if known else None))
                    if known:
                        goal.hold(f"image:{volume.image_id}", volume.id)
                    goal.put(replace(tally(goal), disk_bytes=tally(goal).disk_bytes + volume.size_bytes))
                goal.hold(f"volume:{key}", machine.id)
            seed = source.get(SeedRecord, machine.id)
            if seed is not None:
                goal.put(seed)
            if machine.power == Power.RUNNING:
                used = tally(goal)
                goal.put(replace(used, vcpus=used.vcpus + machine.vcpus, ram_mib=used.ram_mib + machine.ram_mib))
            goal.put(machine)
            goal.tell(machine.id, machine)
            return machine

    def _forget(self, source: Transaction, machine: MachineRecord) -> None:
        stopped(source, machine, "relocated", self.gate.now_ns(source))
        for key in machine.disks:
            volume = source.get(VolumeRecord, key)
            source.release(f"volume:{key}", machine.id)
            if volume is not None:
                used = tally(source)
                source.put(replace(used, disk_bytes=used.disk_bytes - volume.size_bytes))
                if volume.image_id is not None:
                    source.release(f"image:{volume.image_id}", volume.id)
                source.delete(VolumeRecord, key)
        for port_id, network_id in machine.nics.items():
            source.release(f"port:{port_id}", machine.id)
            source.release(f"network:{network_id}", machine.id)
        source.delete(MachineRecord, machine.id)
        source.delete(SeedRecord, machine.id)
        source.tell(machine.id, None)


def _put(transaction: Transaction, machine: MachineRecord) -> None:
    transaction.put(machine)
    transaction.tell(machine.id, machine)


def _told(made: MachineSnapshotRecord, machine: MachineRecord) -> MachineSnapshot:
    parent = None if made.parent_id is None else UUID(made.parent_id)
    return MachineSnapshot(UUID(made.id), parent, made.memory, machine.snapshot_id == made.id, made.quiesced)
