"""Samples: what machines did, as counters read by one bulk call a host, with hourly rollups.

Totals grow from power-on, so a rate is the difference of two samples of one run; where a counter fell the machine was
started anew and the new total itself is the difference. A rollup of an hour is brought up to date in the transaction
that inserts a sample, so it always equals a recomputation. Raw samples are kept for two days, rollups for 400.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from gateway.kernel import row
from gateway.kernel.row import Key, Record, Uid

KEEP_RAW = timedelta(days=2)
KEEP_HOURS = timedelta(days=400)
_NS = 1_000_000_000


class Quality(StrEnum):
    """How good counters are."""

    __graphql_name__ = "MetricsQuality"

    EXACT = "EXACT"
    """The hypervisor's own totals since power-on."""
    SUMMED = "SUMMED"
    """Added up from what the hypervisor tells of intervals; totals may start over while the server runs."""
    PARTIAL = "PARTIAL"
    """As SUMMED, but something was missing this time: totals are too low."""


class Sample(Record, table=True):
    """One reading of one server. Totals since power-on; null is 'the platform does not say'. ``cpu_percent`` is of one
    processor, since the sample before.
    """

    __tablename__ = "sample"

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    server_uid: UUID = Field(sa_type=Uid)
    at: datetime
    cpu_time_ns: int | None = row.big(default=None, nullable=True)
    cpu_percent: float | None = None
    vcpus: int
    ram_mib: int
    ram_used_mib: int | None = None
    disk_read_bytes: int | None = row.big(default=None, nullable=True)
    disk_written_bytes: int | None = row.big(default=None, nullable=True)
    disk_reads: int | None = row.big(default=None, nullable=True)
    disk_writes: int | None = row.big(default=None, nullable=True)
    net_received_bytes: int | None = row.big(default=None, nullable=True)
    net_sent_bytes: int | None = row.big(default=None, nullable=True)
    quality: Quality | None = row.enum(Quality, default=None, nullable=True)

    __table_args__ = (sa.Index("ix_sample_server", "server_uid", "at"), sa.Index("ix_sample_at", "at"))


class SampleHour(Record, table=True):
    """One hour of one server: counts of samples, seconds of processor time, bytes moved, memory (sum for the mean)."""

    __tablename__ = "sample_hour"

    server_uid: UUID = Field(primary_key=True, sa_type=Uid)
    hour: datetime = Field(primary_key=True, index=True)
    samples: int = 0
    cpu_time_ns: int = row.big(default=0)
    cpu_percent_max: float = 0.0
    ram_used_mib_sum: int = row.big(default=0)
    ram_used_samples: int = 0
    ram_used_mib_max: int = 0
    disk_read_bytes: int = row.big(default=0)
    disk_written_bytes: int = row.big(default=0)
    net_received_bytes: int = row.big(default=0)
    net_sent_bytes: int = row.big(default=0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a driver read of one server; fields as in :class:`Sample`."""

    server_uid: UUID
    at: datetime
    cpu_time_ns: int | None
    vcpus: int
    ram_mib: int
    ram_used_mib: int | None
    disk_read_bytes: int | None
    disk_written_bytes: int | None
    disk_reads: int | None
    disk_writes: int | None
    net_received_bytes: int | None
    net_sent_bytes: int | None
    quality: Quality | None = None


_COUNTERS = ("disk_read_bytes", "disk_written_bytes", "net_received_bytes", "net_sent_bytes")


def record(session: Session, readings: Sequence[Reading]) -> int:
    """Keep readings and bring their hours up to date; those not newer than the last kept one are counted once only.
    How many were kept.
    """
    before = newest(session, [each.server_uid for each in readings])
    hours = _hours(session, readings)
    kept = 0
    for each in readings:
        last = before.get(each.server_uid)
        if last is not None and each.at <= last.at:
            continue
        sample = Sample(**{name: getattr(each, name) for name in each.__slots__})
        used_ns = _grown(last.cpu_time_ns if last else None, each.cpu_time_ns)
        if last is not None and used_ns is not None:
            passed = (each.at - last.at).total_seconds()
            sample.cpu_percent = round(100 * used_ns / _NS / passed, 2) if passed > 0 else None
        session.add(sample)
        before[each.server_uid] = sample
        _add(hours[each.server_uid, _hour(each.at)], sample, last, used_ns)
        kept += 1
    return kept


def newest(session: Session, server_uids: Sequence[UUID]) -> dict[UUID, Sample]:
    """The newest sample of each server."""
    latest = (
        select(Sample.server_uid, sa.func.max(col(Sample.at)).label("at"))
        .where(col(Sample.server_uid).in_(server_uids))
        .group_by(col(Sample.server_uid))
        .subquery()
    )
    statement = select(Sample).join(
        latest, sa.and_(col(Sample.server_uid) == latest.c.server_uid, col(Sample.at) == latest.c.at)
    )
    return {each.server_uid: each for each in session.exec(statement.order_by(col(Sample.id)))}


def history(session: Session, server_uid: UUID, start: datetime, end: datetime) -> list[SampleHour]:
    """A server's hours that begin in a period, oldest first."""
    statement = select(SampleHour).where(
        SampleHour.server_uid == server_uid, col(SampleHour.hour) >= start, col(SampleHour.hour) < end
    )
    return list(session.exec(statement.order_by(col(SampleHour.hour))))


def prune(session: Session, now: datetime) -> int:
    """Forget what is past its retention; how many rows."""
    raw = session.execute(sa.delete(Sample).where(col(Sample.at) < now - KEEP_RAW))
    rolled = session.execute(sa.delete(SampleHour).where(col(SampleHour.hour) < now - KEEP_HOURS))
    return int(getattr(raw, "rowcount", 0)) + int(getattr(rolled, "rowcount", 0))


def _hours(session: Session, readings: Sequence[Reading]) -> dict[tuple[UUID, datetime], SampleHour]:
    wanted = {(each.server_uid, _hour(each.at)) for each in readings}
    statement = select(SampleHour).where(
        col(SampleHour.server_uid).in_({uid for uid, _ in wanted}),
        col(SampleHour.hour).in_({hour for _, hour in wanted}),
    )
    found = {(each.server_uid, each.hour): each for each in session.exec(statement)}
    for uid, hour in wanted - found.keys():
        found[uid, hour] = SampleHour(server_uid=uid, hour=hour)
        session.add(found[uid, hour])
    return found


def _add(hour: SampleHour, sample: Sample, last: Sample | None, used_ns: int | None) -> None:
    hour.samples += 1
    hour.cpu_time_ns += used_ns or 0
    hour.cpu_percent_max = max(hour.cpu_percent_max, sample.cpu_percent or 0.0)
    if sample.ram_used_mib is not None:
        hour.ram_used_mib_sum += sample.ram_used_mib
        hour.ram_used_samples += 1
        hour.ram_used_mib_max = max(hour.ram_used_mib_max, sample.ram_used_mib)
    for name in _COUNTERS:
        moved = _grown(getattr(last, name) if last else None, getattr(sample, name))
        setattr(hour, name, getattr(hour, name) + (moved or 0))


def _grown(before: int | None, now: int | None) -> int | None:
    if now is None:
        return None
    return now if before is None or now < before else now - before


def _hour(at: datetime) -> datetime:
    return at.replace(minute=0, second=0, microsecond=0)
