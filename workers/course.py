"""The course of a job: one claim of it, from step to step, forwards or back.

What a step raises decides what follows. :class:`drivers.api.Transient` is tried again later, then unwound; HostAtFault
unwinds and runs the saga again without that host; a refusal unwinds and fails the job; anything else is a bug, told as
INTERNAL. What only goes forward, and what is being taken back, waits for a host that does not answer as long as it
takes; a host that refuses, or a bug, leaves the job STUCK after some tries: visible, and taken up again by command.

The record of a step that changed no row and remembered nothing is **held back** for a moment and written with the next
one, so a quick job costs few commits. Nothing rests on such a record: steps are done again after a crash, and whoever
takes a job over counts every step that its predecessor may have begun as one to take back (``unsure``). A step
that follows a record held back begins nothing outside before the row's version was looked at (``Run.look``), and
commits nothing if the job was cancelled before such a look: a job that was cancelled or taken over in the meantime goes
no further.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from sqlmodel import Session

from drivers.api import DriverError, HostAtFault, Transient
from drivers.api import Refused as DriverRefused
from drivers.api import Unsupported as DriverUnsupported
from gateway.jobs import job as jobs
from gateway.jobs.job import Fenced, Job, Status, StepStatus
from gateway.jobs.job import Step as Told
from gateway.kernel import errors
from gateway.kernel.errors import Refusal, Unavailable
from workers.saga import TRIES, Change, ChangedError, Guard, Outside, Run, Saga, Step

if TYPE_CHECKING:
    from workers.runner import Runner

ROUNDS = 3
"""How many hosts are tried."""
BACKOFF_MAX_S = 30.0
HELD = timedelta(milliseconds=200)
"""How long a record may be held back: people see a step's end that much late at most."""
_TO_UNDO = (StepStatus.DONE, StepStatus.FAILED, StepStatus.STUCK)

log = structlog.get_logger(__name__)


class Course:
    """One claim of one job. ``steps`` are as they stand now; ``job`` is the row as it was last written or read, which
    may be a few steps behind (``behind``). The lock is held around both, since another thread calls :meth:`tell`.
    """

    def __init__(self, runner: Runner, job: Job, found: Saga) -> None:
        self.runner = runner
        self.job = job
        self.found = found
        self.attempt = job.attempt
        self.steps = job.told
        self.behind = False
        self.written = runner.db.clock()
        self.begun: int | None = None
        """The step that is shown as begun by this claim."""
        self._lock = threading.RLock()
        self._addresses: dict[int, Any] = {}
        self._known: dict[str, Any] = {}

    def open(self, session: Session, *, along: bool) -> None:
        """In the commit that claims the job: show its steps and the one it goes on with as begun, and carry that out
        already where it only changes rows (``along``).
        """
        job = self.job
        if len(self.steps) != len(self.found.steps):
            self.steps = merged(job, self.found)
        first = next((at for at, told in enumerate(self.steps) if told.status is not StepStatus.DONE), None)
        if job.status is Status.RUNNING and first is not None and (self.found.forward or not job.cancel_requested):
            self.steps = _running(self.steps, first, self.written)
            self.begun = first
            if along and self.found.steps[first].rows and first + 1 < len(self.steps):
                self._along(session, first)
        jobs.write_steps(job, self.steps)

    def _along(self, session: Session, index: int) -> None:
        run = self._new_run()
        change = self.found.steps[index].do(run)
        self.job.memory = run.memory
        if change is not None:
            with session.no_autoflush:  # else the claimed row is written once before and once after
                change(session, self.job)
        self.steps = _running(_ended(self.steps, index, StepStatus.DONE, run, self.written), index + 1, self.written)
        self.begun = index + 1
        self.job.tries = 0
        self.job.progress = self._progress(self.steps)

    def go(self) -> None:
        """Go on until the job is settled or has to wait. Raises Fenced, Unavailable."""
        if self.job.status is Status.UNWINDING and self.found.forward:
            self._take_up()
        if self.job.status is Status.UNWINDING:
            self._unwind()
        else:
            self._wind()

    # ------------------------------------------------------------------------------------------ forwards

    def _wind(self) -> None:
        for index, step in enumerate(self.found.steps):
            if self.steps[index].status is StepStatus.DONE:
                continue
            behind = self.behind  # before the next line: the thread that tells may end it, and find out about a cancel
            if self._cancelled(index):
                return
            if self.runner.stopping.is_set():
                self._wait(timedelta(0))
                return
            if not self._advance(index, step, self._look if behind else None):
                return

    def _cancelled(self, index: int) -> bool:
        """Whether the job turned back before this step, as it was asked to."""
        if not self.job.cancel_requested or self.found.forward:
            return False
        self._turn_back(index, errors.Cancelled("The job was cancelled."), None)
        return True

    def _look(self, read: Callable[[], int | None]) -> None:
        """A :data:`Guard`. The lock keeps the thread that tells from writing between the look and the comparison."""
        with self._lock:
            if read() != self.job.version or self.job.cancel_requested:
                raise ChangedError

    def _advance(self, index: int, step: Step, guard: Guard | None = None) -> bool:
        if self.begun != index:
            self._commit(lambda _s, _j: None, _running(self.steps, index, self.runner.db.clock()))
            self.begun = index
        run = self._new_run()
        run.guard = guard
        try:
            change = step.do(run)
            self._done(index, run, change)
        except (Fenced, Unavailable):
            raise
        except ChangedError:  # who changed it turns out when what was held back is written
            self._commit(self._progressed, self.steps)
            return not self._cancelled(index) and self._advance(index, step)
        except Exception as error:  # noqa: BLE001 - whatever happened, the job must settle
            return self._failed(index, run, error)
        return True

    def _failed(self, index: int, run: Run, error: Exception) -> bool:
        refusal = _refusal(error)
        forward = self.found.forward
        again = isinstance(error, Transient) or (forward and not isinstance(error, Refusal))
        if (forward and _unreachable(error)) or (again and self.job.tries + 1 < TRIES):
            log.info("step will be tried again", step=self.steps[index].name, reason=refusal.message)
            self._wait(self._pause(), f"Trying again: {refusal.message}", index)
            return False
        if refusal.code is errors.UserErrorCode.INTERNAL:
            log.error("step failed by a fault of ours", step=self.steps[index].name, exc_info=error)
        if forward:
            self._stuck(index, refusal)
            return False
        elsewhere = isinstance(error, HostAtFault) and run.memory.get("host_id") is not None
        self._turn_back(index, refusal, run.memory["host_id"] if elsewhere else None)
        return False

    def _take_up(self) -> None:
        """Let a stuck job that only goes forward go on: there is nothing to unwind."""
        stuck = StepStatus.STUCK
        steps = [replace(each, status=StepStatus.PENDING) if each.status is stuck else each for each in self.steps]

        def change(_session: Session, job: Job) -> None:
            job.status = Status.RUNNING
            job.error = None

        self._commit(change, steps)

    # ------------------------------------------------------------------------------------------ backwards

    def _turn_back(self, index: int, why: Refusal, bad_host: int | None) -> None:
        """Start unwinding, from the step that failed: it may have had half its effect."""
        steps = list(self.steps)
        failed = why.code is not errors.UserErrorCode.CANCELLED
        if failed or steps[index].status is StepStatus.RUNNING:
            steps[index] = replace(
                steps[index],
                status=StepStatus.FAILED,
                finished_at=_text(self.runner.db.clock()),
                message=why.message[:500],
            )

        def change(_session: Session, job: Job) -> None:
            job.status = Status.UNWINDING
            job.tries = 0
            job.error = errors.to_json(why)
            if bad_host is not None:
                job.memory = {**job.memory, "avoid": sorted({*job.memory.get("avoid", []), bad_host})}

        self._commit(change, steps)
        self._unwind()

    def _unwind(self) -> None:
        for index in reversed(range(len(self.found.steps))):
            if self.steps[index].status not in _TO_UNDO and not self.steps[index].unsure:
                continue
            if self.runner.stopping.is_set():
                self._wait(timedelta(0))
                return
            step = self.found.steps[index]
            run = self._new_run()
            try:
                change = step.undo(run) if step.undo is not None else None
                self._undone(index, run, change)
            except (Fenced, Unavailable):
                raise
            except Exception as error:
                if _unreachable(error) or self.job.tries + 1 < TRIES:
                    log.info("undo will be tried again", step=step.name, reason=_refusal(error).message)
                    self._wait(self._pause(), f"Trying again to take it back: {_refusal(error).message}", index)
                else:
                    log.exception("undo failed for good", step=step.name)
                    self._stuck(index, _refusal(error))
                return
        self._unwound()

    def _unwound(self) -> None:
        why = errors.from_json(self.job.error or errors.to_json(errors.Internal("The job failed.")))
        avoid = self.job.memory.get("avoid", [])
        rounds = self.job.memory.get("rounds", 1)
        hypervisor = why.code is errors.UserErrorCode.HYPERVISOR_ERROR
        if hypervisor and len(avoid) >= rounds and rounds < ROUNDS and not self.job.cancel_requested:

            def again(_session: Session, job: Job) -> None:
                job.status = Status.RUNNING
                job.tries = 0
                job.memory = {"avoid": avoid, "rounds": rounds + 1}

            self._commit(again, [Told(each.name, attempt=each.attempt) for each in self.steps])
            self.begun = None
            self._known.clear()
            self._wind()
            return
        cancelled = why.code is errors.UserErrorCode.CANCELLED
        self.settle(Status.CANCELLED if cancelled else Status.FAILED, why)

    # ------------------------------------------------------------------------------------------ records

    def tell(self) -> None:
        """Write what was held back long enough. Called by another thread while a step is under way."""
        with self._lock:
            if self.behind and self.runner.db.clock() - self.written >= HELD:
                self._commit(self._progressed, self.steps)

    def _new_run(self) -> Run:
        return Run(
            outside=Outside(self.runner.db, self.runner.hosts, self.runner.settings),
            job_id=self.job.id,
            uid=jobs.NOUN.public(self.job),
            arguments=dict(self.job.arguments),
            memory=dict(self.job.memory),
            addresses=self._addresses,
            known=self._known,
        )

    def _done(self, index: int, run: Run, change: Change | None) -> None:
        now = self.runner.db.clock()
        steps = _ended(self.steps, index, StepStatus.DONE, run, now)
        last = index == len(steps) - 1
        if not last:
            steps = _running(steps, index + 1, now)
        with self._lock:
            quiet = change is None and not last and self.job.tries == 0 and run.memory == self.job.memory
            if quiet and now - self.written < HELD:
                self.steps, self.begun, self.behind = steps, index + 1, True
                return

            def record(session: Session, job: Job) -> None:
                if run.guard is not None and job.cancel_requested:  # nothing was begun, and nothing looked at, since
                    raise ChangedError
                _recall(job, run)
                if change is not None:
                    change(session, job)
                job.tries = 0
                job.progress = self._progress(steps)
                if last:
                    jobs.settle(session, job, Status.SUCCEEDED)

            self._commit(record, steps)
            self.begun = None if last else index + 1

    def _undone(self, index: int, run: Run, change: Change | None) -> None:
        def record(session: Session, job: Job) -> None:
            _recall(job, run)
            if change is not None:
                change(session, job)
            job.tries = 0

        self._commit(record, _ended(self.steps, index, StepStatus.UNDONE, run, self.runner.db.clock()))
        self.begun = None

    def settle(self, status: Status, why: Refusal) -> None:
        """End the job."""

        def change(session: Session, job: Job) -> None:
            job.error = errors.to_json(why)
            if self.found.failed is not None:
                self.found.failed(session, job, why)
            jobs.settle(session, job, status)

        self._commit(change, self.steps)
        log.info("job ended", status=status.value, reason=why.message)

    def _stuck(self, index: int, why: Refusal) -> None:
        steps = list(self.steps)
        steps[index] = replace(steps[index], status=StepStatus.STUCK, message=why.message[:500])

        def change(session: Session, job: Job) -> None:
            job.error = job.error or errors.to_json(why)
            jobs.settle(session, job, Status.STUCK)

        self._commit(change, steps)

    def _wait(self, pause: timedelta, message: str | None = None, index: int | None = None) -> None:
        steps = list(self.steps)
        if index is not None and message is not None:
            steps[index] = replace(steps[index], message=message[:500])

        def change(session: Session, job: Job) -> None:
            if index is not None:
                job.tries += 1
            self._progressed(session, job)
            jobs.release(session, job, due_in=pause)

        self._commit(change, steps)

    def _pause(self) -> timedelta:
        return timedelta(seconds=min(self.runner.backoff_s * 2 ** min(self.job.tries, 16), BACKOFF_MAX_S))

    def _progressed(self, _session: Session, job: Job) -> None:
        if job.status is Status.RUNNING:
            job.progress = self._progress(self.steps)

    def _progress(self, steps: Sequence[Told]) -> float:
        return round(sum(each.status is StepStatus.DONE for each in steps) / len(steps), 4) if steps else 0.0

    def _commit(self, change: Change, steps: list[Told]) -> None:
        """Change the job's row (and whatever the change touches) in one transaction, if this attempt still holds it."""
        with self._lock:
            known: Job | None = self.job

            def work(session: Session) -> Job:
                nonlocal known
                # The row as this course last wrote it spares reading it: its version is compared when it is written,
                # and whoever changed it meanwhile (a cancel, another claim) sends this here again, to read.
                job, known = jobs.held(session, self.job.id, self.attempt, known), None
                change(session, job)
                jobs.write_steps(job, steps)
                if job.lease_until is not None:
                    job.lease_until = self.runner.db.clock() + self.runner.lease
                return job

            self.job = self.runner.db.run(work)
            self.steps, self.behind, self.written = steps, False, self.runner.db.clock()


def _recall(job: Job, run: Run) -> None:
    if job.memory != run.memory:  # a row that is touched before its last change is written twice
        job.memory = run.memory


def merged(job: Job, found: Saga) -> list[Told]:
    """The steps of a job as this version knows them: a step appended since keeps those before it."""
    kept = job.told
    names: Sequence[str] = [step.name for step in found.steps]
    if [each.name for each in kept] != list(names[: len(kept)]):
        raise AssertionError(f"steps of {found.kind} were renamed or moved")
    return [*kept, *(Told(name) for name in names[len(kept) :])]


def _running(steps: Sequence[Told], index: int, now: datetime) -> list[Told]:
    """The steps with one begun."""
    told = steps[index]
    begun = replace(
        told,
        status=StepStatus.RUNNING,
        started_at=told.started_at or _text(now),
        attempt=told.attempt + 1,
        unsure=False,
    )
    return [*steps[:index], begun, *steps[index + 1 :]]


def _ended(steps: Sequence[Told], index: int, status: StepStatus, run: Run, now: datetime) -> list[Told]:
    """The steps with one done or undone."""
    told = steps[index]
    ended = replace(
        told,
        status=status,
        finished_at=_text(now),
        attempt=max(told.attempt, 1),
        message=run.message or told.message,
        unsure=False,
    )
    return [*steps[:index], ended, *steps[index + 1 :]]


def _unreachable(error: Exception) -> bool:
    """Whether it may be better later: the host does not answer, or cannot right now."""
    return isinstance(error, Transient | HostAtFault)


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
