"""The event log: what changed, in an order that a client can resume from.

Every insert, update and delete of a registered noun writes one event in the same transaction (a hook on flush, so none
can be forgotten; they are written together when the unit of work ends). A cursor is the pair (transaction, id):
PostgreSQL hands out ids before commit, so a reader that went by id alone would miss a slower transaction's events; it
therefore reads only below the oldest transaction still running in this database (:class:`Horizon`). SQLite has one
writer, and its transaction number is always 0.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Field, Session, SQLModel, col, select

from gateway.kernel import clock, noun, saving
from gateway.kernel.access import Subject, within
from gateway.kernel.errors import Invalid
from gateway.kernel.prepared import Inserted, Prepared, Rows
from gateway.kernel.row import Json, Key, Row, Uid

RETENTION = timedelta(days=7)
S = TypeVar("S")


class Cursor(NamedTuple):
    """A place in the log."""

    transaction: int
    id: int

    def encode(self) -> str:
        """The cursor as clients hold it."""
        return base64.urlsafe_b64encode(f"{self.transaction}:{self.id}".encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """The cursor of a client. Raises Invalid."""
        try:
            left, _, right = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(":")
            found = cls(int(left), int(right))
        except (ValueError, binascii.Error):
            raise Invalid("This cursor is not one of ours.", path=("after",)) from None
        if not (0 <= found.transaction < 2**63 and 0 <= found.id < 2**63):
            raise Invalid("This cursor is not one of ours.", path=("after",))
        return found


class CurrentTransaction(FunctionElement[int]):
    """The number of the transaction that inserts: PostgreSQL's, 0 on SQLite."""

    inherit_cache = True


@compiles(CurrentTransaction, "postgresql")
def _postgresql(_element: CurrentTransaction, _compiler: object, **_options: object) -> str:
    return "(pg_current_xact_id()::text::bigint)"


@compiles(CurrentTransaction)
def _any_other(_element: CurrentTransaction, _compiler: object, **_options: object) -> str:
    return "0"


class Horizon(FunctionElement[int]):
    """The place in the log up to which it is complete: every transaction of this database that has a lower number has
    ended, and this statement sees what it wrote. It is the lowest number among the transactions which the statement's
    snapshot found running, those left out that are known to be in another database of the server: they write none of
    our events. One that has ended since, or of which nothing can be learned, counts as ours.
    """

    inherit_cache = True


@compiles(Horizon, "postgresql")
def _horizon_of_postgresql(_element: Horizon, _compiler: object, **_options: object) -> str:
    return (
        "(SELECT coalesce(min(running::text::bigint), pg_snapshot_xmax(pg_current_snapshot())::text::bigint)"
        " FROM pg_snapshot_xip(pg_current_snapshot()) AS running WHERE NOT EXISTS (SELECT 1 FROM pg_stat_activity"
        " WHERE backend_xid = xid(running) AND datname <> current_database()))"
    )


@compiles(Horizon)
def _horizon_of_any_other(_element: Horizon, _compiler: object, **_options: object) -> str:
    return "1"


class Event(SQLModel, table=True):
    """One change of one object. ``kind`` is ``<noun>.created|changed|deleted``."""

    __tablename__ = "event"

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    transaction: int = Field(
        default=None, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": CurrentTransaction()}
    )
    at: datetime
    kind: str = Field(max_length=64)
    noun: str = Field(max_length=32)
    object_uid: UUID = Field(index=True, sa_type=Uid)
    tenant_id: int | None = Field(default=None, sa_type=sa.BigInteger)
    version: int
    changed: list[str] = Field(default_factory=list, sa_type=Json)

    __table_args__ = (sa.Index("ix_event_place", "transaction", "id"), sa.Index("ix_event_at", "at"))

    @property
    def cursor(self) -> Cursor:
        """The place just behind this event."""
        return Cursor(self.transaction, self.id)


_ROWS = Rows(Event, lambda rows: rows)
_BEHIND = sa.tuple_(col(Event.transaction), col(Event.id)) > sa.tuple_(
    sa.bindparam("transaction", type_=sa.BigInteger), sa.bindparam("id", type_=sa.BigInteger)
)
_EVERY = (
    sa.select(*_ROWS.columns, Horizon())
    .where(_BEHIND)
    .order_by(col(Event.transaction), col(Event.id))
    .limit(sa.bindparam("most"))
)
_NEXT, _NEXT_OF_ONE = Prepared(_EVERY), Prepared(_EVERY.where(col(Event.object_uid) == sa.bindparam("object_uid")))
"""What is behind a place, complete or not, with the horizon as the last column."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events: of these nouns, of this object."""

    nouns: frozenset[str] | None = None
    object_uid: UUID | None = None


def visible(subject: Subject, event: Event) -> bool:
    """Whether the subject may know of an event: those of tenants it may read, and public nouns' (no tenant) only for
    operators.
    """
    if subject.admin:
        return True
    return event.tenant_id is not None and event.tenant_id in subject.roles


def scope(subject: Subject) -> sa.ColumnElement[bool]:
    """:func:`visible` as a predicate."""
    return within(col(Event.tenant_id), subject)


class Page(NamedTuple):
    """What comes next in the log, oldest first, and whether more is committed that waits for a slower transaction."""

    events: list[Event]
    waits: bool


def after(session: Session, cursor: Cursor, limit: int, object_uid: UUID | None = None) -> Page:
    """What comes next in the log (of one object) behind a cursor; nothing that a slower transaction could precede."""
    found = (_NEXT if object_uid is None else _NEXT_OF_ONE).all(
        session, transaction=cursor.transaction, id=cursor.id, object_uid=object_uid, most=limit
    )
    told: list[Event] = []
    for *row, horizon in found:
        event = _ROWS.object(session, row)
        if event.transaction >= horizon:
            return Page(told, waits=True)
        told.append(event)
    return Page(told, waits=False)


def settled(session: Session, statement: S) -> S:
    """Only what no slower transaction can still precede. To be asked once in a transaction, which learns only once what
    others do.
    """
    if session.get_bind().dialect.name != "postgresql":
        return statement
    kept: Any = statement
    bounded: S = kept.where(col(Event.transaction) < Horizon())
    return bounded


def newest(session: Session) -> Cursor:
    """The place behind all events so far."""
    statement = select(Event.transaction, Event.id).order_by(col(Event.transaction).desc(), col(Event.id).desc())
    found = session.exec(settled(session, statement).limit(1)).first()
    return Cursor(*found) if found else Cursor(0, 0)


def prune(session: Session) -> int:
    """Forget events older than the retention; how many."""
    gone = session.execute(sa.delete(Event).where(col(Event.at) < clock.now(session) - RETENTION))
    return int(getattr(gone, "rowcount", 0))


_QUIET = frozenset({"version", "updated_at"})
_WRITTEN = ("at", "kind", "noun", "object_uid", "tenant_id", "version", "changed")
_INSERT = Inserted(Event, _WRITTEN)
"""Events are written past the unit of work: nobody needs them as objects."""


@sa.event.listens_for(OrmSession, "before_flush")
def _announce(session: OrmSession, _context: object, _instances: object) -> None:
    """Stamp rows, write one event for each announced row that this flush writes, and the rows that are plain."""
    if "clock" not in session.info:
        return
    now = session.info["clock"]()
    written: list[dict[str, Any]] = []
    new = [row for row in session.new if isinstance(row, Row)]
    for row in new:
        _stamp(session, row, now)
        _add(written, row, "created", now, [])
    dirty = []
    for row in session.dirty:
        if isinstance(row, Row) and (keys := saving.changed(sa.inspect(row))):
            row.updated_at = now
            _add(written, row, "changed", now, sorted(set(keys) - _QUIET))
            dirty.append((row, sorted({*keys, "updated_at"})))
    for row in session.deleted:
        if isinstance(row, Row):
            _add(written, row, "deleted", now, [])
    _tell(session, written)
    if new or dirty:
        saving.save(session, new, dirty)


def _tell(session: OrmSession, written: list[dict[str, Any]]) -> None:
    """Have these events written."""
    if not written:
        return
    session.info["announced"] = True
    if session.in_nested_transaction():  # what is taken back to a savepoint was never announced
        _INSERT.each(session, written)
    else:
        session.info.setdefault("events", []).extend(written)


@sa.event.listens_for(OrmSession, "before_commit")
def _write(session: OrmSession) -> None:
    """Write the events of a unit of work by one statement, when all of its changes are known, and have others told."""
    if "clock" not in session.info:
        return
    session.flush()
    written = session.info.pop("events", None)
    if written:
        _INSERT.each(session, written)
    if session.info.get("announced") and "tell" in session.info:
        session.info["tell"](session)


def _stamp(session: OrmSession, row: Row, now: datetime) -> None:
    row.uid = row.uid or session.info["uids"]()
    row.created_at = row.created_at or now
    row.updated_at = now


def _add(written: list[dict[str, Any]], row: Row, verb: str, now: datetime, changed: list[str]) -> None:
    kind = noun.BY_TABLE.get(type(row))
    if kind is None or not kind.announce:
        return
    tenant_id: Any = row.id if kind.prefix == "tenant" else getattr(row, "tenant_id", None)
    written.append(
        {
            "at": now,
            "kind": f"{kind.prefix}.{verb}",
            "noun": kind.prefix,
            "object_uid": row.uid,
            "tenant_id": tenant_id,
            "version": (row.version or 1) + (verb == "changed"),
            "changed": changed,
        }
    )
