"""Placement: which host takes a machine, and why not the others. Pure: no database, no clock, no dice.

Every filter is asked about every host, so a :class:`Decision` names each host with all its reasons. The caller claims
the chosen host by a conditional update and decides again when another was faster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Constraint(StrEnum):
    """What a host can fail to offer."""

    __graphql_name__ = "PlacementConstraint"

    ENABLED = "ENABLED"
    """The operator has taken the host out of service."""
    ONLINE = "ONLINE"
    """The host does not answer."""
    HYPERVISOR = "HYPERVISOR"
    """Another hypervisor was asked for."""
    AVAILABILITY_ZONE = "AVAILABILITY_ZONE"
    """Another availability zone was asked for."""
    VCPUS = "VCPUS"
    """Too few vCPUs are free."""
    RAM_MIB = "RAM_MIB"
    """Too little memory is free."""
    DISK_GIB = "DISK_GIB"
    """Too little disk is free."""
    CAPABILITY = "CAPABILITY"
    """The hypervisor lacks a feature that is needed."""
    VOLUME_LOCALITY = "VOLUME_LOCALITY"
    """A volume that is to be attached lies on another host."""
    OVERLAPPING_SUBNET = "OVERLAPPING_SUBNET"
    """The host carries another network with an overlapping range and cannot keep the two apart."""
    FAILED_BEFORE = "FAILED_BEFORE"
    """The host failed in an earlier round of this job."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host as placement sees it. Capacities are after overcommit; ``free_*`` is what is left of them."""

    id: int
    uid: str
    name: str
    hypervisor: str
    availability_zone: str
    enabled: bool
    online: bool
    vcpus: int
    ram_mib: int
    disk_gib: int
    free_vcpus: int
    free_ram_mib: int
    free_disk_gib: int
    capabilities: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be placed. ``only`` restricts to hosts (by key) that hold the volumes; ``colliding`` are hosts whose
    networks overlap with the wanted ones.
    """

    vcpus: int
    ram_mib: int
    disk_gib: int
    hypervisor: str | None = None
    availability_zone: str | None = None
    needs: frozenset[str] = frozenset()
    only: frozenset[int] | None = None
    colliding: frozenset[int] = frozenset()
    avoid: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Reason:
    """One constraint a host fails. ``short_by`` is how much is missing, where that is a number."""

    constraint: Constraint
    message: str
    short_by: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One host's answer; ``weight`` orders those that fit, highest first."""

    host_uid: str
    host_name: str
    fits: bool
    weight: float
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class SmallestChange:
    """What would make it fit with the least change to the request."""

    message: str
    changes: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The whole explanation. ``counts`` tells tenants how many hosts fail each constraint; ``verdicts`` name hosts and
    are for operators.
    """

    chosen: str | None
    considered: int
    counts: dict[str, int] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    smallest_change: SmallestChange | None = None

    def to_json(self) -> dict[str, Any]:
        """As kept in a job's or refusal's row."""
        return asdict(self)


Filter = Callable[[Request, Candidate], Reason | None]


def _enabled(_request: Request, host: Candidate) -> Reason | None:
    return None if host.enabled else Reason(Constraint.ENABLED, "the host is disabled")


def _online(_request: Request, host: Candidate) -> Reason | None:
    return None if host.online else Reason(Constraint.ONLINE, "the host does not answer")


def _hypervisor(request: Request, host: Candidate) -> Reason | None:
    if request.hypervisor in (None, host.hypervisor):
        return None
    return Reason(Constraint.HYPERVISOR, f"{request.hypervisor} is asked for, the host runs {host.hypervisor}")


def _zone(request: Request, host: Candidate) -> Reason | None:
    if request.availability_zone in (None, host.availability_zone):
        return None
    return Reason(
        Constraint.AVAILABILITY_ZONE,
        f"zone {request.availability_zone} is asked for, the host is in {host.availability_zone}",
    )


def _room(constraint: Constraint, wanted: int, free: int, total: int, unit: str) -> Reason | None:
    free = max(free, 0)  # the operator may have lowered a ratio below what is taken
    if wanted <= free:
        return None
    return Reason(constraint, f"{wanted} {unit} wanted, {free} of {total} free", wanted - free)


def _vcpus(request: Request, host: Candidate) -> Reason | None:
    return _room(Constraint.VCPUS, request.vcpus, host.free_vcpus, host.vcpus, "vCPUs")


def _ram(request: Request, host: Candidate) -> Reason | None:
    return _room(Constraint.RAM_MIB, request.ram_mib, host.free_ram_mib, host.ram_mib, "MiB of memory")


def _disk(request: Request, host: Candidate) -> Reason | None:
    return _room(Constraint.DISK_GIB, request.disk_gib, host.free_disk_gib, host.disk_gib, "GiB of disk")


def _capability(request: Request, host: Candidate) -> Reason | None:
    lacking = sorted(request.needs - host.capabilities)
    return Reason(Constraint.CAPABILITY, f"the host lacks {', '.join(lacking)}") if lacking else None


def _locality(request: Request, host: Candidate) -> Reason | None:
    if request.only is None or host.id in request.only:
        return None
    return Reason(Constraint.VOLUME_LOCALITY, "a volume lies on another host")


def _overlap(request: Request, host: Candidate) -> Reason | None:
    if host.id not in request.colliding or "OVERLAPPING_SUBNETS" in host.capabilities:
        return None
    return Reason(Constraint.OVERLAPPING_SUBNET, "another network with an overlapping range is on the host")


def _avoid(request: Request, host: Candidate) -> Reason | None:
    if host.id not in request.avoid:
        return None
    return Reason(Constraint.FAILED_BEFORE, "the host failed earlier in this job")


FILTERS: tuple[Filter, ...] = (
    _enabled, _online, _hypervisor, _zone, _vcpus, _ram, _disk, _capability, _locality, _overlap, _avoid,
)  # fmt: skip


def weigh(request: Request, host: Candidate) -> float:
    """How good a host is, 0 to 1: the smallest share of vCPU, memory and disk that stays free, so load spreads and no
    one resource runs out first.
    """
    left = (
        (host.free_vcpus - request.vcpus) / host.vcpus if host.vcpus else 0.0,
        (host.free_ram_mib - request.ram_mib) / host.ram_mib if host.ram_mib else 0.0,
        (host.free_disk_gib - request.disk_gib) / host.disk_gib if host.disk_gib else 0.0,
    )
    return round(min(left), 6)


def judge(request: Request, host: Candidate) -> Verdict:
    """One host's verdict."""
    reasons = tuple(reason for check in FILTERS if (reason := check(request, host)) is not None)
    return Verdict(host.uid, host.name, not reasons, weigh(request, host), reasons)


def decide(request: Request, hosts: Sequence[Candidate]) -> Decision:
    """The host with the highest weight among those that fit (the first by name among equals), and all the reasons."""
    verdicts = sorted((judge(request, host) for host in hosts), key=lambda v: (not v.fits, -v.weight, v.host_name))
    counts = Counter(reason.constraint.value for verdict in verdicts for reason in verdict.reasons)
    chosen = verdicts[0].host_uid if verdicts and verdicts[0].fits else None
    change = None if chosen is not None else _smallest_change(verdicts)
    return Decision(chosen, len(verdicts), dict(sorted(counts.items())), tuple(verdicts), change)


_FIXED = {Constraint.ENABLED, Constraint.ONLINE, Constraint.FAILED_BEFORE}
"""What no change of the request can mend."""


def _smallest_change(verdicts: Sequence[Verdict]) -> SmallestChange | None:
    """Of the hosts that a different request could use: the one with the fewest constraints to change, then the least to
    give up.
    """
    mendable = [v for v in verdicts if not any(reason.constraint in _FIXED for reason in v.reasons)]
    if not mendable:
        return None
    best = min(mendable, key=lambda v: (len(v.reasons), sum(r.short_by or 0 for r in v.reasons), v.host_name))
    return SmallestChange("; ".join(_mend(reason) for reason in best.reasons), best.reasons)


_MENDS = {
    Constraint.VCPUS: "ask for {by} vCPUs less",
    Constraint.RAM_MIB: "ask for {by} MiB of memory less",
    Constraint.DISK_GIB: "ask for {by} GiB of disk less",
    Constraint.HYPERVISOR: "leave the hypervisor open",
    Constraint.AVAILABILITY_ZONE: "leave the availability zone open",
    Constraint.VOLUME_LOCALITY: "leave out volumes that lie on different hosts",
    Constraint.OVERLAPPING_SUBNET: "use a network whose range does not overlap with others",
}


def _mend(reason: Reason) -> str:
    return _MENDS.get(reason.constraint, "do without: {message}").format(by=reason.short_by, message=reason.message)
