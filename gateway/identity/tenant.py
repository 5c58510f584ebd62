"""Tenants: the owners of everything. A tenant's name is unique in the cloud; it can go only when it owns nothing."""

from __future__ import annotations

from typing import Any

from sqlmodel import Field, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.kernel.access import Subject, within
from gateway.kernel.command import Command
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row


class Tenant(Row, table=True):
    """A project, team or customer."""

    __tablename__ = "tenant"

    name: str = Field(max_length=255, unique=True)
    description: str = Field(default="", max_length=1024)


NOUN = register(Noun("tenant", Tenant, lambda subject: within(col(Tenant.id), subject)))

ORDERS: dict[str, Any] = {"NAME": col(Tenant.name), "UPDATED_AT": col(Tenant.updated_at)}


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
