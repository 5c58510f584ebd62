"""Machines on a host that others made with libvirt's own tools: seen, taken over by a record in our pool, given back.

A foreign machine is known by its domain's UUID. Taking it over touches nothing of the domain, running or not: no
definition, no metadata, no disk (drivers/kvm/register.py). Its disks are known by their names in the domain, wherever
their files lie; they can be exported and copied, and what would change the machine's hardware is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import (
    MOST_FOREIGN,
    AdoptionSpec,
    Deadline,
    ForeignDisk,
    ForeignMachine,
    ForeignPage,
    Machine,
    Refused,
    Transient,
)
from drivers.kvm import files, names, register, sources, stats, xml
from drivers.kvm.errors import found, told
from drivers.kvm.link import Link
from drivers.kvm.machines import NOWAIT, Domains, look_up, ours, saved
from drivers.kvm.register import Record
from drivers.kvm.xml import foreign

_Listed = tuple[Any, dict[str, Any]]


class DomainAdoption:
    """The verbs of a connection. See :class:`drivers.api.Adoption`."""

    def __init__(self, link: Link, machines: Domains) -> None:
        self._link = link
        self._machines = machines

    def list_foreign(self, after: str | None, limit: int, deadline: Deadline) -> ForeignPage:
        """See :meth:`drivers.api.Adoption.list_foreign`. Three calls, and a few for each machine of the page."""
        if not 1 <= limit <= MOST_FOREIGN:
            raise Refused(f"a page has 1 to {MOST_FOREIGN} machines")
        with told("listing machines of others"):
            connection = self._link.open(deadline)
            adopted = self._machines.register.everything(files.pool(self._link, deadline))
            listed = connection.getAllDomainStats(stats.STATE_GROUPS, NOWAIT)
            theirs = {ref: each for each in listed if (ref := _ref(each, adopted)) is not None and ref > (after or "")}
            page = sorted(theirs)[:limit]
            shown = self._shown(connection, [theirs[ref] for ref in page], deadline)
        return ForeignPage(tuple(shown), page[-1] if len(theirs) > limit else None)

    def inspect_foreign(self, ref: str, deadline: Deadline) -> ForeignMachine | None:
        """See :meth:`drivers.api.Adoption.inspect_foreign`."""
        with told("looking at a machine of others"):
            connection = self._link.open(deadline)
            domain = _domain(connection, ref)
            adopted = self._machines.register.everything(files.pool(self._link, deadline))
            if domain is None or ours(domain) or UUID(bytes=domain.UUID()) in adopted:
                return None
            listed = found(partial(connection.domainListGetStats, [domain], stats.STATE_GROUPS, NOWAIT), "NO_DOMAIN")
            return next(iter(self._shown(connection, listed or [], deadline)), None)

    def adopt(self, spec: AdoptionSpec, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Adoption.adopt`."""
        with (
            told(f"adopting machine {spec.ref}"),
            self._link.only(deadline, "machine", str(spec.id)),
            self._link.only(deadline, "adopting"),
        ):
            connection, where = self._link.open(deadline), files.pool(self._link, deadline)
            domain = _domain(connection, spec.ref)
            if domain is None or ours(domain):
                raise Refused(f"there is no machine {spec.ref} of somebody else's on this host")
            record = self._machines.register.everything(where).get(UUID(bytes=domain.UUID()))
            if record is None:
                record = self._record(connection, where, domain, spec, deadline)
            elif record.id != spec.id:
                raise Refused(f"the machine {spec.ref} is one of ours already")
            return self._machines.seen(domain, record)

    def disown(self, machine_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Adoption.disown`."""
        with (
            told(f"handing machine {machine_id} back"),
            self._link.only(deadline, "machine", str(machine_id)),
            self._link.only(deadline, "adopting"),
        ):
            if look_up(self._link.open(deadline), machine_id) is not None:
                raise Refused(f"the machine {machine_id} was not adopted")
            where = files.pool(self._link, deadline)
            record = self._machines.register.of_machine(where, machine_id)
            if record is not None:
                for volume_id in record.disks:
                    sources.clear(where, volume_id)
                    files.remove(where, "export", volume_id)
                register.remove(where, register.of_domain(where, record.domain))

    # ------------------------------------------------------------------------------------- parts

    def _record(self, connection: Any, where: Any, domain: Any, spec: AdoptionSpec, deadline: Deadline) -> Record:
        if look_up(connection, spec.id) is not None or self._machines.register.of_machine(where, spec.id) is not None:
            raise Refused(f"the host has a machine {spec.id} already")
        listed = connection.domainListGetStats([domain], stats.STATE_GROUPS, NOWAIT)
        shown = next(iter(self._shown(connection, listed, deadline)), None)
        if shown is None:
            raise Refused(f"the machine {spec.ref} is gone from this host")
        if shown.obstacles:
            raise Refused(shown.obstacles[0])
        if {each.key for each in shown.disks} != set(spec.disks):
            raise Refused("the machine's disks are not those that were named")
        wanted = spec.disks.values()
        if min(len({each.device for each in wanted}), len({each.volume_id for each in wanted})) < len(wanted):
            raise Refused("two disks of the machine share a device name or a volume")
        disks = {each.volume_id: (key, each.device) for key, each in spec.disks.items()}
        record = Record(UUID(bytes=domain.UUID()), spec.id, spec.name, disks, dict(spec.marks))
        deadline.check("adopting a machine")
        register.write(where, record)
        if any(each.id != spec.id for each in register.of_domain(where, record.domain)):
            register.remove(where, [record.file])
            raise Transient("somebody else adopts the same machine at this moment")
        return record

    def _shown(self, connection: Any, listed: Sequence[_Listed], deadline: Deadline) -> list[ForeignMachine]:
        """The machines that are still there."""
        suspended = saved(connection, listed)
        every = []
        for domain, values in listed:
            deadline.check("looking at machines of others")
            uuid = UUID(bytes=domain.UUID())
            definition = found(partial(domain.XMLDesc, 0), "NO_DOMAIN")
            if definition is not None:
                every.append(_machine(domain, values, xml.parse(definition), suspended=uuid in suspended))
        return every


def _machine(domain: Any, values: dict[str, Any], definition: xml.Element, *, suspended: bool) -> ForeignMachine:
    seen = stats.machine(UUID(bytes=domain.UUID()), domain.name(), values, saved=suspended)
    disks = foreign.domain_disks(definition)
    sizes = {each.key: None if each.obstacle else _size_bytes(domain, each.key) for each in disks}
    return ForeignMachine(
        ref=str(seen.id),
        name=seen.name,
        power=seen.power,
        vcpus=seen.vcpus,
        ram_mib=seen.ram_mib,
        firmware=foreign.firmware(definition),
        disks=tuple(ForeignDisk(each.key, sizes[each.key] or 0) for each in disks),
        nics=foreign.domain_nics(definition),
        guest=foreign.guest(definition),
        obstacles=tuple(_obstacles(domain, disks, sizes)),
    )


def _obstacles(domain: Any, disks: Sequence[foreign.DomainDisk], sizes: dict[str, int | None]) -> list[str]:
    """Why the machine cannot be taken over as it is."""
    told = [] if domain.isPersistent() else ["it is transient: nothing is left of it once it is off"]
    told += [each.obstacle for each in disks if each.obstacle]
    told += [f"its disk {each.key} cannot be read" for each in disks if not each.obstacle and sizes[each.key] is None]
    return told if disks else [*told, "it has no disk"]


def _size_bytes(domain: Any, key: str) -> int | None:
    try:
        return int(domain.blockInfo(key)[0])
    except libvirt.libvirtError:  # whatever the reason: without it the disk is of no use
        return None


def _ref(listed: _Listed, adopted: dict[UUID, Record]) -> str | None:
    """What a foreign machine is called, None for one of ours."""
    uuid = UUID(bytes=listed[0].UUID())
    return None if ours(listed[0]) or uuid in adopted else str(uuid)


def _domain(connection: Any, ref: str) -> Any | None:
    """The domain of that UUID, whoever's; None for what is no UUID as libvirt writes it."""
    return found(lambda: connection.lookupByUUIDString(ref), "NO_DOMAIN") if names.is_uuid(ref) else None
