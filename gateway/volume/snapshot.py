"""Snapshots: point-in-time copies of volumes. A snapshot is whole in itself: deleting its volume leaves it usable."""

from enum import StrEnum
from typing import Any

from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import quota
from gateway.identity.quota import Resource
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel import noun as nouns
from gateway.kernel import row
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.command import AnyId, Command, Retryable
from gateway.kernel.errors import InUse, InvalidState
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row
from gateway.metering import usage


class SnapshotStatus(StrEnum):
    """Where a snapshot stands."""

    CREATING = "CREATING"
    """Being made."""
    AVAILABLE = "AVAILABLE"
    """Ready: volumes can be made from it."""
    DELETING = "DELETING"
    """On its way out."""
    ERROR = "ERROR"
    """Could not be made; delete it."""


class Snapshot(Row, table=True):
    """A snapshot; ``volume_id`` is null once its volume is gone."""

    __tablename__ = "snapshot"

    tenant_id: int = row.ref("tenant.id")
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)
    status: SnapshotStatus = row.enum(SnapshotStatus, default=SnapshotStatus.CREATING)
    status_reason: str | None = Field(default=None, max_length=500)
    size_gib: int
    volume_id: int | None = Field(default=None, index=True)
    host_id: int | None = row.ref("host.id", null=True)


NOUN = register(Noun("snapshot", Snapshot, lambda subject: within(col(Snapshot.tenant_id), subject)))

ORDERS: dict[str, Any] = {"NAME": col(Snapshot.name), "SIZE_GIB": col(Snapshot.size_gib)}


class Filter(Command):
    """Which snapshots."""

    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    status: list[SnapshotStatus] | None = Field(default=None, description="In one of these states.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Snapshot]:
    """The snapshots a subject may see."""
    found = select(Snapshot).where(NOUN.scope(subject))
    if wanted.name is not None:
        found = found.where(Snapshot.name == wanted.name)
    if wanted.status is not None:
        found = found.where(col(Snapshot.status).in_(wanted.status))
    return found


class SnapshotDelete(Retryable):
    """The snapshot to delete."""

    id: AnyId = Field(description="The snapshot.")


def delete(session: Session, subject: Subject, command: SnapshotDelete) -> dict[str, Any]:
    """Delete a snapshot; volumes made from it stay whole. Raises InUse while one is being made."""
    found = NOUN.get(session, subject, command.id, "id")
    require(subject, Role.MEMBER, found.tenant_id, what="deleting a snapshot")
    public = NOUN.public(found)
    if found.status is SnapshotStatus.DELETING:
        return {"snapshot": found, "job": jobs.active(session, public)}
    if found.status is SnapshotStatus.CREATING:
        raise InvalidState(
            "The snapshot is being made.", path=("id",), current=found.status.value, allowed=["AVAILABLE", "ERROR"]
        )
    volume: Any = nouns.BY_PREFIX["volume"].table
    making = session.exec(select(volume).where(volume.snapshot_id == found.id, volume.status == "CREATING")).all()
    if making:
        told = [nouns.public(each) for each in making[:20]]
        raise InUse("Volumes are being made from this snapshot.", path=("id",), blockers=told)
    found.status = SnapshotStatus.DELETING
    session.flush()
    order = Order("snapshot.delete", found.tenant_id, public, arguments={"snapshot_id": found.id})
    return {"snapshot": found, "job": jobs.submit(session, subject, order)}


def forget(session: Session, snapshot: Snapshot) -> None:
    """The last trace goes: quota is given back and nothing is counted any more."""
    volume: Any = nouns.BY_PREFIX["volume"].table
    for made in session.exec(select(volume).where(volume.snapshot_id == snapshot.id)):
        made.snapshot_id = None
    session.flush()
    quota.give(session, snapshot.tenant_id, {Resource.SNAPSHOTS: 1, Resource.VOLUME_GIB: snapshot.size_gib})
    usage.closed(session, snapshot.uid)
    session.delete(snapshot)
