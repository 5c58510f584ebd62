"""Security groups: what may reach the ports of a group, and what they may reach. Everything else is dropped.

Each tenant has one group ``default`` from its first moment: it lets everything out and its own members in, and stays.
A group can go when no port is in it and no other group's rule names it. Not here: adding and removing rules
(gateway/network/security_group_rule.py) and what membership means (gateway/network/membership.py).
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import ownership, quota, tenant
from gateway.identity.quota import Resource
from gateway.identity.tenant import Tenant
from gateway.kernel import noun as nouns
from gateway.kernel import row
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.command import AnyId, Command, Name, Retryable, Text, Versioned
from gateway.kernel.db import unique
from gateway.kernel.errors import InUse, Invalid
from gateway.kernel.noun import Noun, register
from gateway.kernel.prepared import Rows
from gateway.kernel.row import Key, Row, expect
from gateway.network.network import key_of

DEFAULT = "default"
MOST_RULES = 100
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
        session.add(new_rule(made, direction=RuleDirection.EGRESS, ether_type=family))
    session.flush()
    return made


_CALLED = Rows(
    SecurityGroup,
    lambda rows: rows.where(
        col(SecurityGroup.tenant_id) == sa.bindparam("tenant"), col(SecurityGroup.name) == sa.bindparam("name")
    ),
)


def default_of(session: Session, tenant_id: int) -> SecurityGroup:
    """The tenant's own group ``default``, made when it is not there yet."""
    found = _CALLED.first(session, tenant=tenant_id, name=DEFAULT)
    if found is not None:
        return found
    made = _make(session, tenant_id, DEFAULT, "What ports have that name no group.")
    for family in EtherType:
        session.add(new_rule(made, direction=RuleDirection.INGRESS, ether_type=family, remote_group_id=made.id))
    session.flush()
    return made


def delete(session: Session, subject: Subject, command: SecurityGroupDelete) -> dict[str, Any]:
    """Delete a group that no port is in and no other group's rule names. Raises NotFound, Forbidden, StaleVersion,
    InUse (also for ``default``, which its tenant needs).
    """
    found = owned(session, subject, command.id, "id")
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


def rules_of(session: Session, group_ids: Iterable[int]) -> list[SecurityGroupRule]:
    """The rules of these groups, oldest first."""
    keys = sorted(set(group_ids))
    if len(keys) == 1:
        return _RULES_OF.all(session, group=keys[0])
    statement = select(SecurityGroupRule).where(col(SecurityGroupRule.security_group_id).in_(keys))
    return list(session.exec(statement.order_by(col(SecurityGroupRule.id))))


_RULES_OF = Rows(
    SecurityGroupRule,
    lambda rows: rows.where(col(SecurityGroupRule.security_group_id) == sa.bindparam("group")).order_by(
        col(SecurityGroupRule.id)
    ),
)


def new_rule(group: SecurityGroup, **values: Any) -> SecurityGroupRule:
    """A rule of the group, not yet recorded, with its fingerprint."""
    made = SecurityGroupRule(tenant_id=group.tenant_id, security_group_id=group.id, **values)
    parts = (made.direction, made.ether_type, made.protocol, made.port_min, made.port_max, made.remote_cidr)
    made.fingerprint = "|".join("" if part is None else str(part) for part in (*parts, made.remote_group_id))
    return made


def owned(session: Session, subject: Subject, text: str, *path: str, lock: bool = False) -> SecurityGroup:
    """A group that the subject may change; with ``lock`` one change of its rules waits for another. Raises NotFound,
    Forbidden.
    """
    found = NOUN.get(session, subject, text, *path)
    require(subject, Role.MEMBER, found.tenant_id, what="changing a security group")
    if lock:
        session.exec(select(SecurityGroup.id).where(SecurityGroup.id == found.id).with_for_update()).one()
    return found


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
