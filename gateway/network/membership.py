"""Membership: which ports are in which security groups, what a group stands for in a rule, and whose rules follow from
it.

In a rule a group stands for the addresses of its members on the same network (:func:`sources`). When a port comes or
goes, the ports whose rules thereby change, and no others, are applied again (:func:`moved`); what a busy cloud needs is
that this does not grow with its servers, see :data:`COVER_FROM`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network, summarize_address_range
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import noun as nouns
from gateway.kernel.access import CLOUD, Subject
from gateway.kernel.prepared import Prepared, Rows
from gateway.network import tally
from gateway.network.address import PortAddress
from gateway.network.network import waiting
from gateway.network.security_group import NOUN, PortSecurityGroup, SecurityGroup, SecurityGroupRule
from gateway.network.subnet import of_network
from gateway.network.tally import EVERYBODY

COVER_FROM = 4
"""When more members than this are on a network and nobody else is, a group stands for the subnets' pools instead of
single addresses: then a new member changes nobody's rules, and servers cost the same however many there are. Below it
each new member has all others applied again. Where somebody else is on the network that never ends: there the cost of a
member grows with its group."""


_JOIN = Prepared(
    sa.insert(PortSecurityGroup)
    .values({name: sa.bindparam(name) for name in ("port_id", "security_group_id", "network_id")})
    .inline()
)


def join(session: Session, port_id: int, network_id: int, groups: Sequence[SecurityGroup]) -> None:
    """Make a new port a member of groups, and count it."""
    for group in groups:
        _JOIN.later(session, port_id=port_id, network_id=network_id, security_group_id=group.id)
    tally.came(session, network_id, [group.id for group in groups])


def leave(session: Session, port_id: int, network_id: int, group_ids: Iterable[int]) -> None:
    """Take a port that goes out of its groups, which are these, and out of the count."""
    session.execute(sa.delete(PortSecurityGroup).where(col(PortSecurityGroup.port_id) == port_id))
    tally.went(session, network_id, group_ids)


def of_ports(session: Session, port_ids: Sequence[int]) -> dict[int, list[SecurityGroup]]:
    """The groups of these ports, by one statement."""
    if len(port_ids) == 1:
        return {port_ids[0]: _OF_PORT.all(session, port=port_ids[0])}
    found: dict[int, list[SecurityGroup]] = {key: [] for key in port_ids}
    statement = (
        select(PortSecurityGroup.port_id, SecurityGroup)
        .join(SecurityGroup, col(SecurityGroup.id) == col(PortSecurityGroup.security_group_id))
        .where(col(PortSecurityGroup.port_id).in_(port_ids))
        .order_by(col(PortSecurityGroup.id))
    )
    for port_id, group in session.exec(statement):
        found[port_id].append(group)
    return found


_OF_PORT = Rows(
    SecurityGroup,
    lambda rows: (
        rows.join(PortSecurityGroup, col(PortSecurityGroup.security_group_id) == col(SecurityGroup.id))
        .where(col(PortSecurityGroup.port_id) == sa.bindparam("port"))
        .order_by(col(PortSecurityGroup.id))
    ),
)


def rules_of(session: Session, port_id: int) -> list[SecurityGroupRule]:
    """The rules of a port's groups, oldest first."""
    return _RULES_OF.all(session, port=port_id)


_RULES_OF = Rows(
    SecurityGroupRule,
    lambda rows: rows.where(
        col(SecurityGroupRule.security_group_id).in_(
            sa.select(col(PortSecurityGroup.security_group_id)).where(
                col(PortSecurityGroup.port_id) == sa.bindparam("port")
            )
        )
    ).order_by(col(SecurityGroupRule.id)),
)


@dataclass(slots=True)
class Sources:
    """What groups stand for on one network, each read once."""

    session: Session
    network_id: int
    _counts: dict[int, int] | None = None
    _known: dict[int, list[IPv4Network | IPv6Network]] = field(default_factory=dict)

    def of(self, group_id: int, version: int) -> list[str]:
        """The addresses that a group stands for, as the fewest ranges: its members', or all that the network can give
        out when nobody else is on it and it has many.
        """
        found = self._known.get(group_id)
        if found is None:
            found = self._known[group_id] = self._ranges(group_id)
        return list(_fewest(tuple(each for each in found if each.version == version)))

    def _ranges(self, group_id: int) -> list[IPv4Network | IPv6Network]:
        if self._counts is None:
            self._counts = tally.of_network(self.session, self.network_id)
        if _covers(self._counts.get(group_id, 0), self._counts.get(EVERYBODY, 0)):
            return _pools(self.session, self.network_id)
        statement = (
            select(PortAddress.address)
            .join(PortSecurityGroup, col(PortSecurityGroup.port_id) == col(PortAddress.port_id))
            .where(PortSecurityGroup.security_group_id == group_id, PortSecurityGroup.network_id == self.network_id)
        )
        return [ip_network(each) for each in self.session.exec(statement)]


def reapply(session: Session, subject: Subject, group: SecurityGroup, network_id: int | None = None) -> Job | None:
    """Have all ports that a group concerns (of one network, or of all) brought to what is recorded; None when none is
    on a host. A job that waits to do the same already is enough.
    """
    if not concerned(session, group.id, network_id, limit=1):
        return None
    public = NOUN.public(group)
    arguments = {"group_id": group.id, "network_id": network_id}
    present = waiting(session, "security_group.apply", public, arguments)
    order = Order("security_group.apply", group.tenant_id, public, arguments=arguments)
    return present or jobs.submit(session, subject, order)


def concerned(session: Session, group_id: int, network_id: int | None, *, limit: int | None = None) -> list[int]:
    """Keys of the ports on hosts whose rules follow from a group: its members, and members of groups that name it."""
    port: Any = nouns.BY_PREFIX["port"].table
    naming = sa.select(col(SecurityGroupRule.security_group_id)).where(
        col(SecurityGroupRule.remote_group_id) == group_id
    )
    statement = (
        select(port.id)
        .join(PortSecurityGroup, col(PortSecurityGroup.port_id) == port.id)
        .where(
            sa.or_(
                col(PortSecurityGroup.security_group_id) == group_id,
                col(PortSecurityGroup.security_group_id).in_(naming),
            ),
            port.host_id.is_not(None),
        )
    )
    if network_id is not None:
        statement = statement.where(PortSecurityGroup.network_id == network_id)
    if limit is None:
        statement = statement.distinct().order_by(port.id)
    return list(session.exec(statement.limit(limit)))


_NAMED_IN_RULES = Rows(
    SecurityGroup,
    lambda rows: rows.where(
        col(SecurityGroup.id).in_(tally.groups_on(sa.bindparam("network"))),
        sa.exists(sa.select(1).where(col(SecurityGroupRule.remote_group_id) == col(SecurityGroup.id))),
    ).order_by(col(SecurityGroup.id)),
)
"""The groups with ports on a network that a rule stands them for."""


def moved(session: Session, network_id: int, group_ids: Iterable[int]) -> None:
    """To be called while a port of these groups is recorded on a network, when it has come or is about to go: have the
    rules applied of all ports whose rules thereby change.
    """
    mine = set(group_ids)
    members = tally.of_network(session, network_id)
    total = members.pop(EVERYBODY, 0)
    for group in _NAMED_IN_RULES.all(session, network=network_id):
        if group.id not in members:
            continue
        with_it = _covers(members[group.id], total)
        without = _covers(members[group.id] - (group.id in mine), total - 1)
        if with_it != without or (group.id in mine and not with_it):
            reapply(session, CLOUD, group, network_id)


def _covers(members: int, total: int) -> bool:
    return members > COVER_FROM and members == total


def _pools(session: Session, network_id: int) -> list[IPv4Network | IPv6Network]:
    found: list[IPv4Network | IPv6Network] = []
    for subnet in of_network(session, network_id):
        if subnet.ip_version == 6:  # noqa: PLR2004 - the IP version: its pools would be some sixty ranges
            found.append(ip_network(subnet.cidr))
            continue
        for pool in subnet.pools:
            found += _ranges_of(pool["first"], pool["last"])
        found += [ip_network(each) for (each,) in _OUTSIDE.all(session, subnet=subnet.id)]
    return found


_OUTSIDE = Prepared(
    sa.select(col(PortAddress.address)).where(
        col(PortAddress.subnet_id) == sa.bindparam("subnet"), sa.not_(col(PortAddress.pooled))
    )
)


@lru_cache(maxsize=4096)
def _ranges_of(first: str, last: str) -> tuple[Any, ...]:
    return tuple(summarize_address_range(ip_address(first), ip_address(last)))


@lru_cache(maxsize=1024)
def _fewest(ranges: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(each) for each in collapse_addresses(ranges))
