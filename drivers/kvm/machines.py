"""Machines: libvirt domains whose UUID is our id.

Ours is what is called after its own UUID (``names.is_ours``), and what was adopted (drivers/kvm/register.py): such a
machine is powered on and off, looked at and counted; its hardware stays what its owner made it, and it is never removed
here, only handed back. No other domain of the host is ever changed. A volume
belongs to one domain at a time: check and claim happen under one lock of this process and are looked at once more
afterwards, for the sake of other processes. Power is in ``power.py``, plugging in ``disks.py``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import (
    Capability,
    Deadline,
    DiskSpec,
    GuestSigns,
    Machine,
    MachineSnapshot,
    MachineSpec,
    NicSpec,
    PowerAction,
    Refused,
    Sample,
    Transient,
)
from drivers.kvm import accelerator, disks, files, guests, names, plugging, power, rewinding, seed, stats, xml
from drivers.kvm.errors import found, told
from drivers.kvm.link import Link
from drivers.kvm.names import PoolFile
from drivers.kvm.register import Record, Register
from drivers.kvm.xml.common import NAMESPACE
from drivers.kvm.xml.domain import name_in, with_changes

NOWAIT = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


class Domains:
    """The facet :class:`drivers.api.Machines`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.register = Register()
        self._names: dict[UUID, str] = {}  # the machines' own names, which bulk answers lack

    # ------------------------------------------------------------------------------------- existence

    def ensure(self, spec: MachineSpec, deadline: Deadline) -> Machine:
        """Make the machine exist. On one that is there, name, marks, vcpus and ram are set for its next start."""
        with told(f"making machine {spec.id}"), self._link.only(deadline, "machine", str(spec.id)):
            connection = self._link.open(deadline)
            domain = look_up(connection, spec.id)
            if domain is None:
                self._refuse_adopted(spec.id, deadline)
                domain = self._define(connection, spec, deadline)
            else:
                _change(connection, domain, spec)
            self._names[spec.id] = spec.name
            return self.seen(domain)

    def remove(self, machine_id: UUID, deadline: Deadline) -> None:
        """Power off by force and forget the machine, its seed and its console log."""
        with told(f"removing machine {machine_id}"), self._link.only(deadline, "machine", str(machine_id)):
            domain = look_up(self._link.open(deadline), machine_id)
            if domain is None:
                self._refuse_adopted(machine_id, deadline)
            else:
                power.cut(domain)
                rewinding.drop_all(domain)
                deadline.check("removing a machine")
                found(lambda: domain.undefineFlags(_UNDEFINE), "NO_DOMAIN")
            self._names.pop(machine_id, None)
            where = files.pool(self._link, deadline)
            files.remove(where, "seed", machine_id)
            files.remove(where, "console", machine_id)

    def inspect(self, machine_id: UUID, deadline: Deadline) -> Machine | None:
        """The machine as it is now."""
        with told(f"looking at machine {machine_id}"):
            there = self._find(machine_id, deadline)
            if there is None:
                return None
            self._names.pop(machine_id, None)
            return found(lambda: self.seen(*there), "NO_DOMAIN")

    def list(self, deadline: Deadline) -> Sequence[Machine]:
        """Every machine of ours: three calls, and one more for each machine met for the first time."""
        with told("listing machines"):
            adopted = self.register.everything(files.pool(self._link, deadline))
            connection = self._link.open(deadline)
            listed = connection.getAllDomainStats(stats.STATE_GROUPS, NOWAIT)
            suspended = saved(connection, listed)
            seen = []
            for domain, values in listed:
                uuid = UUID(bytes=domain.UUID())
                record = None if ours(domain) else adopted.get(uuid)
                name = record.name if record is not None else self._name(domain) if ours(domain) else None
                if name is not None:
                    seen.append(_machine(uuid, record, name, values, saved=uuid in suspended))
            return seen

    def sample(self, deadline: Deadline) -> Sequence[Sample]:
        """Counters of every machine of ours: one call, one for what was adopted, and one to tell what is off from what
        is suspended.
        """
        with told("sampling machines"):
            adopted = self.register.everything(files.pool(self._link, deadline))
            connection = self._link.open(deadline)
            listed = connection.getAllDomainStats(stats.SAMPLE_GROUPS, NOWAIT)
            suspended = saved(connection, listed)
        now, counted = datetime.now(UTC), []
        for domain, values in listed:
            uuid = UUID(bytes=domain.UUID())
            off = uuid in suspended
            if ours(domain):
                counted.append(stats.sample(uuid, now, values, saved=off))
            elif (record := adopted.get(uuid)) is not None:
                counted.append(stats.sample(record.id, now, values, saved=off, disk_names=record.keys))
        return counted

    # ------------------------------------------------------------------------------------- verbs on one machine

    def power(self, machine_id: UUID, action: PowerAction, deadline: Deadline) -> Machine:
        """Carry out the action and answer with the state seen afterwards."""
        with told(f"{action} of machine {machine_id}"):
            there = self._find(machine_id, deadline)
            if there is None:
                raise Refused(f"there is no machine {machine_id} on this host")
            power.act(self._link, there[0], action, deadline)
            return self.seen(*there)

    def signs(self, machine_id: UUID, deadline: Deadline) -> GuestSigns:
        """What is heard of the machine's guest."""
        with told(f"listening to the guest of machine {machine_id}"):
            there = self._find(machine_id, deadline)
            if there is None:
                raise Refused(f"there is no machine {machine_id} on this host")
            return guests.signs(self._link.open(deadline), there[0], deadline)

    def attach(self, machine_id: UUID, disk: DiskSpec, deadline: Deadline) -> Machine:
        """Plug a volume in."""
        doing = f"attaching volume {disk.volume_id} to machine {machine_id}"
        with told(doing), self._link.only(deadline, "machine", str(machine_id)):
            domain = self._must(machine_id, deadline)
            power.check_not_suspended(domain)
            rewinding.check_none(domain)
            disks.attach(self._link, domain, disk, deadline)
            return self.seen(domain)

    def detach(self, machine_id: UUID, volume_id: UUID, deadline: Deadline) -> Machine:
        """Unplug a volume and wait until the guest let go."""
        doing = f"detaching volume {volume_id} from machine {machine_id}"
        with told(doing), self._link.only(deadline, "machine", str(machine_id)):
            domain = self._must(machine_id, deadline)
            power.check_not_suspended(domain)
            rewinding.check_none(domain)
            disks.detach(self._link, domain, volume_id, deadline)
            return self.seen(domain)

    def plug(self, machine_id: UUID, nic: NicSpec, deadline: Deadline) -> None:
        """Plug a port in."""
        doing = f"plugging port {nic.port_id} into machine {machine_id}"
        with told(doing), self._link.only(deadline, "machine", str(machine_id)):
            domain = self._must(machine_id, deadline)
            power.check_not_suspended(domain)
            rewinding.check_none(domain)
            plugging.plug(self._link, domain, nic, deadline)

    def unplug(self, machine_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """Unplug a port and wait until the guest let go."""
        doing = f"unplugging port {port_id} from machine {machine_id}"
        with told(doing), self._link.only(deadline, "machine", str(machine_id)):
            domain = look_up(self._link.open(deadline), machine_id)
            if domain is not None:
                if any(port_id in ports for _, ports in plugging.definitions(domain)):
                    power.check_not_suspended(domain)
                    rewinding.check_none(domain)
                plugging.unplug(self._link, domain, port_id, deadline)

    def plugged(self, machine_id: UUID, deadline: Deadline) -> Sequence[UUID]:
        """The ports that a machine is on."""
        with told(f"looking at machine {machine_id}"):
            domain = look_up(self._link.open(deadline), machine_id)
            return [] if domain is None else sorted(set().union(*(each for _, each in plugging.definitions(domain))))

    def snapshot(
        self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline, *, memory: bool, quiesce: bool
    ) -> MachineSnapshot:
        """Snapshot the whole machine."""
        with self._at_work(f"snapshotting machine {machine_id}", machine_id, deadline):
            domain = self._must(machine_id, deadline)
            return rewinding.make(domain, snapshot_id, deadline, memory=memory, quiesce=quiesce)

    def revert(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Machine:
        """Bring disks and memory back."""
        with self._at_work(f"reverting machine {machine_id}", machine_id, deadline):
            domain = self._must(machine_id, deadline)
            rewinding.revert(domain, snapshot_id, deadline)
            return self.seen(domain)

    def remove_snapshot(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> None:
        """Forget a snapshot of the whole machine."""
        with self._at_work(f"removing a snapshot of machine {machine_id}", machine_id, deadline):
            domain = look_up(self._link.open(deadline), machine_id)
            if domain is not None:
                rewinding.remove(domain, snapshot_id, deadline)

    def snapshots(self, machine_id: UUID, deadline: Deadline) -> Sequence[MachineSnapshot]:
        """The snapshots of the whole machine."""
        with told(f"listing snapshots of machine {machine_id}", Capability.MACHINE_SNAPSHOT):
            domain = look_up(self._link.open(deadline), machine_id)
            return [] if domain is None else rewinding.every(domain)

    # ------------------------------------------------------------------------------------- parts

    @contextmanager
    def _at_work(self, doing: str, machine_id: UUID, deadline: Deadline) -> Iterator[None]:
        capability = Capability.MACHINE_SNAPSHOT
        with told(doing, capability), self._link.only(deadline, "machine", str(machine_id)):
            yield

    def _define(self, connection: Any, spec: MachineSpec, deadline: Deadline) -> Any:
        _check(connection, spec)
        where = files.pool(self._link, deadline)
        sources = [disks.source(where, each) for each in spec.disks]
        try:
            plan = xml.DomainPlan(
                spec=spec,
                disks=sources,
                console_path=_console(where, spec.id),
                seed_path=_put_seed(where, spec, deadline) if spec.seed else None,
                accelerator=accelerator.choose(self._link, connection),
                options=self._link.options,
            )
            with self._link.only(deadline, "claims"):
                deadline.check("defining a machine")
                for each in sources:
                    disks.check_free(connection, each, spec.id)
                domain = connection.defineXML(xml.text(xml.domain(plan)))
            self._check_claims(connection, domain, sources, spec.id)
        except BaseException:
            files.remove(where, "seed", spec.id)
            files.remove(where, "console", spec.id)
            raise
        return domain

    def _check_claims(self, connection: Any, domain: Any, sources: Sequence[xml.DiskSource], machine_id: UUID) -> None:
        """Step back when another process claimed a volume in the same moment."""
        try:
            for each in sources:
                disks.check_free(connection, each, machine_id)
        except Refused as error:
            domain.undefineFlags(_UNDEFINE)
            raise Transient(f"at the same moment: {error.reason}") from error

    def _must(self, machine_id: UUID, deadline: Deadline) -> Any:
        """The domain of a machine whose hardware is ours to change."""
        domain = look_up(self._link.open(deadline), machine_id)
        if domain is None:
            self._refuse_adopted(machine_id, deadline)
            raise Refused(f"there is no machine {machine_id} on this host")
        return domain

    def domain(self, machine_id: UUID, deadline: Deadline) -> Any | None:
        """The domain of a machine, made by us or adopted. Raises libvirt's errors."""
        there = self._find(machine_id, deadline)
        return None if there is None else there[0]

    def _find(self, machine_id: UUID, deadline: Deadline) -> tuple[Any, Record | None] | None:
        """The domain of a machine, made by us or adopted; with its record in that case."""
        connection = self._link.open(deadline)
        domain = look_up(connection, machine_id)
        if domain is not None:
            return domain, None
        record = self.register.of_machine(files.pool(self._link, deadline), machine_id)
        if record is None:
            return None
        domain = found(lambda: connection.lookupByUUIDString(str(record.domain)), "NO_DOMAIN")
        return None if domain is None else (domain, record)

    def _refuse_adopted(self, machine_id: UUID, deadline: Deadline) -> None:
        if self.register.of_machine(files.pool(self._link, deadline), machine_id) is not None:
            raise Refused("the machine was adopted: it stays as its owner made it, and can be handed back")

    def our_id(self, name: str, domain_id: UUID, deadline: Deadline) -> UUID | None:
        """The machine of ours that a domain of this name and UUID is, None when it is none."""
        if names.is_ours(name, domain_id):
            return domain_id
        with told("looking whose a machine is"):
            record = self.register.everything(files.pool(self._link, deadline)).get(domain_id)
        return None if record is None else record.id

    def seen(self, domain: Any, record: Record | None = None) -> Machine:
        """A domain of ours as it is now, an adopted one by its record. Raises libvirt's errors."""
        ((_, values),) = domain.connect().domainListGetStats([domain], stats.STATE_GROUPS, NOWAIT)
        uuid = UUID(bytes=domain.UUID())
        suspended = stats.is_off(values) and bool(domain.hasManagedSaveImage(0))
        name = record.name if record is not None else self._name(domain) or domain.name()
        return _machine(uuid, record, name, values, saved=suspended)

    def _name(self, domain: Any) -> str | None:
        """The machine's own name, None when the domain is gone."""
        our_id = UUID(bytes=domain.UUID())
        if our_id not in self._names:
            kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
            answer = found(lambda: domain.metadata(kind, NAMESPACE, 0), "NO_DOMAIN_METADATA", "NO_DOMAIN")
            if answer is None:
                return None
            self._names[our_id] = name_in(xml.parse(answer)) or domain.name()
        return self._names[our_id]


def _machine(uuid: UUID, record: Record | None, name: str, values: stats.Values, *, saved: bool) -> Machine:
    machine = stats.machine(uuid, name, values, saved=saved)
    return machine if record is None else replace(machine, id=record.id, volumes=record.volumes)


def saved(connection: Any, listed: Sequence[Any]) -> set[UUID]:
    """The domains whose memory lies saved on the host; asked only when some are off."""
    if not any(stats.is_off(values) for _, values in listed):
        return set()
    every = connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
    return {UUID(bytes=domain.UUID()) for domain in every}


def ours(domain: Any) -> UUID | None:
    """The id of a domain that is ours."""
    our_id = UUID(bytes=domain.UUID())
    return our_id if names.is_ours(domain.name(), our_id) else None


def look_up(connection: Any, machine_id: UUID) -> Any | None:
    """The domain of that id if it is ours."""
    domain = found(lambda: connection.lookupByUUIDString(str(machine_id)), "NO_DOMAIN")
    return domain if domain is not None and ours(domain) else None


def _check(connection: Any, spec: MachineSpec) -> None:
    if not spec.disks:
        raise Refused("a machine needs a disk to boot from")
    if len({each.device for each in spec.disks}) < len(spec.disks):
        raise Refused("two disks have the same device name")
    for nic in spec.nics:
        plugging.check(connection, nic)


def _console(where: Any, machine_id: UUID) -> str:
    """The path of the console log, made here so that the pool knows the file and the one it is rotated to."""
    paths: list[str] = []
    for extension in ("log", "log.0"):
        file = PoolFile("console", machine_id, extension)
        there = files.look_up(where, file)
        volume = there if there is not None else where.createXML(xml.text(xml.volume(str(file), 0, "raw")), 0)
        paths.append(volume.path())
    return paths[0]


def _put_seed(where: Any, spec: MachineSpec, deadline: Deadline) -> str:
    """The path of the first-boot image, uploaded anew: no machine of this id is there yet."""
    assert spec.seed is not None  # noqa: S101 - the caller looked; this tells mypy
    image = seed.iso(spec.seed)
    file = PoolFile("seed", spec.id, "iso")
    files.delete(where, file)
    volume = where.createXML(xml.text(xml.volume(str(file), len(image), "raw")), 0)
    files.upload(volume, io.BytesIO(image), len(image), deadline, lambda _: None)
    return str(volume.path())


def _change(connection: Any, domain: Any, spec: MachineSpec) -> None:
    flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    before = xml.parse(domain.XMLDesc(flags))
    after = with_changes(before, spec)
    if after is not None:
        connection.defineXML(xml.text(after))
