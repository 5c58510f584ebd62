"""Hosts: the machines that run machines. Only operators see them.

A host's capacity is what its driver says, times the operator's overcommit ratios. Claims are counted by one conditional
update each, so two placements can never share the last gibibyte. Every change stamps the row with a revision, by which
placement learns what changed (gateway.compute.inventory).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import StringConstraints, field_validator
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.compute.placement import Candidate
from gateway.compute.revision import Revision
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel import ids, row
from gateway.kernel import noun as nouns
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Command, KeyValue, Name, Retryable, Versioned, unique_keys
from gateway.kernel.db import unique
from gateway.kernel.errors import InUse
from gateway.kernel.noun import Noun, register
from gateway.kernel.prepared import Prepared
from gateway.kernel.row import Row, expect
from gateway.kernel.secretbox import Sealed


class Hypervisor(StrEnum):
    """What runs the machines."""

    KVM = "KVM"
    """QEMU/KVM through libvirt."""
    ESXI = "ESXI"
    """VMware ESXi or vCenter."""
    SIM = "SIM"
    """The simulated data centre."""


class HostStatus(StrEnum):
    """Whether a host answers."""

    UNKNOWN = "UNKNOWN"
    """Not asked yet."""
    ONLINE = "ONLINE"
    """It answered lately."""
    OFFLINE = "OFFLINE"
    """It does not answer; its machines may well run on."""


class Host(Row, table=True):
    """A hypervisor host. ``sealed_secret`` is encrypted with the state directory's key."""

    __tablename__ = "host"

    name: str = Field(max_length=255, unique=True)
    hypervisor: Hypervisor = row.enum(Hypervisor)
    endpoint: str = Field(max_length=1024)
    options: dict[str, str] = row.json(default_factory=dict)
    username: str | None = Field(default=None, max_length=255)
    sealed_secret: str | None = Field(default=None, max_length=4096, repr=False)
    availability_zone: str = Field(default="default", max_length=255)
    enabled: bool = True
    status: HostStatus = row.enum(HostStatus, default=HostStatus.UNKNOWN)
    status_reason: str | None = Field(default=None, max_length=500)
    seen_at: datetime | None = None
    facts: dict[str, Any] = row.json(default_factory=dict)
    pool: str | None = Field(default=None, max_length=512, index=True)
    """What hosts that hand machines to each other have in common; None: it hands none on."""
    capabilities: list[str] = row.json(default_factory=list)
    vcpu_ratio: float = 4.0
    ram_ratio: float = 1.0
    disk_ratio: float = 1.0
    vcpus: int = 0
    ram_mib: int = 0
    disk_gib: int = 0
    used_vcpus: int = 0
    used_ram_mib: int = 0
    used_disk_gib: int = 0
    free_ram_mib: int = 0
    revision: int = Field(
        default=None,
        nullable=False,
        index=True,
        sa_type=sa.BigInteger,
        sa_column_kwargs={"default": Revision("host"), "onupdate": Revision("host")},
    )

    __table_args__ = (sa.CheckConstraint("used_vcpus >= 0 AND used_ram_mib >= 0 AND used_disk_gib >= 0", "used"),)


def _operators(subject: Subject) -> sa.ColumnElement[bool]:
    return sa.true() if subject.admin else sa.false()


NOUN = register(Noun("host", Host, _operators))

ORDERS: dict[str, Any] = {"NAME": col(Host.name), "FREE_RAM_MIB": col(Host.free_ram_mib)}

Ratio = Annotated[float, Field(gt=0, le=100)]


class HostRegister(Retryable):
    """A host to use."""

    name: Name = Field(description="Its name, unique in the cloud.")
    hypervisor: Hypervisor = Field(description="What runs there.")
    endpoint: Annotated[str, StringConstraints(min_length=1, max_length=1024)] = Field(
        description="The platform's own address: `qemu:///system`, `qemu+tls://host/system`, `https://vcenter/sdk`, `sim://rack-1`."
    )
    options: list[KeyValue] = Field(
        default_factory=list, max_length=50, description="Options of the driver; its README lists them."
    )
    username: Name | None = Field(default=None, description="Who to sign in as, where the platform asks.")
    secret: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = Field(
        default=None, description="The password. Kept encrypted and never shown."
    )
    availability_zone: Name = Field(default="default", description="The zone it is in.")
    vcpu_ratio: Ratio = Field(default=4.0, description="vCPUs that may be promised for each real one.")
    ram_ratio: Ratio = Field(default=1.0, description="Memory that may be promised for each real MiB.")
    disk_ratio: Ratio = Field(default=1.0, description="Disk that may be promised for each real GiB.")

    _options = field_validator("options")(lambda value: (unique_keys(value), value)[1])


class HostUpdate(Versioned):
    """What to change of a host; what is absent stays."""

    id: AnyId = Field(description="The host.")
    enabled: bool | None = Field(default=None, description="Whether new machines may be placed there.")
    availability_zone: Name | None = Field(default=None, description="The zone it is in.")
    vcpu_ratio: Ratio | None = Field(default=None, description="vCPUs that may be promised for each real one.")
    ram_ratio: Ratio | None = Field(default=None, description="Memory that may be promised for each real MiB.")
    disk_ratio: Ratio | None = Field(default=None, description="Disk that may be promised for each real GiB.")


class HostRemove(Retryable):
    """The host to forget."""

    id: AnyId = Field(description="The host.")


class Filter(Command):
    """Which hosts."""

    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    hypervisor: Hypervisor | None = Field(default=None, description="That run this.")
    status: HostStatus | None = Field(default=None, description="In this state.")
    enabled: bool | None = Field(default=None, description="In or out of service.")
    availability_zone: str | None = Field(default=None, max_length=255, description="In this zone.")


def enlist(session: Session, _subject: Subject, command: HostRegister) -> dict[str, Any]:
    """Register a host and have it probed by a job. Raises Conflict when the name is taken."""
    host = Host(
        **command.model_dump(exclude={"idempotency_key", "options", "secret"}),
        options=unique_keys(command.options),
        sealed_secret=_box(session).seal(command.secret) if command.secret else None,
    )
    with unique(session, "A host has this name already.", "name"):
        session.add(host)
    public = nouns.public(host)
    job = jobs.submit(session, _subject, Order("host.probe", None, target=public, arguments={"host_id": host.id}))
    return {"host": host, "job": job}


def update(session: Session, subject: Subject, command: HostUpdate) -> Host:
    """Change a host."""
    host = NOUN.get(session, subject, command.id, "id")
    expect(host, command.expected_version)
    for name in command.model_fields_set - {"id", "idempotency_key", "expected_version"}:
        value = getattr(command, name)
        if value is not None:
            setattr(host, name, value)
    _recount(session, host)
    return host


def remove(session: Session, subject: Subject, command: HostRemove) -> dict[str, Any]:
    """Forget a host that nothing is on. Raises InUse with what is there."""
    host = NOUN.get(session, subject, command.id, "id")
    blockers = [
        nouns.public(each)
        for noun in nouns.BY_PREFIX.values()
        if "host_id" in noun.table.model_fields
        for each in session.exec(select(noun.table).where(noun.table.host_id == host.id).limit(20))
    ]
    if blockers:
        raise InUse("Servers or volumes are on this host.", path=("id",), blockers=blockers)
    public = nouns.public(host)
    session.delete(host)
    return {"id": public}


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Host]:
    """The hosts, for operators."""
    found = select(Host).where(NOUN.scope(subject))
    for name in wanted.model_fields_set:
        value = getattr(wanted, name)
        if value is not None:
            found = found.where(getattr(Host, name) == value)
    return found


# ------------------------------------------------------------------------------------------------ capacity


@dataclass(frozen=True, slots=True)
class Amount:
    """What a machine or volume takes of a host."""

    vcpus: int = 0
    ram_mib: int = 0
    disk_gib: int = 0


def room(physical: int, ratio: float) -> int:
    """What may be promised of a physical amount."""
    return int(physical * ratio)


PLACED_BY = ("id", "uid", "name", "hypervisor", "availability_zone", "enabled", "status", "capabilities", "vcpus",
             "vcpu_ratio", "used_vcpus", "ram_mib", "ram_ratio", "used_ram_mib", "disk_gib", "disk_ratio",
             "used_disk_gib")  # fmt: skip
"""The columns that :func:`candidate` reads."""


def candidate(host: Any) -> Candidate:
    """A host, or a row of :data:`PLACED_BY`, as placement sees it."""
    vcpus, ram = room(host.vcpus, host.vcpu_ratio), room(host.ram_mib, host.ram_ratio)
    disk = room(host.disk_gib, host.disk_ratio)
    return Candidate(
        id=host.id,
        uid=ids.encode(NOUN.prefix, host.uid),
        name=host.name,
        hypervisor=host.hypervisor.value,
        availability_zone=host.availability_zone,
        enabled=host.enabled,
        online=host.status is HostStatus.ONLINE,
        vcpus=vcpus,
        ram_mib=ram,
        disk_gib=disk,
        free_vcpus=vcpus - host.used_vcpus,
        free_ram_mib=ram - host.used_ram_mib,
        free_disk_gib=disk - host.used_disk_gib,
        capabilities=frozenset(host.capabilities),
    )


def everyone(session: Session) -> list[Candidate]:
    """All hosts, read anew: for explanations of what placement keeps no inventory for."""
    return [candidate(host) for host in session.exec(select(Host))]


def claim(session: Session, host_id: int, amount: Amount, *, wait: bool = True) -> bool:
    """Count a machine or volume in; False when it no longer fits or the host went out of service. Without ``wait`` also
    when another transaction is changing the host right now (SQLite has one at a time).
    """
    asked = tuple(bool(each) for each in (amount.vcpus, amount.ram_mib, amount.disk_gib))
    return _count(session, _claim(asked, wait=wait), host_id, amount)


@cache
def _claim(asked: tuple[bool, ...], *, wait: bool) -> Prepared:
    """The claim of those of an amount's parts that are asked for: of the others the host may well be overdrawn."""
    parts = (
        ("vcpus", Host.used_vcpus, Host.vcpus, Host.vcpu_ratio),
        ("ram_mib", Host.used_ram_mib, Host.ram_mib, Host.ram_ratio),
        ("disk_gib", Host.used_disk_gib, Host.disk_gib, Host.disk_ratio),
    )
    fits = (
        sa.select(col(Host.id))
        .where(
            col(Host.id) == sa.bindparam("host_id"),
            col(Host.enabled).is_(True),
            *(
                col(used) + sa.bindparam(name, type_=sa.BigInteger) <= col(real) * col(ratio)
                for wanted, (name, used, real, ratio) in zip(asked, parts, strict=True)
                if wanted
            ),
        )
        .with_for_update(skip_locked=not wait)
    )
    return _counting(col(Host.id) == fits.scalar_subquery())


def release(session: Session, host_id: int, amount: Amount) -> None:
    """Count a machine or volume out."""
    freed = Amount(-amount.vcpus, -amount.ram_mib, -amount.disk_gib)
    _count(session, _release(), host_id, freed)


@cache
def _release() -> Prepared:
    return _counting(col(Host.id) == sa.bindparam("host_id"))


def has_claimed(session: Session) -> bool:
    """Whether this unit of work has counted something in or out, which may yet be taken back."""
    return "host_counted" in session.info


def _count(session: Session, counting: Prepared, host_id: int, amount: Amount) -> bool:
    given = {"vcpus": amount.vcpus, "ram_mib": amount.ram_mib, "disk_gib": amount.disk_gib}
    counted = bool(counting.run(session, host_id=host_id, **given))
    if counted:
        session.info["host_counted"] = True
    return counted


def _counting(which: sa.ColumnElement[bool]) -> Prepared:
    vcpus, ram_mib, disk_gib = (sa.bindparam(name, type_=sa.BigInteger) for name in ("vcpus", "ram_mib", "disk_gib"))
    changed = {
        "used_vcpus": col(Host.used_vcpus) + vcpus,
        "used_ram_mib": col(Host.used_ram_mib) + ram_mib,
        "used_disk_gib": col(Host.used_disk_gib) + disk_gib,
        "free_ram_mib": col(Host.free_ram_mib) - ram_mib,
    }
    return Prepared(sa.update(Host).where(which).values(changed))


# ------------------------------------------------------------------------------------------------ observations


@dataclass(frozen=True, slots=True)
class Observed:
    """What a probe found out."""

    facts: dict[str, Any]
    capabilities: Iterable[str]


def seen(session: Session, host: Host, observed: Observed, at: datetime) -> None:
    """Record that a host answered, and what it is."""
    host.status = HostStatus.ONLINE
    host.status_reason = observed.facts.get("restriction")
    host.seen_at = at
    host.facts = observed.facts
    host.pool = observed.facts.get("pool")
    host.capabilities = sorted(observed.capabilities)
    host.vcpus, host.ram_mib = observed.facts["vcpus"], observed.facts["ram_mib"]
    host.disk_gib = observed.facts["disk_gib"]
    _recount(session, host)


def _recount(session: Session, host: Host) -> None:
    """Set what is left by an expression: claims are counted beside this session's copy of the row."""
    free: Any = sa.literal(room(host.ram_mib, host.ram_ratio)) - col(Host.used_ram_mib)
    host.free_ram_mib = free
    session.flush()
    session.refresh(host)


def lost(host: Host, reason: str) -> None:
    """Record that a host does not answer."""
    host.status = HostStatus.OFFLINE
    host.status_reason = reason[:500]


def _box(session: Session) -> Sealed:
    box: Sealed = session.info["sealed"]
    return box
