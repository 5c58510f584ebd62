"""Membership: which ports are in which security groups, what a group stands for in a rule, and whose rules follow from
it.

In a rule a group stands for the addresses of its members on the same network (:func:`sources`). When a port comes or
goes, the ports whose rules thereby change, and no others, are applied again (:func:`moved`); what a busy cloud needs is
that this does not grow with its servers, see :data:`COVER_FROM`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network, summarize_address_range
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, func, select

from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import noun as nouns
from gateway.kernel.access import CLOUD, Subject
from gateway.network.address import PortAddress
from gateway.network.network import waiting
from gateway.network.security_group import NOUN, PortSecurityGroup, SecurityGroup, SecurityGroupRule
from gateway.network.subnet import Subnet

COVER_FROM = 32
"""When more members than this are on a network and nobody else is, a group stands for the subnets' pools instead of
single addresses: then a new member changes nobody's rules, and servers cost the same however many there are."""


def join(session: Session, port_id: int, network_id: int, groups: Sequence[SecurityGroup]) -> None:
    """Make a port a member of groups."""
    for group in groups:
        session.add(PortSecurityGroup(port_id=port_id, security_group_id=group.id, network_id=network_id))
    session.flush()


def leave(session: Session, port_id: int) -> None:
    """Take a port out of all its groups."""
    session.execute(sa.delete(PortSecurityGroup).where(col(PortSecurityGroup.port_id) == port_id))


def of_ports(session: Session, port_ids: Sequence[int]) -> dict[int, list[SecurityGroup]]:
    """The groups of these ports, by one statement."""
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


def sources(session: Session, group_id: int, network_id: int, version: int) -> list[str]:
    """The addresses that a group stands for on a network, as the fewest ranges: its members', or all that the network
    can give out when nobody else is on it and it has many.
    """
    counted = select(func.count()).select_from(PortSecurityGroup)
    members = session.exec(
        counted.where(
            col(PortSecurityGroup.security_group_id) == group_id, col(PortSecurityGroup.network_id) == network_id
        )
    ).one()
    if members > COVER_FROM and _covers(members, _ports_on(session, network_id)):
        return _pools(session, network_id, version)
    statement = (
        select(PortAddress.address)
        .join(PortSecurityGroup, col(PortSecurityGroup.port_id) == col(PortAddress.port_id))
        .where(PortSecurityGroup.security_group_id == group_id, PortSecurityGroup.network_id == network_id)
    )
    return _fewest(ip_network(each) for each in session.exec(statement) if ip_address(each).version == version)


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


def moved(session: Session, network_id: int, group_ids: Iterable[int]) -> None:
    """To be called while a port of these groups is recorded on a network, when it has come or is about to go: have the
    rules applied of all ports whose rules thereby change.
    """
    mine = set(group_ids)
    members = _members(session, network_id)
    total = _ports_on(session, network_id)
    named_ones = sa.select(col(SecurityGroupRule.remote_group_id)).where(
        col(SecurityGroupRule.remote_group_id).in_(sorted(members))
    )
    groups = session.exec(
        select(SecurityGroup).where(col(SecurityGroup.id).in_(named_ones)).order_by(col(SecurityGroup.id))
    )
    for group in groups:
        with_it = _covers(members[group.id], total)
        without = _covers(members[group.id] - (group.id in mine), total - 1)
        if with_it != without or (group.id in mine and not with_it):
            reapply(session, CLOUD, group, network_id)


def _members(session: Session, network_id: int) -> dict[int, int]:
    """How many members each group has on a network."""
    statement = select(PortSecurityGroup.security_group_id, func.count()).where(
        PortSecurityGroup.network_id == network_id
    )
    return dict(session.exec(statement.group_by(col(PortSecurityGroup.security_group_id))).all())


def _ports_on(session: Session, network_id: int) -> int:
    port: Any = nouns.BY_PREFIX["port"].table
    return int(session.exec(select(func.count()).select_from(port).where(port.network_id == network_id)).one())


def _covers(members: int, total: int) -> bool:
    return members > COVER_FROM and members == total


def _pools(session: Session, network_id: int, version: int) -> list[str]:
    found: list[IPv4Network | IPv6Network] = []
    for subnet in session.exec(select(Subnet).where(Subnet.network_id == network_id)):
        if subnet.ip_version != version:
            continue
        if version == 6:  # noqa: PLR2004 - the IP version: its pools would be some sixty ranges
            found.append(ip_network(subnet.cidr))
            continue
        for pool in subnet.pools:
            found += summarize_address_range(ip_address(pool["first"]), ip_address(pool["last"]))
        outside = select(PortAddress.address).where(
            PortAddress.subnet_id == subnet.id, col(PortAddress.pooled).is_(False)
        )
        found += [ip_network(each) for each in session.exec(outside)]
    return _fewest(found)


def _fewest(ranges: Iterable[Any]) -> list[str]:
    return [str(each) for each in collapse_addresses(ranges)]
