"""Seals on the audit trail: a chain of keyed digests, so that a changed, removed or slipped-in record shows.

Each seal covers one record and the seal before it; whoever holds the database but not the state directory's key can
make none. Records are sealed shortly after they are committed, in the order in which they are found, so no mutation
waits for the chain. What the chain cannot show is that its end was cut off: keep :attr:`Verdict.newest` elsewhere.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, Session, col, func, select

from gateway.identity.audit import AuditRecord
from gateway.kernel import clock, ids
from gateway.kernel.db import Database
from gateway.kernel.prepared import Inserted
from gateway.kernel.row import Row
from gateway.kernel.secretbox import Sealed

_AT_ONCE = 500
_SEALED_AT_ONCE = 100
"""So many records are sealed in one transaction: on SQLite all other writers wait for it."""
_LATE_RECORDS = 10_000
"""A slower transaction may commit a record behind this many later ones and is still sealed."""

_START = "0" * 64
_UNSEALED_COLUMNS = frozenset({"version", "updated_at"})


class AuditSeal(Row, table=True):
    """One link. ``previous`` is unique: a chain has no branches, whoever seals at the same moment."""

    __tablename__ = "audit_seal"

    record_id: int = Field(sa_type=sa.BigInteger, unique=True)
    previous: str = Field(max_length=64, unique=True)
    digest: str = Field(max_length=64)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What looking at the chain found. ``checked`` links were looked at; ``last`` is where to go on, ``newest`` the
    digest there. ``broken_record`` and ``reason`` are set where the first fault is.
    """

    checked: int
    last: int
    newest: str
    broken_record: int | None = None
    reason: str | None = None


def seal(db: Database) -> int:
    """Seal what is not sealed yet; how many records."""
    with db.read() as session:
        if not _unsealed(session, 1):
            return 0
    return db.run(_seal)


def verify(session: Session, after: int = 0, limit: int = 10_000) -> Verdict:
    """Look at ``limit`` links behind the link ``after`` (0: from the start), up to the first fault."""
    box = _box(session)
    previous = _START
    if after:
        before = session.get(AuditSeal, after)
        if before is None:
            return Verdict(0, after, "", None, "A seal is missing.")
        previous = before.digest
    checked, last = 0, after
    while checked < limit:
        links = session.exec(
            select(AuditSeal, AuditRecord)
            .join(AuditRecord, col(AuditRecord.id) == col(AuditSeal.record_id), isouter=True)
            .where(col(AuditSeal.id) > last)
            .order_by(col(AuditSeal.id))
            .limit(min(_AT_ONCE, limit - checked))
        ).all()
        for link, record in links:
            fault = _fault(box, previous, link, record)
            if fault is not None:
                return Verdict(checked, last, previous, link.record_id, fault)
            checked, last, previous = checked + 1, link.id, link.digest
        session.expunge_all()
        if not links:
            break
    return Verdict(checked, last, previous)


def lines(db: Database, after: int = 0) -> Iterator[str]:
    """All records behind a key as JSON lines, oldest first: to be kept where the cloud's operators cannot reach."""
    while True:
        with db.read() as session:
            rows = session.exec(
                select(AuditRecord).where(col(AuditRecord.id) > after).order_by(col(AuditRecord.id)).limit(_AT_ONCE)
            ).all()
        if not rows:
            return
        yield from (canonical(each) for each in rows)
        after = rows[-1].id


def canonical(record: AuditRecord) -> str:
    """A record as one line of JSON that is the same on every database."""
    values = {name: value for name, value in record.model_dump().items() if name not in _UNSEALED_COLUMNS}
    return json.dumps(values, sort_keys=True, separators=(",", ":"), default=_plain)


def _seal(session: Session) -> int:
    box = _box(session)
    newest = session.exec(select(AuditSeal.digest).order_by(col(AuditSeal.id).desc()).limit(1)).first()
    previous = newest or _START
    records, now = _unsealed(session, _SEALED_AT_ONCE), clock.now(session)
    links = []
    for each in records:
        digest = box.fingerprint(previous + canonical(each))
        links.append(
            {
                "uid": ids.new(session),
                "version": 1,
                "created_at": now,
                "updated_at": now,
                "record_id": each.id,
                "previous": previous,
                "digest": digest,
            }
        )
        previous = digest
    _INSERT.each(session, links)
    return len(records)


_INSERT = Inserted(AuditSeal, ("uid", "version", "created_at", "updated_at", "record_id", "previous", "digest"))


def _unsealed(session: Session, limit: int) -> list[AuditRecord]:
    newest = session.exec(select(func.max(AuditSeal.record_id))).one() or 0
    known = sa.exists().where(col(AuditSeal.record_id) == col(AuditRecord.id))
    statement = select(AuditRecord).where(col(AuditRecord.id) > newest - _LATE_RECORDS, ~known)
    return list(session.exec(statement.order_by(col(AuditRecord.id)).limit(limit)))


def _fault(box: Sealed, previous: str, link: AuditSeal, record: AuditRecord | None) -> str | None:
    if link.previous != previous:
        return "A seal before this record is missing or was changed."
    if record is None:
        return "The record is missing."
    if link.digest != box.fingerprint(previous + canonical(record)):
        return "The record was changed."
    return None


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"an audit record holds a {type(value).__name__}")


def _box(session: Session) -> Sealed:
    box: Sealed = session.info["sealed"]
    return box
