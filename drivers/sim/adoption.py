"""Machines of somebody else's on a simulated host, and taking them over: :class:`drivers.api.Adoption`.

A foreign machine is a record of its own, which ``DataCentre.plant`` puts there. Adopted, it is a machine like any other
beside that record, with its disks as volumes; handed back, the record gets the power state and the content of the disks
as they then are. What an adopted machine takes of the host is counted while it is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

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
)
from drivers.sim.gate import Gate
from drivers.sim.power import account
from drivers.sim.records import ForeignRecord, MachineRecord, VolumeRecord, seen
from drivers.sim.store import Transaction
from drivers.sim.volumes import METADATA_BYTES, SimVolumes


class SimAdoption:
    """The verbs of a connection. See :class:`drivers.api.Adoption`."""

    gate: Gate
    volumes: SimVolumes

    def list_foreign(self, after: str | None, limit: int, deadline: Deadline) -> ForeignPage:
        """See :meth:`drivers.api.Adoption.list_foreign`."""
        if not 1 <= limit <= MOST_FOREIGN:
            raise Refused(f"a page has 1 to {MOST_FOREIGN} machines")
        with self.gate.verb("adoption.list_foreign", deadline, write=False) as transaction:
            every = sorted(
                (
                    each
                    for each in transaction.all(ForeignRecord)
                    if each.adopted_as is None and each.id > (after or "")
                ),
                key=lambda each: each.id,
            )
        page = every[:limit]
        return ForeignPage(tuple(_shown(each) for each in page), page[-1].id if len(every) > limit else None)

    def inspect_foreign(self, ref: str, deadline: Deadline) -> ForeignMachine | None:
        """See :meth:`drivers.api.Adoption.inspect_foreign`."""
        with self.gate.verb("adoption.inspect_foreign", deadline, write=False) as transaction:
            found = transaction.get(ForeignRecord, ref)
        return None if found is None or found.adopted_as is not None else _shown(found)

    def adopt(self, spec: AdoptionSpec, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Adoption.adopt`."""
        with self.gate.verb("adoption.adopt", deadline) as transaction:
            found = transaction.get(ForeignRecord, spec.ref)
            if found is None:
                raise Refused(f"the simulated host has no machine {spec.ref} of somebody else's")
            if found.adopted_as is not None:
                there = transaction.get(MachineRecord, found.adopted_as)
                if found.adopted_as != str(spec.id) or there is None:
                    raise Refused(f"the machine {spec.ref} was adopted before")
                return seen(there)
            if found.obstacles:
                raise Refused(found.obstacles[0])
            if transaction.get(MachineRecord, str(spec.id)) is not None:
                raise Refused(f"the simulated host has a machine {spec.id} already")
            _check_disks(spec, [str(each["key"]) for each in found.disks])
            return seen(self._take(transaction, found, spec))

    def disown(self, machine_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Adoption.disown`."""
        with self.gate.verb("adoption.disown", deadline) as transaction:
            machine = transaction.get(MachineRecord, str(machine_id))
            if machine is None:
                return
            every = transaction.all(ForeignRecord)
            found = next((each for each in every if each.adopted_as == machine.id), None)
            if found is None:
                raise Refused(f"the machine {machine_id} was not adopted")
            self._give_back(transaction, found, machine)

    # ------------------------------------------------------------------------------------- parts

    def _take(self, transaction: Transaction, found: ForeignRecord, spec: AdoptionSpec) -> MachineRecord:
        now_ns = self.gate.now_ns(transaction)
        disks = {str(disk.volume_id): disk.device for disk in spec.disks.values()}
        for each in found.disks:
            volume = _volume(each, spec.disks[str(each["key"])].volume_id)
            self.volumes.claim(transaction, volume.size_bytes)
            transaction.put(volume)
            transaction.hold(f"volume:{volume.id}", str(spec.id))
        runs = found.power == Power.RUNNING
        made = MachineRecord(
            str(spec.id), spec.name, found.vcpus, found.ram_mib, found.firmware, disks=disks, read_only=[], nics={},
            marks=dict(spec.marks), hostname=found.name, ssh_keys=0, seed_sha256=None, made_ns=now_ns,
            power=found.power, on_since_ns=now_ns if runs else None, starts=[[now_ns, None, None]] if runs else [],
        )  # fmt: skip
        if runs:
            account(transaction, vcpus=made.vcpus, ram_mib=made.ram_mib)
        transaction.put(made)
        transaction.put(replace(found, adopted_as=made.id, volumes=_keys(found, spec)))
        transaction.tell(made.id, made)
        return made

    def _give_back(self, transaction: Transaction, found: ForeignRecord, machine: MachineRecord) -> None:
        disks = []
        for each in found.disks:
            volume = transaction.get(VolumeRecord, found.volumes[str(each["key"])])
            if volume is None:
                raise Refused("a disk of the adopted machine is gone")
            disks.append({**each, "size_bytes": volume.size_bytes, "content": volume.content})
            self.volumes.claim(transaction, -volume.size_bytes)
            transaction.release(f"volume:{volume.id}", machine.id)
            transaction.delete(VolumeRecord, volume.id)
        if machine.power == Power.RUNNING:
            account(transaction, vcpus=-machine.vcpus, ram_mib=-machine.ram_mib)
        transaction.delete(MachineRecord, machine.id)
        transaction.put(replace(found, adopted_as=None, volumes={}, disks=disks, power=machine.power))
        transaction.tell(machine.id, None)


def _shown(found: ForeignRecord) -> ForeignMachine:
    return ForeignMachine(
        ref=found.id,
        name=found.name,
        power=Power(found.power),
        vcpus=found.vcpus,
        ram_mib=found.ram_mib,
        firmware=Firmware(found.firmware),
        disks=tuple(ForeignDisk(str(each["key"]), int(str(each["size_bytes"]))) for each in found.disks),
        nics=tuple(ForeignNic(str(each["mac"]), str(each["network"])) for each in found.nics),
        guest=found.guest,
        obstacles=tuple(found.obstacles),
    )


def _check_disks(spec: AdoptionSpec, keys: list[str]) -> None:
    if set(spec.disks) != set(keys):
        raise Refused("the machine's disks are not those that were named")
    devices = {disk.device for disk in spec.disks.values()}
    if len(devices) != len(keys) or len({disk.volume_id for disk in spec.disks.values()}) != len(keys):
        raise Refused("two disks of the machine share a device name or a volume")


def _keys(found: ForeignRecord, spec: AdoptionSpec) -> dict[str, str]:
    return {str(each["key"]): str(spec.disks[str(each["key"])].volume_id) for each in found.disks}


def _volume(disk: Mapping[str, object], volume_id: UUID) -> VolumeRecord:
    return VolumeRecord(str(volume_id), int(str(disk["size_bytes"])), str(disk["content"]), METADATA_BYTES)
