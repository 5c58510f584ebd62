"""Jobs: the durable half of every mutation.

The row is outbox, lock, saga log and API object at once. It is inserted in the mutation's transaction; the queue only
carries its key as a doorbell, rung after commit and again by the sweep. A runner claims it with a lease and an attempt
number, and every later write is fenced by that number, so a runner that was thought dead can change nothing.

Jobs that name the same ``resource`` run one after the other in the order they were submitted. A STUCK job (an undo
that failed for good) steps out of that queue: it is shown, and retried by command. On PostgreSQL keys are handed out
before they can be seen, so those who join a queue, and those who take from it, hold the resource's advisory lock; but
for the queue of what the unit of work has only just made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased
from sqlmodel import Field, Session, col, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.kernel import clock, ids, noun, row
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.command import AnyId, Command, Retryable
from gateway.kernel.db import Database, after_commit, unread
from gateway.kernel.errors import InvalidState
from gateway.kernel.noun import Noun, register
from gateway.kernel.prepared import Prepared, Rows
from gateway.kernel.row import Row


class Status(StrEnum):
    """Where a job stands."""

    __graphql_name__ = "JobStatus"

    QUEUED = "QUEUED"
    """Waiting for a worker or for an earlier job of the same object."""
    RUNNING = "RUNNING"
    """A worker is at it."""
    UNWINDING = "UNWINDING"
    """It failed or was cancelled, and what it did is being taken back."""
    SUCCEEDED = "SUCCEEDED"
    """Done."""
    FAILED = "FAILED"
    """Ended without effect; `error` says why."""
    CANCELLED = "CANCELLED"
    """Stopped on request, without effect."""
    STUCK = "STUCK"
    """Taking back failed for good; jobRetry tries again."""


LIVE = (Status.QUEUED, Status.RUNNING, Status.UNWINDING)
FORWARD = (".delete", ".apply", ".confirm", ".revert")
"""How kinds of jobs end that only go forward: they cannot be cancelled. A test holds the sagas to it."""
ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


class StepStatus(StrEnum):
    """Where a step stands."""

    __graphql_name__ = "JobStepStatus"

    PENDING = "PENDING"
    """Not begun."""
    RUNNING = "RUNNING"
    """Under way."""
    DONE = "DONE"
    """Done."""
    FAILED = "FAILED"
    """It failed; its message says why."""
    UNDONE = "UNDONE"
    """Taken back."""
    STUCK = "STUCK"
    """Could not be done or taken back."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step as told to people. Moments are RFC 3339 texts; ``attempt`` counts how often it was begun. ``unsure``
    (which is not told): a runner that died may have begun it without a record, so unwinding takes it back too.
    """

    name: str
    status: StepStatus = StepStatus.PENDING
    started_at: str | None = None
    finished_at: str | None = None
    attempt: int = 0
    message: str | None = None
    unsure: bool = False


class Job(Row, table=True):
    """One piece of work. ``arguments`` are what was asked, ``memory`` what its steps found out so far."""

    __tablename__ = "job"

    kind: str = Field(max_length=64)
    status: Status = row.enum(Status, default=Status.QUEUED)
    tenant_id: int | None = row.ref("tenant.id", null=True)
    actor_id: int | None = row.ref("user_account.id", null=True)
    target: str | None = Field(default=None, max_length=90, index=True)
    resource: str | None = Field(default=None, max_length=90)
    arguments: dict[str, Any] = row.json(default_factory=dict)
    memory: dict[str, Any] = row.json(default_factory=dict)
    steps: list[dict[str, Any]] = row.json(default_factory=list)
    error: dict[str, Any] | None = row.json(default=None, nullable=True)
    progress: float = 0.0
    attempt: int = 0
    tries: int = 0
    cancel_requested: bool = False
    request_id: str = Field(default="", max_length=64)
    due_at: datetime
    lease_until: datetime | None = None
    lease_by: str | None = Field(default=None, max_length=64)
    started_at: datetime | None = None
    finished_at: datetime | None = None

    __table_args__ = (
        sa.Index("ix_job_live", "due_at", sqlite_where=sa.text("status IN ('QUEUED','RUNNING','UNWINDING')"),
                 postgresql_where=sa.text("status IN ('QUEUED','RUNNING','UNWINDING')")),
        sa.Index("ix_job_resource_live", "resource", "id",
                 sqlite_where=sa.text("status IN ('QUEUED','RUNNING','UNWINDING')"),
                 postgresql_where=sa.text("status IN ('QUEUED','RUNNING','UNWINDING')")),
        sa.Index("ix_job_tenant_uid", "tenant_id", "uid"),
    )  # fmt: skip

    @property
    def told(self) -> list[Step]:
        """The steps as values."""
        return [Step(**{**each, "status": StepStatus(each["status"])}) for each in self.steps]

    @property
    def cancellable(self) -> bool:
        """Whether jobCancel would be accepted now."""
        return (
            self.status in (Status.QUEUED, Status.RUNNING)
            and not self.cancel_requested
            and not self.kind.endswith(FORWARD)
        )


NOUN = register(Noun("job", Job, lambda subject: within(col(Job.tenant_id), subject)))


class Bell:
    """How a committed job is announced to workers; set by the composition root. Silent until then: the sweep finds
    it. ``healthy``: whether the last one was heard.
    """

    healthy: bool = True

    def ring(self, job_id: int) -> None:
        """Tell a worker."""


def ring_after_commit(session: Session, job_id: int) -> None:
    """Ring for a job once the unit of work is committed."""
    bell: Bell = session.info.get("bell") or Bell()
    after_commit(session, lambda: bell.ring(job_id))


@dataclass(frozen=True, slots=True)
class Order:
    """What to do: ``kind`` names the saga, ``target`` (a TypeID) what it is about, ``resource`` whose queue it joins
    (the target's by default).
    """

    kind: str
    tenant_id: int | None
    target: str | None = None
    resource: str | None = None
    arguments: dict[str, Any] | None = None


def submit(session: Session, subject: Subject, order: Order) -> Job:
    """Insert a job into this unit of work and ring for it after commit."""
    now = clock.now(session)
    job = Job(
        kind=order.kind,
        tenant_id=order.tenant_id,
        actor_id=subject.user_id if subject.user_id > 0 else None,
        target=order.target,
        resource=order.resource or order.target,
        arguments=order.arguments or {},
        request_id=subject.request_id,
        due_at=now,
        uid=ids.new(session),
    )
    _hold_queue(session, job.resource)
    session.add(job)
    session.flush()
    ring_after_commit(session, job.id)
    return job


def _hold_queue(session: Session, resource: str | None) -> None:
    """Let nobody else join or take from a resource's queue until this unit of work ends; SQLite has one writer."""
    if resource is None or session.get_bind().dialect.name != "postgresql":
        return
    if not _made_here(session, resource):
        _JOIN.later(session, resource=resource)


def _made_here(session: Session, resource: str) -> bool:
    """Whether this unit of work inserted the row that a resource names. Its uid is new, so until the commit nobody can
    join its queue, and whoever does afterwards sees what is in it: nobody needs to be kept out. (SQLAlchemy knows what
    each transaction inserted, to forget it when that, or a savepoint, is rolled back.)
    """
    inserted = getattr(session.get_nested_transaction() or session.get_transaction(), "_new", ())  # no public way
    rows = [state.obj() for state in inserted]
    return any(isinstance(each, Row) and type(each) in noun.BY_TABLE and noun.public(each) == resource for each in rows)


def _locked(resource: Any) -> Any:
    return sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(resource, sa.literal_column("0")))


_JOIN = Prepared(sa.select(_locked(sa.bindparam("resource", type_=sa.String))))
_TAKE = Prepared(sa.select(_locked(col(Job.resource))).where(col(Job.id) == sa.bindparam("job_id")))


@cache
def _claimable() -> Rows[Job]:
    """The job ``:job_id`` if it may be claimed at ``:moment``."""
    now: Any = sa.bindparam("moment", type_=sa.inspect(Job).columns.due_at.type)
    other = aliased(Job)
    ahead = (
        sa.select(sa.literal(1))
        .where(
            col(other.resource) == Job.resource,
            live(other),
            # A stuck job that is taken up again waits for the one at work, not for those behind it.
            or_(col(other.id) < col(Job.id), sa.and_(col(other.id) > col(Job.id), col(other.lease_until) >= now)),
        )
        .correlate(Job)
    )
    conditions = (
        col(Job.id) == sa.bindparam("job_id"),
        live(Job),
        col(Job.due_at) <= now,
        or_(col(Job.lease_until).is_(None), col(Job.lease_until) < now),
        ~sa.exists(ahead),
    )
    return Rows(Job, lambda rows: rows.where(*conditions))


def claim(session: Session, job_id: int, worker: str, lease: timedelta) -> Job | None:
    """Take a job to run it, or None: it is done, not due, leased by another, or behind another of its resource."""
    if session.get_bind().dialect.name == "postgresql":
        _TAKE.later(session, job_id=job_id)  # its own statement: what follows must see what the one before it did
    now = clock.now(session)
    job = _claimable().first(session, job_id=job_id, moment=now)
    if job is None:
        return None
    if job.status is Status.QUEUED:
        job.status = Status.RUNNING
    if job.lease_by is not None:  # who had it never let go of it, and may have begun steps without a record
        unsure = [replace(each, unsure=True) if each.status is StepStatus.PENDING else each for each in job.told]
        write_steps(job, unsure)
    job.attempt += 1
    job.lease_until = now + lease
    job.lease_by = worker
    job.started_at = job.started_at or now
    return job  # the version compared when this unit of work ends makes two claims one


class Fenced(Exception):  # noqa: N818 - it is told to the runner, not a fault
    """This runner lost its job: the lease ran out and another took over."""


def held(session: Session, job_id: int, attempt: int, known: Job | None = None) -> Job:
    """The job, if this attempt still holds it. Raises Fenced.

    ``known`` is the row as the caller last committed it: a copy of it is used unread. It must be changed then, for it
    is the version compared with the update that finds out whether anybody else was there.
    """
    job = session.get(Job, job_id) if known is None else unread(session, known)
    if job is None or job.attempt != attempt or job.lease_until is None or job.status not in LIVE:
        raise Fenced
    return job


_VERSION = Prepared(sa.select(sa.inspect(Job).columns.version).where(col(Job.id) == sa.bindparam("job_id")))


def version(db: Database, job_id: int) -> int | None:
    """The row's version as it is now, by the cheapest read there is: whether anybody changed the job."""
    found: int | None = db.value(_VERSION, {"job_id": job_id})
    return found


def renew(session: Session, job_id: int, attempt: int, lease: timedelta) -> bool:
    """Lengthen the lease of a runner that is still at work; False when it lost the job or let go of it. Raises no
    version.
    """
    kept = session.execute(
        sa.update(Job)
        .where(
            col(Job.id) == job_id,
            col(Job.attempt) == attempt,
            col(Job.status).in_(LIVE),
            col(Job.lease_until).is_not(None),
        )
        .values(lease_until=clock.now(session) + lease)
    )
    return bool(getattr(kept, "rowcount", 0))


def holders(session: Session) -> set[str]:
    """Who holds a lease on a live job."""
    statement = select(Job.lease_by).where(col(Job.status).in_(LIVE), col(Job.lease_until).is_not(None)).distinct()
    return {name for name in session.exec(statement) if name is not None}


def disown(session: Session, name: str) -> int:
    """Take every lease from a runner that is known to be dead; how many. Its jobs may be claimed at once. Should it
    live after all, the next claim's attempt fences it off.
    """
    taken = session.execute(
        sa.update(Job)
        .where(col(Job.lease_by) == name, col(Job.lease_until).is_not(None), col(Job.status).in_(LIVE))
        .values(lease_until=None)  # lease_by stays: it tells the next one that this one never let go
        .execution_options(synchronize_session=False)
    )
    return int(getattr(taken, "rowcount", 0))


def release(session: Session, job: Job, *, due_in: timedelta) -> None:
    """Let go of a job to have it claimed again after a while."""
    job.lease_until = None
    job.lease_by = None
    job.due_at = clock.now(session) + due_in


@cache
def _following() -> Prepared:
    """The next job of a resource."""
    behind = (col(Job.resource) == sa.bindparam("of"), col(Job.id) > sa.bindparam("behind"), live(Job))
    return Prepared(sa.select(col(Job.id)).where(*behind).order_by(col(Job.id)).limit(sa.literal_column("1")))


def settle(session: Session, job: Job, status: Status) -> None:
    """End a job (or leave it STUCK) and ring for the next of its resource."""
    if job.resource is not None:
        following = _following().value(session, of=job.resource, behind=job.id)
        if following is not None:
            ring_after_commit(session, following)
    job.status = status
    job.lease_until = None
    job.lease_by = None
    job.finished_at = clock.now(session)
    if status is Status.SUCCEEDED:
        job.progress = 1.0


def due(session: Session, limit: int = 200) -> list[int]:
    """Keys of jobs that somebody should be running: due, live, and nobody's lease on them."""
    now = clock.now(session)
    statement = (
        select(Job.id)
        .where(
            col(Job.status).in_(LIVE),
            col(Job.due_at) <= now,
            or_(col(Job.lease_until).is_(None), col(Job.lease_until) < now),
        )
        .order_by(col(Job.due_at))
        .limit(limit)
    )
    return list(session.exec(statement))


def write_steps(job: Job, steps: list[Step]) -> None:
    """Put the steps' new state into the row."""
    job.steps = [
        {
            "name": step.name,
            "status": step.status.value,
            "started_at": step.started_at,
            "finished_at": step.finished_at,
            "attempt": step.attempt,
            "message": step.message,
            **({"unsure": True} if step.unsure else {}),
        }
        for step in steps
    ]


class Filter(Command):
    """Which jobs."""

    status: list[Status] | None = Field(default=None, description="In one of these states.")
    kind: str | None = Field(default=None, max_length=64, description="Of this kind, such as `server.create`.")
    target_id: AnyId | None = Field(default=None, description="About this object.")
    live: bool | None = Field(default=None, description="True: not ended yet. False: ended or stuck.")


ORDERS: dict[str, Any] = {"UPDATED_AT": col(Job.updated_at)}


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Job]:
    """The jobs a subject may see."""
    found = select(Job).where(NOUN.scope(subject))
    if wanted.status is not None:
        found = found.where(col(Job.status).in_(wanted.status))
    if wanted.kind is not None:
        found = found.where(Job.kind == wanted.kind)
    if wanted.target_id is not None:
        found = found.where(Job.target == wanted.target_id)
    if wanted.live is not None:
        found = found.where(col(Job.status).in_(LIVE) if wanted.live else col(Job.status).not_in(LIVE))
    return found


def live(columns: Any) -> sa.ColumnElement[bool]:
    """The predicate "has not ended", in the words of the index that finds a resource's live jobs."""
    found: sa.ColumnElement[bool] = sa.type_coerce(columns.status, sa.Text).in_(
        [sa.literal_column(f"'{each.value}'") for each in LIVE]
    )
    return found


def active(session: Session, resource: str) -> Job | None:
    """The job at work on, or next in the queue of, a resource."""
    return session.exec(
        select(Job).where(Job.resource == resource, col(Job.status).in_(LIVE)).order_by(col(Job.id)).limit(1)
    ).first()


def stuck(session: Session, kind: str, target: str) -> Job | None:
    """The newest job of a kind about an object that is STUCK."""
    statement = select(Job).where(Job.target == target, Job.kind == kind, Job.status == Status.STUCK)
    return session.exec(statement.order_by(col(Job.id).desc()).limit(1)).first()


def active_of(session: Session, resources: Sequence[str]) -> dict[str, Job]:
    """:func:`active` for many resources at once."""
    found = session.exec(
        select(Job).where(col(Job.resource).in_(resources), col(Job.status).in_(LIVE)).order_by(col(Job.id).desc())
    )
    return {job.resource: job for job in found if job.resource is not None}


class JobCancel(Retryable):
    """The job to stop."""

    id: AnyId = Field(description="The job.")


class JobRetry(Retryable):
    """The job to take up again."""

    id: AnyId = Field(description="The job.")


def cancel(session: Session, subject: Subject, command: JobCancel) -> Job:
    """Ask a job to stop: it unwinds at its next step, or ends when its turn comes."""
    job = NOUN.get(session, subject, command.id, "id")
    _require(subject, job, Role.MEMBER)
    if job.cancel_requested and job.status in LIVE:
        return job
    if not job.cancellable:
        allowed = [Status.QUEUED.value, Status.RUNNING.value]
        forward = job.kind.endswith(FORWARD) and job.status in LIVE
        message = f"A job that is {job.status.value} cannot be cancelled."
        if forward:
            message = "What this job began can only be brought to its end."
        raise InvalidState(message, path=("id",), current=job.status.value, allowed=allowed)
    job.cancel_requested = True
    session.flush()
    ring_after_commit(session, job.id)
    return job


def retry(session: Session, subject: Subject, command: JobRetry) -> Job:
    """Take up a STUCK job's unwinding again."""
    job = NOUN.get(session, subject, command.id, "id")
    _require(subject, job, Role.MEMBER)
    if job.status is not Status.STUCK:
        message = f"Only a stuck job can be retried; this one is {job.status.value}."
        raise InvalidState(message, path=("id",), current=job.status.value, allowed=[Status.STUCK.value])
    job.status = Status.UNWINDING
    job.tries = 0
    job.finished_at = None
    job.due_at = clock.now(session)
    session.flush()
    ring_after_commit(session, job.id)
    return job


def _require(subject: Subject, job: Job, role: Role) -> None:
    if job.tenant_id is not None:
        require(subject, role, job.tenant_id, what="changing a job")
