"""Usage from intervals: exact to the microsecond, whatever process was down meanwhile.

Each change of what a tenant holds closes one interval and opens the next, in the same transaction as the change. Usage
of a period is the sum of amount times overlap; nothing is sampled and nothing can be lost by a collector.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, Session, SQLModel, col, or_, select

from gateway.kernel import clock, row
from gateway.kernel.prepared import Inserted, Prepared
from gateway.kernel.row import Key, Uid


class Metered(StrEnum):
    """What is counted over time."""

    __graphql_name__ = "MeteredResource"

    VCPU = "VCPU"
    """Virtual processors of servers that run."""
    RAM_MIB = "RAM_MIB"
    """Memory of servers that run, in MiB."""
    DISK_GIB = "DISK_GIB"
    """Root disks of servers, running or not, in GiB."""
    VOLUME_GIB = "VOLUME_GIB"
    """Volumes, attached or not, in GiB."""
    SNAPSHOT_GIB = "SNAPSHOT_GIB"
    """Snapshots of volumes and of servers, in GiB."""
    IMAGE_BYTES = "IMAGE_BYTES"
    """Images as stored, in bytes."""
    ADDRESS = "ADDRESS"
    """Addresses held by ports."""


class Interval(SQLModel, table=True):
    """``amount`` of a resource held by one object from ``started_at`` until ``ended_at`` (null: still)."""

    __tablename__ = "usage_interval"

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    tenant_id: int = row.ref("tenant.id", index=False)
    resource: Metered = row.enum(Metered)
    object_uid: UUID = Field(sa_type=Uid)
    amount: int = row.big()
    started_at: datetime
    ended_at: datetime | None = None

    __table_args__ = (
        sa.Index("ix_usage_interval_period", "tenant_id", "started_at"),
        sa.Index("uq_usage_interval_open", "object_uid", "resource", unique=True,
                 sqlite_where=sa.text("ended_at IS NULL"), postgresql_where=sa.text("ended_at IS NULL")),
    )  # fmt: skip


_TABLE: sa.Table = Interval.__table__  # type: ignore[attr-defined]  # every table model has one
_OF_OBJECT = sa.and_(_TABLE.c.object_uid == sa.bindparam("of"), _TABLE.c.ended_at.is_(None))
_HELD = Prepared(sa.select(_TABLE.c.resource, _TABLE.c.amount).where(_OF_OBJECT))
_OPEN = Inserted(Interval, ("tenant_id", "resource", "object_uid", "amount", "started_at"))
_CLOSE = sa.update(_TABLE).where(_OF_OBJECT).values(ended_at=sa.bindparam("now"))
_CLOSE_SOME = _CLOSE.where(_TABLE.c.resource.in_(sa.bindparam("resources", expanding=True)))
"""Intervals are written past the unit of work, by statements made once: nobody needs them as objects."""


def opened(session: Session, tenant_id: int, resource: Metered, object_uid: UUID, amount: int = 1) -> None:
    """From now on the object holds that much. Saying it again changes nothing; another amount closes the interval."""
    held(session, tenant_id, object_uid, {resource: amount})


def held(session: Session, tenant_id: int, object_uid: UUID, amounts: Mapping[Metered, int]) -> None:
    """:func:`opened` for several resources, from one and the same moment on."""
    current: dict[Metered, int] = dict(_HELD.all(session, of=object_uid))
    changed = {resource: amount for resource, amount in amounts.items() if current.get(resource) != amount}
    now = clock.now(session)
    ending = [resource for resource in changed if resource in current]
    if ending:
        session.connection().execute(_CLOSE_SOME, {"of": object_uid, "now": now, "resources": ending})
    _begin(session, tenant_id, object_uid, changed, now)


def made(session: Session, tenant_id: int, object_uid: UUID, amounts: Mapping[Metered, int]) -> None:
    """:func:`held` for an object that is made in this unit of work, so that nothing needs to be looked up."""
    _begin(session, tenant_id, object_uid, amounts, clock.now(session))


def closed(session: Session, object_uid: UUID, *resources: Metered) -> None:
    """From now on the object holds none of these (of anything, when none is named)."""
    given = {"of": object_uid, "now": clock.now(session)}
    if resources:
        session.connection().execute(_CLOSE_SOME, {**given, "resources": list(resources)})
    else:
        session.connection().execute(_CLOSE, given)


def _begin(session: Session, tenant_id: int, object_uid: UUID, amounts: Mapping[Metered, int], now: datetime) -> None:
    common = {"tenant_id": tenant_id, "object_uid": object_uid, "started_at": now}
    _OPEN.each(session, [{**common, "resource": resource, "amount": amount} for resource, amount in amounts.items()])


@dataclass(frozen=True, slots=True)
class Period:
    """From ``start`` (inclusive) until ``end`` (exclusive)."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """``amount_us`` is amount times microseconds, exact."""

    resource: Metered
    object_uid: UUID
    amount_us: int


_MICROSECOND = timedelta(microseconds=1)


def lines(session: Session, tenant_id: int, period: Period) -> list[Line]:
    """What each object of a tenant used in a period, so far as it is past."""
    end = min(period.end, clock.now(session))
    found = session.exec(
        select(Interval).where(
            Interval.tenant_id == tenant_id,
            col(Interval.started_at) < end,
            or_(col(Interval.ended_at).is_(None), col(Interval.ended_at) > period.start),
        )
    )
    sums: dict[tuple[Metered, UUID], int] = defaultdict(int)
    for each in found:
        overlap = min(each.ended_at or end, end) - max(each.started_at, period.start)
        sums[each.resource, each.object_uid] += each.amount * max(0, overlap // _MICROSECOND)
    return [Line(resource, uid, total) for (resource, uid), total in sorted(sums.items()) if total]
