"""Exports: what a tenant has, used, or what happened to it, as one file of JSON Lines.

An export holds only what every reader of the tenant may see by GraphQL, so every reader may have it; what that is
stands in ``content``. The file is written by a job (workers/integration/export.py) and handed out by a signed link
that names one export and dies with it. A day after it was written the export is gone, row and file. No content is ever
kept in a row.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self
from uuid import UUID

from pydantic import Field, model_validator
from sqlmodel import Field as Column
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import ownership
from gateway.identity import tenant as tenants
from gateway.image import signed_url
from gateway.image.signed_url import SigningKeys
from gateway.jobs import job as jobs
from gateway.kernel import clock, row
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.clock import Informed
from gateway.kernel.command import AnyId, Command, Retryable
from gateway.kernel.errors import Conflict, InvalidState, NotFound
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row

KEPT: Final = timedelta(hours=24)
MOST_OF_A_TENANT: Final = 20
LINK_LASTS: Final = timedelta(hours=1)
LINK_METHODS: Final = ("GET", "HEAD")
_PURPOSE: Final = "stratograph signed URLs of exports 1"


class ExportKind(StrEnum):
    """What an export holds."""

    INVENTORY = "INVENTORY"
    """What the tenant has now: one line for each object."""
    USAGE = "USAGE"
    """What it used in a period: one line for each interval in which an object held an amount."""
    EVENTS = "EVENTS"
    """What happened in a period: one line for each event still in the log."""


class ExportStatus(StrEnum):
    """Where an export stands."""

    WRITING = "WRITING"
    """Its file is being written."""
    READY = "READY"
    """Its file can be downloaded."""
    ERROR = "ERROR"
    """It could not be written, or was cancelled; `statusReason` says why."""


class Export(Row, table=True):
    """One file, written or to be written. ``end_at`` is null for what lies open until the export was asked for."""

    __tablename__ = "export"

    tenant_id: int = row.ref("tenant.id")
    kind: ExportKind = row.enum(ExportKind)
    start_at: datetime | None = None
    end_at: datetime | None = None
    status: ExportStatus = row.enum(ExportStatus, default=ExportStatus.WRITING)
    status_reason: str | None = Column(default=None, max_length=500)
    row_count: int | None = row.big(default=None, nullable=True)
    size_bytes: int | None = row.big(default=None, nullable=True)
    sha256: str | None = Column(default=None, max_length=64)
    expires_at: datetime | None = Column(default=None, index=True)

    @property
    def until(self) -> datetime:
        """The end of its period: never behind the moment it was asked for."""
        return min(self.end_at or self.created_at, self.created_at)


NOUN = register(Noun("export", Export, lambda subject: within(col(Export.tenant_id), subject)))
ORDERS: dict[str, Any] = {}


class BulkExport(Retryable):
    """What to write into one file of JSON Lines."""

    kind: ExportKind = Field(description="What to export.")
    tenant_id: AnyId | None = Field(default=None, description="Whose; your only tenant by default.")
    start: datetime | None = Field(
        default=None, description="From this moment. USAGE needs it; EVENTS begin with the oldest; INVENTORY has none."
    )
    end: datetime | None = Field(
        default=None, description="Until just before this moment; now by default. INVENTORY has none."
    )

    @model_validator(mode="after")
    def _period(self) -> Self:
        if self.kind is ExportKind.INVENTORY and (self.start or self.end):
            raise ValueError("an inventory is of now: it has no period")
        if self.kind is ExportKind.USAGE and self.start is None:
            raise ValueError("usage needs a start")
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError("the period ends before it begins")
        return self


class ExportDelete(Retryable):
    """The export to delete."""

    id: AnyId = Field(description="The export.")


class Filter(Command):
    """Which exports."""

    tenant_id: AnyId | None = Field(default=None, description="Of this tenant.")
    kind: list[ExportKind] | None = Field(default=None, description="That hold this.")
    status: list[ExportStatus] | None = Field(default=None, description="In one of these states.")


def create(session: Session, subject: Subject, command: BulkExport) -> dict[str, Any]:
    """Ask for an export. Raises Conflict when the tenant has too many."""
    tenant = ownership.tenant_for(session, subject, command.tenant_id, Role.READER)
    known = session.exec(select(Export.id).where(Export.tenant_id == tenant.id).limit(MOST_OF_A_TENANT)).all()
    if len(known) >= MOST_OF_A_TENANT:
        raise Conflict(f"A tenant has at most {MOST_OF_A_TENANT} exports; delete one, or wait until one expires.")
    made = Export(
        tenant_id=tenant.id, kind=command.kind, start_at=command.start, end_at=command.end, status=ExportStatus.WRITING
    )
    session.add(made)
    session.flush()
    order = jobs.Order("export.create", tenant.id, NOUN.public(made), arguments={"export_id": made.id})
    return {"export": made, "job": jobs.submit(session, subject, order)}


def delete(session: Session, subject: Subject, command: ExportDelete) -> dict[str, Any]:
    """Delete an export; its file follows. Raises InvalidState while it is being written."""
    found = NOUN.get(session, subject, command.id, "id")
    require(subject, Role.MEMBER, found.tenant_id, what="deleting an export")
    if found.status is ExportStatus.WRITING:
        allowed = [ExportStatus.READY.value, ExportStatus.ERROR.value]
        raise InvalidState(
            "It is being written: cancel its job first.", path=("id",), current=found.status.value, allowed=allowed
        )
    public = NOUN.public(found)
    session.delete(found)
    return {"id": public}


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Export]:
    """The exports a subject may see."""
    found = select(Export).where(NOUN.scope(subject))
    if wanted.tenant_id is not None:
        own = select(tenants.Tenant.id).where(tenants.Tenant.uid == tenants.NOUN.uid(wanted.tenant_id, "tenantId"))
        found = found.where(col(Export.tenant_id).in_(own))
    if wanted.kind is not None:
        found = found.where(col(Export.kind).in_(wanted.kind))
    if wanted.status is not None:
        found = found.where(col(Export.status).in_(wanted.status))
    return found


# ------------------------------------------------------------------------------------------------ the file


def folder(state_dir: Path) -> Path:
    """Where the files lie."""
    return state_dir / "exports"


def file_of(state_dir: Path, uid: UUID) -> Path:
    """An export's file; it appears complete and at once."""
    return folder(state_dir) / f"{uid}.jsonl"


def path_of(export: Export) -> str:
    """The path of its URL."""
    return f"/exports/{NOUN.public(export)}/data"


def link(known: Informed, export: Export) -> str | None:
    """The signed URL of an export's file, good for an hour at most; None unless it is READY."""
    now = clock.now(known)
    if export.status is not ExportStatus.READY or export.expires_at is None or export.expires_at <= now:
        return None
    path, until = path_of(export), int(min(now + LINK_LASTS, export.expires_at).timestamp())
    return f"{known.info['settings'].url}{path}?{signed_url.sign(_keys(known), LINK_METHODS, path, until)}"


def permitted(session: Session, method: str, public_id: str, query: str) -> Export:
    """The export whose file a signed URL permits to read now. Raises SignatureRefused, NotFound."""
    now = clock.now(session)
    signed_url.verify(_keys(session), method, f"/exports/{public_id}/data", query, now.timestamp())
    found = session.exec(select(Export).where(Export.uid == NOUN.uid(public_id))).first()
    if found is None or found.status is not ExportStatus.READY or found.expires_at is None or found.expires_at <= now:
        raise NotFound("There is no such export.")
    return found


def _keys(known: Informed) -> SigningKeys:
    return signed_url.keys_of(known.info["sealed"], _PURPOSE)


# ------------------------------------------------------------------------------------------------ for the workers


def written(session: Session, export: Export, row_count: int, size_bytes: int, sha256: str) -> None:
    """Its file is complete."""
    export.status = ExportStatus.READY
    export.row_count, export.size_bytes, export.sha256 = row_count, size_bytes, sha256
    export.expires_at = clock.now(session) + KEPT


def failed(session: Session, export: Export, reason: str) -> None:
    """It has no file and gets none."""
    export.status = ExportStatus.ERROR
    export.status_reason = reason[:500]
    export.expires_at = clock.now(session) + KEPT


def prune(session: Session) -> list[UUID]:
    """Delete the rows of exports whose time is over; their uids."""
    over = select(Export).where(col(Export.expires_at) < clock.now(session)).limit(500)
    gone = list(session.exec(over))
    for each in gone:
        session.delete(each)
    return [each.uid for each in gone]


def known(session: Session) -> set[UUID]:
    """The uids of all exports."""
    return set(session.exec(select(Export.uid)))
