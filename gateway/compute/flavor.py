"""Flavors: the sizes servers come in. Public ones are for every tenant; a private one only for the tenants it names.

A flavor never changes after it was made, so a server's size is what its flavor says. Deleting one hides it from new
servers; those made with it keep showing it.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.kernel import clock
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Command, Name, Retryable, Text
from gateway.kernel.db import unique
from gateway.kernel.money import Price, micros
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row


class Flavor(Row, table=True):
    """A size: vCPUs, memory in MiB, root disk in GiB; and what an hour of it costs, in millionths of the currency."""

    __tablename__ = "flavor"

    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)
    vcpus: int
    ram_mib: int
    disk_gib: int
    price_micros: int | None = Field(default=None, sa_type=sa.BigInteger)
    deleted_at: datetime | None = Field(default=None)

    __table_args__ = (
        sa.Index("uq_flavor_name", "name", unique=True, sqlite_where=sa.text("deleted_at IS NULL"),
                 postgresql_where=sa.text("deleted_at IS NULL")),
    )  # fmt: skip


def _everyone(subject: Subject) -> sa.ColumnElement[bool]:
    return sa.true() if subject.signed_in else sa.false()


NOUN = register(Noun("flavor", Flavor, _everyone))

ORDERS: dict[str, Any] = {"NAME": col(Flavor.name), "VCPUS": col(Flavor.vcpus), "RAM_MIB": col(Flavor.ram_mib)}


class FlavorCreate(Retryable):
    """A new flavor."""

    name: Name = Field(description="Its name, unique among flavors that are not deleted.")
    description: Text = Field(default="", description="What it is meant for.")
    vcpus: int = Field(ge=1, le=1024, description="Virtual processors.")
    ram_mib: int = Field(ge=16, le=16_777_216, description="Memory in MiB.")
    disk_gib: int = Field(ge=1, le=65_536, description="Size of the root disk in GiB.")
    price_per_hour: Price | None = Field(
        default=None,
        description="What an hour of a server of this size costs, in the cloud's currency; null: no price.",
    )


class FlavorDelete(Retryable):
    """The flavor to delete."""

    id: AnyId = Field(description="The flavor.")


class Filter(Command):
    """Which flavors."""

    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    min_vcpus: int | None = Field(default=None, ge=1, le=1024, description="With at least so many vCPUs.")
    min_ram_mib: int | None = Field(default=None, ge=1, le=16_777_216, description="With at least so much memory.")


def create(session: Session, _subject: Subject, command: FlavorCreate) -> Flavor:
    """Make a flavor. Raises Conflict when the name is taken."""
    size = command.model_dump(exclude={"idempotency_key", "price_per_hour"})
    flavor = Flavor(**size, price_micros=micros(command.price_per_hour))
    with unique(session, "A flavor has this name already.", "name"):
        session.add(flavor)
    return flavor


def delete(session: Session, subject: Subject, command: FlavorDelete) -> Flavor:
    """Hide a flavor from new servers; doing it again changes nothing."""
    flavor = NOUN.get(session, subject, command.id, "id")
    flavor.deleted_at = flavor.deleted_at or clock.now(session)
    return flavor


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Flavor]:
    """The flavors that servers can be made with."""
    found = select(Flavor).where(NOUN.scope(subject), col(Flavor.deleted_at).is_(None))
    if wanted.name is not None:
        found = found.where(Flavor.name == wanted.name)
    if wanted.min_vcpus is not None:
        found = found.where(col(Flavor.vcpus) >= wanted.min_vcpus)
    if wanted.min_ram_mib is not None:
        found = found.where(col(Flavor.ram_mib) >= wanted.min_ram_mib)
    return found


__all__ = ["NOUN", "ORDERS", "Filter", "Flavor", "FlavorCreate", "FlavorDelete", "create", "delete", "find"]
