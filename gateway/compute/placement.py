"""Placement: which host takes a machine, and why not the others. Pure: no database, no clock, no dice.

Every filter is asked about every host, so a :class:`Decision` counts each constraint over all of them and names the
best with all their reasons. Filters that look at a host's kind only are asked once for each kind, so that thousands of
hosts are judged in milliseconds. Finding the best host without looking at all is gateway.compute.inventory; claiming it
is gateway.compute.placing.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

NAMED = 100
"""How many hosts a decision names. Its counts are of all hosts, however many they are."""


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
    SAME_HOST = "SAME_HOST"
    """The server is on this host already, and is to leave it."""
    AFFINITY = "AFFINITY"
    """The other members of the server group are on another host."""
    ANTI_AFFINITY = "ANTI_AFFINITY"
    """The host has as many members of the server group as it may have."""


class GroupPolicy(StrEnum):
    """How the members of a server group lie to each other."""

    __graphql_name__ = "ServerGroupPolicy"

    AFFINITY = "AFFINITY"
    """All on one host, or they are not made."""
    ANTI_AFFINITY = "ANTI_AFFINITY"
    """No more than `maxPerHost` on any host, or they are not made."""
    SOFT_AFFINITY = "SOFT_AFFINITY"
    """On few hosts, where there is room."""
    SOFT_ANTI_AFFINITY = "SOFT_ANTI_AFFINITY"
    """On many hosts, as evenly as there is room."""


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

    @property
    def kind(self) -> Kind:
        """All that filters of kinds look at: hosts of one kind pass or fail them together."""
        return (self.enabled, self.online, self.hypervisor, self.availability_zone, self.capabilities)


Kind = tuple[bool, bool, str, str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Together:
    """The server group of what is to be placed. ``members`` maps hosts (by key) to how many other members they have;
    ``most`` is how many a host may have under anti-affinity.
    """

    policy: GroupPolicy
    name: str
    members: Mapping[int, int] = field(default_factory=dict)
    most: int = 1


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be placed. ``only`` restricts to hosts (by key) that hold the volumes; ``colliding`` are hosts whose
    networks overlap with the wanted ones; ``avoid`` are hosts that failed, ``left`` is the host that a move begins at.
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
    together: Together | None = None
    left: int | None = None

    @property
    def singled_out(self) -> frozenset[int]:
        """The hosts that are more to it than what room they have: their verdicts differ from others of their kind."""
        members = frozenset(self.together.members) if self.together is not None else frozenset()
        return self.colliding | self.avoid | members | ({self.left} if self.left is not None else frozenset())


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
    """The whole explanation. ``counts`` tells tenants how many of all hosts fail each constraint; ``verdicts`` name the
    best hosts and are for operators.
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


def _leaves(request: Request, host: Candidate) -> Reason | None:
    if host.id != request.left:
        return None
    return Reason(Constraint.SAME_HOST, "the server is to leave this host")


def _group(request: Request, host: Candidate) -> Reason | None:
    group = request.together
    if group is None:
        return None
    here = group.members.get(host.id, 0)
    if group.policy is GroupPolicy.AFFINITY and group.members and not here:
        return Reason(Constraint.AFFINITY, f"the other members of group {group.name} are on another host")
    if group.policy is GroupPolicy.ANTI_AFFINITY and here >= group.most:
        return Reason(Constraint.ANTI_AFFINITY, f"members of group {group.name} are on the host already: {here}")
    return None


OF_KINDS: tuple[Filter, ...] = (_enabled, _online, _hypervisor, _zone, _capability)
"""Look at a host's kind only."""
OF_ROOM: tuple[Filter, ...] = (_vcpus, _ram, _disk)
"""Look at what is free."""
OF_HOSTS: tuple[Filter, ...] = (_locality, _overlap, _avoid, _leaves, _group)
"""Look at which host it is. Those of which they may tell other things than of the rest are ``Request.singled_out``."""
FILTERS = (*OF_KINDS, *OF_ROOM, *OF_HOSTS)


def weigh(request: Request, host: Candidate) -> float:
    """How good a host is: the smallest share of vCPU, memory and disk that stays free (0 to 1), so load spreads and no
    one resource runs out first; a soft wish of its group counts for more than any share.
    """
    left = (
        (host.free_vcpus - request.vcpus) / host.vcpus if host.vcpus else 0.0,
        (host.free_ram_mib - request.ram_mib) / host.ram_mib if host.ram_mib else 0.0,
        (host.free_disk_gib - request.disk_gib) / host.disk_gib if host.disk_gib else 0.0,
    )
    return round(min(left) + _wish(request.together, host.id), 6)


def _wish(group: Together | None, host_id: int) -> float:
    if group is None:
        return 0.0
    here = group.members.get(host_id, 0)
    if group.policy is GroupPolicy.SOFT_AFFINITY:
        return float(here)
    return -float(here) if group.policy is GroupPolicy.SOFT_ANTI_AFFINITY else 0.0


def judge(request: Request, host: Candidate) -> Verdict:
    """One host's verdict."""
    reasons = tuple(reason for check in FILTERS if (reason := check(request, host)) is not None)
    return Verdict(host.uid, host.name, not reasons, weigh(request, host), reasons)


@dataclass(slots=True)
class _Tally:
    """What is found out about all hosts, without words for those that will not be named."""

    request: Request
    counts: Counter[Constraint] = field(default_factory=Counter)
    kinds: dict[Kind, tuple[Constraint, ...]] = field(default_factory=dict)

    def failed(self, host: Candidate, singled_out: frozenset[int]) -> tuple[list[Constraint], int]:
        """The constraints that a host fails, and the sum of what it is short by."""
        request = self.request
        kind = host.kind
        known = self.kinds.get(kind)
        if known is None:
            known = self.kinds[kind] = tuple(_told(OF_KINDS, request, host))
        found, short = list(known), 0
        for constraint, wanted, free in (
            (Constraint.VCPUS, request.vcpus, host.free_vcpus),
            (Constraint.RAM_MIB, request.ram_mib, host.free_ram_mib),
            (Constraint.DISK_GIB, request.disk_gib, host.free_disk_gib),
        ):
            if wanted > free and wanted > 0:
                found.append(constraint)
                short += wanted - max(free, 0)
        if request.only is not None or _bound(request.together) or host.id in singled_out:
            found.extend(_told(OF_HOSTS, request, host))
        for constraint in found:
            self.counts[constraint] += 1
        return found, short


def _bound(group: Together | None) -> bool:
    """Whether a group keeps hosts out that have no member of it."""
    return group is not None and group.policy is GroupPolicy.AFFINITY


def _told(checks: Iterable[Filter], request: Request, host: Candidate) -> list[Constraint]:
    return [reason.constraint for check in checks if (reason := check(request, host)) is not None]


def decide(
    request: Request, hosts: Iterable[Candidate], first: Sequence[Candidate] = (), named: int = NAMED
) -> Decision:
    """The host with the highest weight among those that fit (the first by name among equals), and the reasons against
    the others. ``first`` are hosts in the order in which they were found to be best: they are named before all others.
    """
    tally, singled_out = _Tally(request), request.singled_out
    order = {host.id: place for place, host in enumerate(first)}
    ranked: list[tuple[bool, int, float, str, Candidate]] = []
    mendable: list[tuple[int, int, str, Candidate]] = []
    for host in hosts:
        failed, short = tally.failed(host, singled_out)
        fits = not failed
        ranked.append((not fits, order.get(host.id, len(order)), -weigh(request, host), host.name, host))
        if failed and _FIXED.isdisjoint(failed):
            mendable.append((len(failed), short, host.name, host))
    best = heapq.nsmallest(max(named, 1), ranked, key=lambda each: each[:4])
    chosen = best[0][4].uid if best and not best[0][0] else None
    return Decision(
        chosen,
        len(ranked),
        {each.value: tally.counts[each] for each in sorted(tally.counts)},
        tuple(judge(request, each[4]) for each in best),
        None if chosen is not None or not mendable else _change(request, min(mendable, key=lambda each: each[:3])[3]),
    )


_FIXED = frozenset({Constraint.ENABLED, Constraint.ONLINE, Constraint.FAILED_BEFORE, Constraint.SAME_HOST})
"""What no change of the request can mend."""


def _change(request: Request, host: Candidate) -> SmallestChange:
    """What this host lacks: of those that a different request could use, the one with the fewest constraints to change,
    then the least to give up.
    """
    reasons = judge(request, host).reasons
    return SmallestChange("; ".join(_mend(reason) for reason in reasons), reasons)


_MENDS = {
    Constraint.VCPUS: "ask for {by} vCPUs less",
    Constraint.RAM_MIB: "ask for {by} MiB of memory less",
    Constraint.DISK_GIB: "ask for {by} GiB of disk less",
    Constraint.HYPERVISOR: "leave the hypervisor open",
    Constraint.AVAILABILITY_ZONE: "leave the availability zone open",
    Constraint.VOLUME_LOCALITY: "leave out volumes that lie on different hosts",
    Constraint.OVERLAPPING_SUBNET: "use a network whose range does not overlap with others",
    Constraint.AFFINITY: "leave out the server group, or use one with soft affinity",
    Constraint.ANTI_AFFINITY: "leave out the server group, or use one with soft anti-affinity",
}


def _mend(reason: Reason) -> str:
    return _MENDS.get(reason.constraint, "do without: {message}").format(by=reason.short_by, message=reason.message)
