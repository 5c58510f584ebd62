"""Security groups: what may reach the ports of a group, and what they may reach. Everything else is dropped.

Each tenant has one group ``default`` from its first moment: it lets everything out and its own members in, and stays.
A rule names its other end as a range or as a group; a group stands for the addresses of its members on the same
network (:func:`sources`). Rules are never changed, only added and removed; no group has the same rule twice. A change
of rules, or of who is a member, is applied to the ports it concerns by the job ``security_group.apply``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network, summarize_address_range
from typing import Any

import sqlalchemy as sa
from pydantic import model_validator
from sqlmodel import Field, Session, SQLModel, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import ownership, quota, tenant
from gateway.identity.quota import Resource
from gateway.identity.tenant import Tenant
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import noun as nouns
from gateway.kernel import row
from gateway.kernel.access import CLOUD, Role, Subject, require, within
from gateway.kernel.command import AnyId, Command, Name, Retryable, Text, Versioned
from gateway.kernel.db import unique
from gateway.kernel.errors import InUse, Invalid, QuotaExceeded
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Key, Row, expect
from gateway.network.address import PortAddress
from gateway.network.network import key_of, waiting
from gateway.network.subnet import CidrText, Subnet

DEFAULT = "default"
MOST_RULES = 100
COVER_FROM = 32
"""When more members than this are on a network and nobody else is, a group stands for the subnets' pools instead of
single addresses: then a new member changes nobody's rules, and servers cost the same however many there are."""
_TOLD_BLOCKERS = 20


class RuleDirection(StrEnum):
    """Which traffic a rule lets through, as the machine sees it."""

    INGRESS = "INGRESS"
    """Traffic to the machine."""
    EGRESS = "EGRESS"
    """Traffic from the machine."""


class EtherType(StrEnum):
    """The family of addresses."""

    IPV4 = "IPV4"
    """IPv4."""
    IPV6 = "IPV6"
    """IPv6."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if self is EtherType.IPV4 else 6


class RuleProtocol(StrEnum):
    """What is carried."""

    ANY = "ANY"
    """Anything."""
    TCP = "TCP"
    """TCP."""
    UDP = "UDP"
    """UDP."""
    ICMP = "ICMP"
    """ICMP, for IPv6 ICMPv6."""


class SecurityGroup(Row, table=True):
    """A set of rules."""

    __tablename__ = "security_group"

    tenant_id: int = row.ref("tenant.id")
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)

    __table_args__ = (sa.UniqueConstraint("tenant_id", "name"),)


class SecurityGroupRule(Row, table=True):
    """What is let through. ``fingerprint`` is all of it as one text, unique in its group. For ICMP ``port_min`` is the
    type and ``port_max`` the code.
    """

    __tablename__ = "security_group_rule"

    tenant_id: int = row.ref("tenant.id")
    security_group_id: int = row.ref("security_group.id", index=False)
    direction: RuleDirection = row.enum(RuleDirection)
    ether_type: EtherType = row.enum(EtherType, default=EtherType.IPV4)
    protocol: RuleProtocol = row.enum(RuleProtocol, default=RuleProtocol.ANY)
    port_min: int | None = None
    port_max: int | None = None
    remote_cidr: str | None = Field(default=None, max_length=43)
    remote_group_id: int | None = row.ref("security_group.id", null=True)
    description: str = Field(default="", max_length=255)
    fingerprint: str = Field(max_length=160)

    __table_args__ = (sa.UniqueConstraint("security_group_id", "fingerprint"),)


class PortSecurityGroup(SQLModel, table=True):
    """That a port is in a group. ``network_id`` is the port's, for counting members without looking at ports."""

    __tablename__ = "port_security_group"

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    port_id: int = row.ref("port.id", index=False)
    security_group_id: int = row.ref("security_group.id", index=False)
    network_id: int = row.ref("network.id", index=False)

    __table_args__ = (
        sa.UniqueConstraint("port_id", "security_group_id"),
        sa.Index("ix_port_security_group_member", "security_group_id", "network_id", "port_id"),
        sa.Index("ix_port_security_group_network", "network_id", "security_group_id"),
    )


NOUN = register(Noun("security_group", SecurityGroup, lambda subject: within(col(SecurityGroup.tenant_id), subject)))
RULE = register(
    Noun("security_group_rule", SecurityGroupRule, lambda subject: within(col(SecurityGroupRule.tenant_id), subject))
)

ORDERS: dict[str, Any] = {"NAME": col(SecurityGroup.name), "UPDATED_AT": col(SecurityGroup.updated_at)}


class SecurityGroupCreate(Retryable):
    """A new group. It lets everything out and nothing in until rules are added."""

    name: Name = Field(description="Its name, unique in the tenant.")
    description: Text = Field(default="", description="What it is for.")
    tenant_id: AnyId | None = Field(default=None, description="Whose it is; your only tenant by default.")


class SecurityGroupDelete(Versioned):
    """The group to delete, with its rules."""

    id: AnyId = Field(description="The group.")


class SecurityGroupRuleAdd(Retryable):
    """A rule to add to a group."""

    security_group_id: AnyId = Field(description="The group.")
    direction: RuleDirection = Field(description="Which traffic.")
    ether_type: EtherType = Field(default=EtherType.IPV4, description="Of which family.")
    protocol: RuleProtocol = Field(default=RuleProtocol.ANY, description="Of which kind.")
    port_min: int | None = Field(
        default=None, ge=0, le=65535, description="First port of the destination (ICMP: the type); any when absent."
    )
    port_max: int | None = Field(
        default=None, ge=0, le=65535, description="Last port (ICMP: the code); the first one when absent."
    )
    remote_cidr: CidrText | None = Field(default=None, description="The other end's range; anywhere when absent.")
    remote_group_id: AnyId | None = Field(
        default=None, description="Instead of a range: the members of this group on the same network."
    )
    description: Text = Field(default="", max_length=255, description="What it is for.")

    @model_validator(mode="after")
    def _sense(self) -> SecurityGroupRuleAdd:
        if self.remote_cidr is not None and self.remote_group_id is not None:
            raise ValueError("give remoteCidr or remoteGroupId, not both")
        if self.remote_cidr is not None and ip_network(self.remote_cidr).version != self.ether_type.version:
            raise ValueError("the remote range is of the other family")
        if self.port_min is None:
            if self.port_max is not None:
                raise ValueError("portMax needs portMin")
            return self
        if self.protocol is RuleProtocol.ANY:
            raise ValueError("a rule for any protocol has no ports")
        if self.protocol is RuleProtocol.ICMP:
            if max(self.port_min, self.port_max or 0) > 255:  # noqa: PLR2004 - ICMP's types and codes are bytes
                raise ValueError("an ICMP type or code is at most 255")
        elif self.port_min == 0 or (self.port_max is not None and self.port_max < self.port_min):
            raise ValueError("ports go from 1 to 65535, the smaller one first")
        return self


class SecurityGroupRuleRemove(Retryable):
    """The rule to remove."""

    id: AnyId = Field(description="The rule.")


class Filter(Command):
    """Which security groups."""

    tenant_id: AnyId | None = Field(default=None, description="Of this tenant.")
    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    name_contains: str | None = Field(default=None, max_length=255, description="With this text in the name.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[SecurityGroup]:
    """The groups a subject may see. Raises NotFound for an id that is no tenant's."""
    found = select(SecurityGroup).where(NOUN.scope(subject))
    if wanted.tenant_id is not None:
        found = found.where(SecurityGroup.tenant_id == key_of(tenant.NOUN, wanted.tenant_id, "filter", "tenantId"))
    if wanted.name is not None:
        found = found.where(SecurityGroup.name == wanted.name)
    if wanted.name_contains is not None:
        found = found.where(col(SecurityGroup.name).icontains(wanted.name_contains, autoescape=True))
    return found


# ------------------------------------------------------------------------------------------------ groups


def create(session: Session, subject: Subject, command: SecurityGroupCreate) -> SecurityGroup:
    """Make a group that lets everything out. Raises QuotaExceeded, Conflict at ``name``."""
    owner = ownership.tenant_for(session, subject, command.tenant_id, Role.MEMBER)
    return _make(session, owner.id, command.name, command.description)


def _make(session: Session, tenant_id: int, name: str, description: str) -> SecurityGroup:
    quota.take(session, tenant_id, {Resource.SECURITY_GROUPS: 1})
    made = SecurityGroup(tenant_id=tenant_id, name=name, description=description)
    with unique(session, "A security group of the tenant has this name already.", "name"):
        session.add(made)
    for family in EtherType:
        session.add(_rule(made, direction=RuleDirection.EGRESS, ether_type=family))
    session.flush()
    return made


def default_of(session: Session, tenant_id: int) -> SecurityGroup:
    """The tenant's own group ``default``, made when it is not there yet."""
    statement = select(SecurityGroup).where(SecurityGroup.tenant_id == tenant_id, SecurityGroup.name == DEFAULT)
    found = session.exec(statement).first()
    if found is not None:
        return found
    made = _make(session, tenant_id, DEFAULT, "What ports have that name no group.")
    for family in EtherType:
        session.add(_rule(made, direction=RuleDirection.INGRESS, ether_type=family, remote_group_id=made.id))
    session.flush()
    return made


def delete(session: Session, subject: Subject, command: SecurityGroupDelete) -> dict[str, Any]:
    """Delete a group that no port is in and no other group's rule names. Raises NotFound, Forbidden, StaleVersion,
    InUse (also for ``default``, which its tenant needs).
    """
    found = _owned(session, subject, command.id, "id")
    expect(found, command.expected_version)
    if found.name == DEFAULT:
        owner = tenant.NOUN.public(session.get_one(Tenant, found.tenant_id))
        raise InUse("Every tenant keeps its default group.", path=("id",), blockers=[owner])
    blockers = _users(session, found.id)
    if blockers:
        raise InUse("Ports or rules use this group.", path=("id",), blockers=blockers)
    public = NOUN.public(found)
    _drop(session, found)
    quota.give(session, found.tenant_id, {Resource.SECURITY_GROUPS: 1})
    return {"id": public}


def _drop(session: Session, group: SecurityGroup) -> None:
    for each in rules_of(session, [group.id]):
        session.delete(each)
    session.flush()
    session.delete(group)
    session.flush()


def _users(session: Session, group_id: int) -> list[str]:
    """TypeIDs of ports in the group and of other groups' rules that name it; the first twenty."""
    port = nouns.BY_PREFIX["port"]
    members = sa.select(col(PortSecurityGroup.port_id)).where(col(PortSecurityGroup.security_group_id) == group_id)
    ports = session.exec(
        select(port.table).where(port.table.id.in_(members)).order_by(port.table.id).limit(_TOLD_BLOCKERS)
    )
    naming = session.exec(
        select(SecurityGroupRule)
        .where(SecurityGroupRule.remote_group_id == group_id, SecurityGroupRule.security_group_id != group_id)
        .order_by(col(SecurityGroupRule.id))
        .limit(_TOLD_BLOCKERS)
    )
    return [nouns.public(each) for each in (*ports, *naming)][:_TOLD_BLOCKERS]


def named(session: Session, subject: Subject, tenant_id: int, ids: Sequence[str] | None) -> list[SecurityGroup]:
    """The groups with these TypeIDs, each once; the tenant's default one when None. Raises NotFound, and Invalid for a
    group of another tenant, at ``securityGroupIds``.
    """
    if ids is None:
        return [default_of(session, tenant_id)]
    found = []
    for index, text in enumerate(dict.fromkeys(ids)):
        group = NOUN.get(session, subject, text, "securityGroupIds", str(index))
        if group.tenant_id != tenant_id:
            raise Invalid("The group belongs to another tenant.", path=("securityGroupIds", str(index)))
        found.append(group)
    # Held, so that none is deleted while it gets a member.
    keys = sorted(group.id for group in found)
    session.exec(select(SecurityGroup.id).where(col(SecurityGroup.id).in_(keys)).with_for_update(read=True)).all()
    return found


# ------------------------------------------------------------------------------------------------ rules


def rule_add(session: Session, subject: Subject, command: SecurityGroupRuleAdd) -> dict[str, Any]:
    """Add a rule and have it applied. Raises NotFound, Forbidden, Conflict (there already), QuotaExceeded."""
    group = _owned(session, subject, command.security_group_id, "securityGroupId", lock=True)
    remote = None
    if command.remote_group_id is not None:
        remote = _owned(session, subject, command.remote_group_id, "remoteGroupId")
        if remote.tenant_id != group.tenant_id:
            raise Invalid("The group belongs to another tenant.", path=("remoteGroupId",))
    present = len(rules_of(session, [group.id]))
    if present >= MOST_RULES:
        raise QuotaExceeded(
            f"A security group has at most {MOST_RULES} rules.", path=("securityGroupId",),
            resource="SECURITY_GROUP_RULES", limit=MOST_RULES, used=present, requested=1,
        )  # fmt: skip
    values = command.model_dump(exclude={"idempotency_key", "security_group_id", "remote_group_id", "port_max"})
    upper = command.port_max
    if upper is None and command.protocol is not RuleProtocol.ICMP:
        upper = command.port_min
    made = _rule(group, **values, port_max=upper, remote_group_id=remote.id if remote else None)
    with unique(session, "The group has this rule already.", "securityGroupId"):
        session.add(made)
    return {"security_group": group, "rule": made, "job": reapply(session, subject, group)}


def rule_remove(session: Session, subject: Subject, command: SecurityGroupRuleRemove) -> dict[str, Any]:
    """Remove a rule and have that applied. Raises NotFound, Forbidden."""
    found = RULE.get(session, subject, command.id, "id")
    require(subject, Role.MEMBER, found.tenant_id, what="changing a security group")
    group = session.get_one(SecurityGroup, found.security_group_id)
    public = RULE.public(found)
    session.delete(found)
    session.flush()
    return {"id": public, "security_group": group, "job": reapply(session, subject, group)}


def rules_of(session: Session, group_ids: Iterable[int]) -> list[SecurityGroupRule]:
    """The rules of these groups, oldest first."""
    keys = sorted(set(group_ids))
    statement = select(SecurityGroupRule).where(col(SecurityGroupRule.security_group_id).in_(keys))
    return list(session.exec(statement.order_by(col(SecurityGroupRule.id))))


def _rule(group: SecurityGroup, **values: Any) -> SecurityGroupRule:
    made = SecurityGroupRule(tenant_id=group.tenant_id, security_group_id=group.id, **values)
    parts = (made.direction, made.ether_type, made.protocol, made.port_min, made.port_max, made.remote_cidr)
    made.fingerprint = "|".join("" if part is None else str(part) for part in (*parts, made.remote_group_id))
    return made


def _owned(session: Session, subject: Subject, text: str, *path: str, lock: bool = False) -> SecurityGroup:
    found = NOUN.get(session, subject, text, *path)
    require(subject, Role.MEMBER, found.tenant_id, what="changing a security group")
    if lock:
        session.exec(select(SecurityGroup.id).where(SecurityGroup.id == found.id).with_for_update()).one()
    return found


# ------------------------------------------------------------------------------------------------ members


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


# ------------------------------------------------------------------------------------------------ tenants


def _equip(session: Session, owner: Tenant) -> None:
    default_of(session, owner.id)


def _clear(session: Session, owner: Tenant) -> None:
    """Drop the default group of a tenant that has nothing else of the kind; else it holds the tenant back like them."""
    groups = session.exec(select(SecurityGroup).where(SecurityGroup.tenant_id == owner.id).limit(2)).all()
    if len(groups) == 1 and not _users(session, groups[0].id):
        _drop(session, groups[0])


tenant.on_create.append(_equip)
tenant.on_delete.append(_clear)
