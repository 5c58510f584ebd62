"""Sagas: how a job is carried out, step by step, so that it ends either done or undone.

A saga is a tuple of steps in one file. A step's ``do`` meets the outside world first (always by ``ensure``/``remove``
verbs, so doing it twice equals doing it once) and then returns its row changes, which are committed together with the
record that the step is done. ``undo`` takes it back and accepts that nothing may have happened. Nothing external
happens inside an open transaction, and every commit is fenced by the job's attempt.

What a step raises decides what follows: :class:`drivers.api.Transient` is tried again later, then unwound;
``HostAtFault`` unwinds and runs the saga again without that host; a refusal unwinds and fails the job; anything else
is a bug, told as INTERNAL. An undo that keeps failing leaves the job STUCK: visible, and retried by command.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog
from sqlmodel import Session

from drivers.api import DriverError, HostAtFault, Transient
from drivers.api import Refused as DriverRefused
from drivers.api import Unsupported as DriverUnsupported
from gateway.jobs import job as jobs
from gateway.jobs.job import Fenced, Job, Status, StepStatus
from gateway.jobs.job import Step as Told
from gateway.kernel import errors
from gateway.kernel.db import Database
from gateway.kernel.errors import Refusal, Unavailable

T = TypeVar("T")

LEASE = timedelta(seconds=60)
TRIES = 6
"""How often a step is begun before Transient counts as failed."""
ROUNDS = 3
"""How many hosts are tried."""
BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0

Change = Callable[[Session, Job], None]
"""Row changes, committed with the step's record."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """``do`` and ``undo`` get the :class:`Run`; each may return a :data:`Change`. A step without ``undo`` says in
    ``kept`` why nothing needs to be taken back. ``name`` is shown to people and never changes.
    """

    name: str
    do: Callable[[Run], Change | None]
    undo: Callable[[Run], Change | None] | None = None
    kept: str | None = None

    def __post_init__(self) -> None:
        if (self.undo is None) == (self.kept is None):
            raise TypeError(f"step {self.name}: give undo, or say in kept why there is none")


@dataclass(frozen=True, slots=True)
class Saga:
    """A kind of job. ``failed`` changes rows when the job has ended FAILED or CANCELLED (after unwinding), with the
    reason. A saga with ``forward`` set never unwinds: what it began (a deletion) it ends, trying again as long as it
    takes; it then must only consist of steps with ``kept``.
    """

    kind: str
    steps: tuple[Step, ...]
    failed: Callable[[Session, Job, Refusal], None] | None = None
    forward: bool = False


SAGAS: dict[str, Saga] = {}


def saga(
    kind: str,
    *steps: Step,
    failed: Callable[[Session, Job, Refusal], None] | None = None,
    forward: bool = False,
) -> Saga:
    """Register a saga."""
    if kind in SAGAS:
        raise TypeError(f"two sagas are called {kind}")
    SAGAS[kind] = Saga(kind, steps, failed, forward)
    return SAGAS[kind]


@dataclass(slots=True)
class Run:
    """What a step may use: the job's arguments, what earlier steps kept in ``memory``, the database and ``hosts``
    (the way to hypervisors, see workers.hypervisor). ``say`` sets the step's message.
    """

    db: Database
    hosts: Any
    job_id: int
    uid: str
    arguments: dict[str, Any]
    memory: dict[str, Any]
    message: str | None = None
    settings: Any = None
    addresses: dict[int, Any] = field(default_factory=dict)
    """How hosts are reached, as this claim of the job found out (see workers.reach)."""

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only reads."""
        with self.db.read() as session:
            yield session

    def say(self, message: str) -> None:
        """What people are told about this step."""
        self.message = message[:500]

    @property
    def avoid(self) -> list[int]:
        """Keys of hosts that failed in earlier rounds."""
        return list(self.memory.get("avoid", []))


@dataclass(slots=True)
class Runner:
    """Carries jobs out. One per process; thread-safe. ``name`` identifies it in leases."""

    db: Database
    hosts: Any
    name: str
    settings: Any = None
    stopping: threading.Event = field(default_factory=threading.Event)
    lease: timedelta = LEASE
    backoff_s: float = BACKOFF_S
    _at_work: dict[int, int] = field(default_factory=dict)

    def run(self, job_id: int) -> None:
        """Claim a job and go on with it until it is settled, has to wait, or another runner took it over."""
        if self.stopping.is_set():
            return  # whoever is left takes it
        claimed = self.db.run(lambda session: self._claim(session, job_id))
        if claimed is None:
            return
        with structlog.contextvars.bound_contextvars(
            job=str(jobs.NOUN.public(claimed)), kind=claimed.kind, request_id=claimed.request_id
        ):
            self._at_work[claimed.id] = claimed.attempt
            try:
                _Course(self, claimed).go()
            except Fenced:
                log.warning("job was taken over by another runner")
            except Unavailable:
                log.warning("job is left until the database is back; the sweep takes it up when its lease has ended")
            finally:
                self._at_work.pop(claimed.id, None)

    def _claim(self, session: Session, job_id: int) -> Job | None:
        """Take a job, and have it show all its steps and the one it goes on with as begun, in the same commit."""
        job = jobs.claim(session, job_id, self.name, self.lease)
        found = SAGAS.get(job.kind) if job is not None else None
        if job is None or found is None:
            return job
        if len(job.steps) != len(found.steps):
            jobs.write_steps(job, _merged(job, found))
        first = next((at for at, told in enumerate(job.told) if told.status is not StepStatus.DONE), None)
        if job.status is Status.RUNNING and first is not None and (found.forward or not job.cancel_requested):
            _mark_running(job, first, self.db.clock())
        return job

    def renew_leases(self) -> None:
        """Lengthen the leases of all jobs at work here; to be called a few times within a lease's length."""
        for job_id, attempt in list(self._at_work.items()):
            self.db.run(lambda session, j=job_id, a=attempt: jobs.renew(session, j, a, self.lease))  # type: ignore[misc]  # mypy cannot infer a defaulted lambda


class _Course:
    """One claim of one job."""

    def __init__(self, runner: Runner, job: Job) -> None:
        self.runner = runner
        self.job = job
        self.attempt = job.attempt
        self.addresses: dict[int, Any] = {}
        running = job.status is Status.RUNNING
        marked = (at for at, told in enumerate(job.told) if running and told.status is StepStatus.RUNNING)
        self.begun = next(marked, None)
        """The step that the row shows as begun by this claim."""

    def go(self) -> None:
        found = SAGAS.get(self.job.kind)
        if found is None:
            self._settle(Saga(self.job.kind, ()), Status.FAILED, errors.Internal("No worker knows this kind of job."))
            return
        if self.job.status is Status.UNWINDING and found.forward:
            self.job = self._commit(_take_up)
        if self.job.status is Status.UNWINDING:
            self._unwind(found)
        else:
            self._wind(found)

    # ------------------------------------------------------------------------------------------ forwards

    def _wind(self, found: Saga) -> None:
        for index, step in enumerate(found.steps):
            if self.job.told[index].status is StepStatus.DONE:
                continue
            if self._must_cancel(found):
                self._turn_back(found, index, errors.Cancelled("The job was cancelled."), None)
                return
            if self.runner.stopping.is_set():
                self._wait(timedelta(0))
                return
            if not self._advance(found, index, step):
                return

    def _advance(self, found: Saga, index: int, step: Step) -> bool:
        self._begin(index)
        run = self._new_run()
        try:
            change = step.do(run)
            self._record(found, index, run, change, StepStatus.DONE)
        except (Fenced, Unavailable):
            raise
        except Exception as error:  # noqa: BLE001 - whatever happened, the job must settle
            return self._failed(found, index, run, error)
        return True

    def _failed(self, found: Saga, index: int, run: Run, error: Exception) -> bool:
        told = self.job.told[index]
        refusal = _refusal(error)
        # A hypervisor is waited for as long as it takes by what only goes forward; a fault of ours is not.
        patient = found.forward and isinstance(error, DriverError)
        again = isinstance(error, Transient) or (found.forward and not isinstance(error, Refusal))
        if patient or (again and self.job.tries + 1 < TRIES):
            log.info("step will be tried again", step=told.name, reason=refusal.message)
            self._wait(self._pause(), f"Trying again: {refusal.message}", index)
            return False
        if refusal.code is errors.UserErrorCode.INTERNAL:
            log.error("step failed by a fault of ours", step=told.name, exc_info=error)
        if found.forward:
            self._stuck(index, refusal)
            return False
        elsewhere = isinstance(error, HostAtFault) and run.memory.get("host_id") is not None
        self._turn_back(found, index, refusal, run.memory["host_id"] if elsewhere else None)
        return False

    def _must_cancel(self, found: Saga) -> bool:
        return self.job.cancel_requested and not found.forward

    # ------------------------------------------------------------------------------------------ backwards

    def _turn_back(self, found: Saga, index: int, why: Refusal, bad_host: int | None) -> None:
        """Start unwinding, from the step that failed: it may have had half its effect."""
        now = self.runner.db.clock()

        def change(_session: Session, job: Job) -> None:
            steps = job.told
            failed = why.code is not errors.UserErrorCode.CANCELLED
            if failed or steps[index].status is StepStatus.RUNNING:
                steps[index] = replace(
                    steps[index], status=StepStatus.FAILED, finished_at=_text(now), message=why.message[:500]
                )
            jobs.write_steps(job, steps)
            job.status = Status.UNWINDING
            job.tries = 0
            job.error = errors.to_json(why)
            if bad_host is not None:
                job.memory = {**job.memory, "avoid": sorted({*job.memory.get("avoid", []), bad_host})}

        self.job = self._commit(change)
        self._unwind(found)

    def _unwind(self, found: Saga) -> None:
        for index in reversed(range(len(found.steps))):
            if self.job.told[index].status not in (StepStatus.DONE, StepStatus.FAILED, StepStatus.STUCK):
                continue
            if self.runner.stopping.is_set():
                self._wait(timedelta(0))
                return
            step = found.steps[index]
            run = self._new_run()
            try:
                change = step.undo(run) if step.undo is not None else None
                self._record(found, index, run, change, StepStatus.UNDONE)
            except (Fenced, Unavailable):
                raise
            except Exception as error:
                if self.job.tries + 1 < TRIES:
                    self._wait(self._pause(), None, index)
                else:
                    log.exception("undo failed for good", step=step.name)
                    self._stuck(index, _refusal(error))
                return
        self._unwound(found)

    def _unwound(self, found: Saga) -> None:
        why = errors.from_json(self.job.error or errors.to_json(errors.Internal("The job failed.")))
        avoid = self.job.memory.get("avoid", [])
        rounds = self.job.memory.get("rounds", 1)
        hypervisor = why.code is errors.UserErrorCode.HYPERVISOR_ERROR
        if hypervisor and len(avoid) >= rounds and rounds < ROUNDS and not self.job.cancel_requested:

            def again(_session: Session, job: Job) -> None:
                job.status = Status.RUNNING
                job.tries = 0
                job.memory = {"avoid": avoid, "rounds": rounds + 1}
                jobs.write_steps(job, [Told(each.name, attempt=each.attempt) for each in job.told])

            self.job = self._commit(again)
            self.begun = None
            self._wind(found)
            return
        cancelled = why.code is errors.UserErrorCode.CANCELLED
        self._settle(found, Status.CANCELLED if cancelled else Status.FAILED, why)

    # ------------------------------------------------------------------------------------------ records

    def _new_run(self) -> Run:
        return Run(
            db=self.runner.db,
            hosts=self.runner.hosts,
            job_id=self.job.id,
            uid=jobs.NOUN.public(self.job),
            arguments=dict(self.job.arguments),
            memory=dict(self.job.memory),
            settings=self.runner.settings,
            addresses=self.addresses,
        )

    def _begin(self, index: int) -> None:
        if self.begun == index:
            return  # already shown as running, by the claim or by the commit of the step before
        self.job = self._commit(lambda _s, job: _mark_running(job, index, self.runner.db.clock()))
        self.begun = index

    def _record(self, found: Saga, index: int, run: Run, change: Change | None, status: StepStatus) -> None:
        now = self.runner.db.clock()
        last = index == len(found.steps) - 1

        def record(session: Session, job: Job) -> None:
            job.memory = run.memory
            if change is not None:
                change(session, job)
            steps = job.told
            message = run.message or steps[index].message
            steps[index] = replace(steps[index], status=status, finished_at=_text(now), message=message)
            jobs.write_steps(job, steps)
            job.tries = 0
            if status is StepStatus.DONE:
                job.progress = round((index + 1) / len(found.steps), 4)
                if last:
                    jobs.settle(session, job, Status.SUCCEEDED)
                else:
                    _mark_running(job, index + 1, now)

        self.job = self._commit(record)
        self.begun = index + 1 if status is StepStatus.DONE and not last else None

    def _settle(self, found: Saga, status: Status, why: Refusal) -> None:
        def change(session: Session, job: Job) -> None:
            job.error = errors.to_json(why)
            if found.failed is not None:
                found.failed(session, job, why)
            jobs.settle(session, job, status)

        self.job = self._commit(change)
        log.info("job ended", status=status.value, reason=why.message)

    def _stuck(self, index: int, why: Refusal) -> None:
        def change(session: Session, job: Job) -> None:
            steps = job.told
            steps[index] = replace(steps[index], status=StepStatus.STUCK, message=why.message[:500])
            jobs.write_steps(job, steps)
            job.error = job.error or errors.to_json(why)
            jobs.settle(session, job, Status.STUCK)

        self.job = self._commit(change)

    def _wait(self, pause: timedelta, message: str | None = None, index: int | None = None) -> None:
        def change(session: Session, job: Job) -> None:
            if index is not None:
                job.tries += 1
                steps = job.told
                steps[index] = replace(steps[index], message=(message or steps[index].message))
                jobs.write_steps(job, steps)
            jobs.release(session, job, due_in=pause)

        self.job = self._commit(change)

    def _pause(self) -> timedelta:
        return timedelta(seconds=min(self.runner.backoff_s * 2 ** min(self.job.tries, 16), BACKOFF_MAX_S))

    def _commit(self, change: Change) -> Job:
        """Change the job's row (and whatever the change touches) in one transaction, if this attempt still holds it."""
        known: Job | None = self.job

        def work(session: Session) -> Job:
            nonlocal known
            # The row as this course last wrote it spares reading it: its version is compared when it is written, and
            # whoever changed it meanwhile (a cancel, another claim) sends this here again, to read.
            job, known = jobs.held(session, self.job.id, self.attempt, known), None
            change(session, job)
            if job.lease_until is not None:
                job.lease_until = self.runner.db.clock() + self.runner.lease
            session.flush()
            return job

        return self.runner.db.run(work)


def _take_up(_session: Session, job: Job) -> None:
    """Let a stuck job that only goes forward go on: there is nothing to unwind."""
    steps = [replace(each, status=StepStatus.PENDING) if each.status is StepStatus.STUCK else each for each in job.told]
    jobs.write_steps(job, steps)
    job.status = Status.RUNNING
    job.error = None


def _mark_running(job: Job, index: int, now: datetime) -> None:
    steps = job.told
    told = steps[index]
    steps[index] = replace(
        told, status=StepStatus.RUNNING, started_at=told.started_at or _text(now), attempt=told.attempt + 1
    )
    jobs.write_steps(job, steps)


def _merged(job: Job, found: Saga) -> list[Told]:
    """The steps of a job as this version knows them: a step appended since keeps those before it."""
    kept = job.told
    names: Sequence[str] = [step.name for step in found.steps]
    if [each.name for each in kept] != list(names[: len(kept)]):
        raise AssertionError(f"steps of {found.kind} were renamed or moved")
    return [*kept, *(Told(name) for name in names[len(kept) :])]


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, DriverUnsupported):
        return errors.Unsupported(error.reason, capability=error.capability.value)
    if isinstance(error, DriverRefused | DriverError):
        return errors.HypervisorError(error.reason, reason=error.reason)
    return errors.Internal("A fault of ours; the log has it under this job's id.")


def _text(moment: datetime) -> str:
    return moment.isoformat()
