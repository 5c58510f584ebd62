"""Tenants: the owners of everything. A tenant's name is unique in the cloud; it can go only when it owns nothing.

A deleted tenant keeps its row, for its usage must stay billable and its history readable, but nobody sees or uses it
any more; its name is free again. Services that give each new tenant something (a default security group) or must clear
such a thing away put a function into :data:`on_create` or :data:`on_delete`: presence is registration.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity.quota import Quota, open_account
from gateway.identity.role import Membership
from gateway.jobs import job
from gateway.kernel import clock, noun
from gateway.kernel.access import Subject, within
from gateway.kernel.command import AnyId, Command, Name, Retryable, Text, Versioned
from gateway.kernel.db import unique
from gateway.kernel.errors import InUse
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row, expect

_TOLD_BLOCKERS = 20


class Tenant(Row, table=True):
    """A project, team or customer."""

    __tablename__ = "tenant"

    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)
    deleted_at: datetime | None = None

    __table_args__ = (
        sa.Index("uq_tenant_name", "name", unique=True, sqlite_where=sa.text("deleted_at IS NULL"),
                 postgresql_where=sa.text("deleted_at IS NULL")),
    )  # fmt: skip


NOUN = register(
    Noun("tenant", Tenant, lambda subject: within(col(Tenant.id), subject) & col(Tenant.deleted_at).is_(None))
)

ORDERS: dict[str, Any] = {"NAME": col(Tenant.name), "UPDATED_AT": col(Tenant.updated_at)}

on_create: list[Callable[[Session, Tenant], None]] = []
"""Called in the unit of work that makes a tenant, after its quotas are open."""

on_delete: list[Callable[[Session, Tenant], None]] = []
"""Called in the unit of work that deletes a tenant, before it is looked at what it still owns."""

not_owned: set[type[Row]] = {Membership, Quota}
"""Tables with a ``tenant_id`` whose rows never hold a tenant back: they go with it, or they are history."""


class TenantCreate(Retryable):
    """A new tenant."""

    name: Name = Field(description="Its name, unique in the cloud.")
    description: Text = Field(default="", description="What it is for.")


class TenantUpdate(Versioned):
    """A change of a tenant; what is absent stays."""

    id: AnyId = Field(description="The tenant.")
    name: Name | None = Field(default=None, description="Its new name.")
    description: Text | None = Field(default=None, description="What it is for; null clears it.")


class TenantDelete(Versioned):
    """The tenant to delete."""

    id: AnyId = Field(description="The tenant.")


class Filter(Command):
    """Which tenants."""

    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    name_contains: str | None = Field(default=None, max_length=255, description="With this text in the name.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Tenant]:
    """The tenants a subject may see."""
    found = select(Tenant).where(NOUN.scope(subject))
    if wanted.name is not None:
        found = found.where(Tenant.name == wanted.name)
    if wanted.name_contains is not None:
        found = found.where(col(Tenant.name).icontains(wanted.name_contains, autoescape=True))
    return found


def create(session: Session, _subject: Subject, command: TenantCreate) -> Tenant:
    """Make a tenant with the default quotas and whatever the services give it. Raises Conflict."""
    made = Tenant(name=command.name, description=command.description)
    with unique(session, "A tenant has this name already.", "name"):
        session.add(made)
    open_account(session, made.id)
    for give in on_create:
        give(session, made)
    return made


def update(session: Session, subject: Subject, command: TenantUpdate) -> Tenant:
    """Change a tenant. Raises NotFound, StaleVersion, Conflict."""
    found = NOUN.get(session, subject, command.id, "id")
    expect(found, command.expected_version)
    with unique(session, "A tenant has this name already.", "name"):
        found.name = command.name or found.name
        if "description" in command.model_fields_set:
            found.description = command.description or ""
    return found


def delete(session: Session, subject: Subject, command: TenantDelete) -> Tenant:
    """Delete a tenant that owns nothing, with its memberships and quotas. Raises NotFound, StaleVersion, InUse.

    The quotas go first: that waits for creates under way and refuses later ones, so what is then counted is all.
    """
    found = NOUN.get(session, subject, command.id, "id")
    expect(found, command.expected_version)
    session.execute(sa.delete(Quota).where(col(Quota.tenant_id) == found.id))
    for clear in on_delete:
        clear(session, found)
    session.flush()
    blockers = owned(session, found.id)
    if blockers:
        raise InUse("The tenant still owns something.", path=("id",), blockers=blockers)
    for each in session.exec(select(Membership).where(Membership.tenant_id == found.id)):
        session.delete(each)
    found.deleted_at = clock.now(session)
    return found


def owned(session: Session, tenant_id: int) -> list[str]:
    """TypeIDs of things that the tenant owns, of every noun with a ``tenant_id``; the first twenty."""
    told: list[str] = []
    for each in noun.BY_PREFIX.values():
        table: Any = each.table
        if table in not_owned or "tenant_id" not in table.model_fields or len(told) >= _TOLD_BLOCKERS:
            continue
        statement = select(table).where(table.tenant_id == tenant_id)
        if "deleted_at" in table.model_fields:
            statement = statement.where(table.deleted_at.is_(None))
        if table is job.Job:
            statement = statement.where(col(job.Job.status).not_in(job.ENDED))
        rows = session.exec(statement.order_by(table.id).limit(_TOLD_BLOCKERS - len(told)))
        told += [each.public(row) for row in rows]
    return told
