"""Server groups: servers that shall lie together, or apart.

A group's policy acts when a member is placed. Invariant: no two members of a strict group are placed against it,
however many are placed at once: whoever places a member holds the group's row until the claim is committed. A group
never changes, and goes when it has no members; a server stays in its group for life.
"""

from typing import Any, Self

import sqlalchemy as sa
from pydantic import model_validator
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.compute import server as servers
from gateway.compute.placement import GroupPolicy, Together
from gateway.compute.server import Server
from gateway.identity import ownership, quota
from gateway.identity import tenant as tenants
from gateway.identity.quota import Resource
from gateway.identity.tenant import Tenant
from gateway.kernel import row
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.command import AnyId, Command, Name, Retryable
from gateway.kernel.db import unique
from gateway.kernel.errors import InUse, Invalid
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row

_TOLD_MEMBERS = 20


class ServerGroup(Row, table=True):
    """A group. ``max_per_host`` counts under anti-affinity only."""

    __tablename__ = "server_group"

    tenant_id: int = row.ref("tenant.id")
    name: str = Field(max_length=255)
    policy: GroupPolicy = row.enum(GroupPolicy)
    max_per_host: int = 1

    __table_args__ = (sa.UniqueConstraint("tenant_id", "name"),)


NOUN = register(Noun("server_group", ServerGroup, lambda subject: within(col(ServerGroup.tenant_id), subject)))

ORDERS: dict[str, Any] = {"NAME": col(ServerGroup.name)}


class ServerGroupCreate(Retryable):
    """A new group."""

    name: Name = Field(description="Its name, unique in the tenant.")
    policy: GroupPolicy = Field(description="How its members lie to each other.")
    max_per_host: int = Field(
        default=1, ge=1, le=50, description="How many members a host may have, with `ANTI_AFFINITY`."
    )
    tenant_id: AnyId | None = Field(default=None, description="Whose it is; your only tenant by default.")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.max_per_host != 1 and self.policy is not GroupPolicy.ANTI_AFFINITY:
            raise ValueError("maxPerHost goes with ANTI_AFFINITY only")
        return self


class ServerGroupDelete(Retryable):
    """The group to delete."""

    id: AnyId = Field(description="The group.")


class Filter(Command):
    """Which server groups."""

    tenant_id: AnyId | None = Field(default=None, description="Of this tenant.")
    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    policy: GroupPolicy | None = Field(default=None, description="With this policy.")


def create(session: Session, subject: Subject, command: ServerGroupCreate) -> ServerGroup:
    """Make a group. Raises QuotaExceeded, Conflict when the name is taken."""
    tenant = ownership.tenant_for(session, subject, command.tenant_id, Role.MEMBER)
    quota.take(session, tenant.id, {Resource.SERVER_GROUPS: 1})
    found = ServerGroup(
        tenant_id=tenant.id, name=command.name, policy=command.policy, max_per_host=command.max_per_host
    )
    with unique(session, "A server group of the tenant has this name already.", "name"):
        session.add(found)
    return found


def delete(session: Session, subject: Subject, command: ServerGroupDelete) -> dict[str, Any]:
    """Delete a group without members. Raises InUse with the members."""
    found = NOUN.get(session, subject, command.id, "id")
    require(subject, Role.MEMBER, found.tenant_id, what="deleting a server group")
    members = session.exec(select(Server).where(Server.group_id == found.id).limit(_TOLD_MEMBERS)).all()
    if members:
        blockers = [servers.NOUN.public(each) for each in members]
        raise InUse("Servers are in this group.", path=("id",), blockers=blockers)
    public = NOUN.public(found)
    session.delete(found)
    quota.give(session, found.tenant_id, {Resource.SERVER_GROUPS: 1})
    return {"id": public}


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[ServerGroup]:
    """The groups a subject may see."""
    found = select(ServerGroup).where(NOUN.scope(subject))
    if wanted.tenant_id is not None:
        owner = select(Tenant.id).where(Tenant.uid == tenants.NOUN.uid(wanted.tenant_id, "tenantId"))
        found = found.where(col(ServerGroup.tenant_id).in_(owner))
    if wanted.name is not None:
        found = found.where(ServerGroup.name == wanted.name)
    if wanted.policy is not None:
        found = found.where(ServerGroup.policy == wanted.policy)
    return found


def join(session: Session, subject: Subject, public_id: str, tenant: Tenant) -> ServerGroup:
    """The group that a new server of the tenant is to be in. Raises NotFound, Invalid."""
    found = NOUN.get(session, subject, public_id, "groupId")
    if found.tenant_id != tenant.id:
        raise Invalid("The group belongs to another tenant than the server.", path=("groupId",))
    return found


def together(session: Session, server: Server) -> Together | None:
    """What its group asks of a server's host, with the hosts of the other members; None without a group. The group is
    held until the end of the unit of work, so that members are placed one after the other.
    """
    if server.group_id is None:
        return None
    held = select(ServerGroup).where(ServerGroup.id == server.group_id).with_for_update(key_share=True)
    group = session.exec(held).one()
    statement = (
        sa.select(col(Server.host_id), sa.func.count())
        .where(col(Server.group_id) == group.id, col(Server.id) != server.id, col(Server.host_id).is_not(None))
        .group_by(col(Server.host_id))
    )
    members = {row[0]: row[1] for row in session.execute(statement)}
    return Together(group.policy, group.name, members, group.max_per_host)


__all__ = ["NOUN", "ORDERS", "Filter", "ServerGroup", "ServerGroupCreate", "ServerGroupDelete", "create", "delete",
           "find", "join", "together"]  # fmt: skip
