"""What can go wrong while a job is carried out: steps that fail, are done twice or overtaken, runners that die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session as OrmSession

from gateway.jobs import job as jobs
from gateway.jobs.job import Job
from gateway.kernel.access import CLOUD
from tests.sagas.stage import Stage
from workers import saga
from workers.runner import LEASE, Runner
from workers.saga import Change, Run, Step

Effect = Callable[[Run], Change | None]


class Death(BaseException):
    """The end of a worker's process, as far as a job can tell."""


@contextmanager
def step_changed(kind: str, index: int, change: Callable[[Step], Step]) -> Iterator[None]:
    """Let one step of a saga be another."""
    found = saga.SAGAS[kind]
    steps = tuple(change(step) if at == index else step for at, step in enumerate(found.steps))
    saga.SAGAS[kind] = replace(found, steps=steps)
    try:
        yield
    finally:
        saga.SAGAS[kind] = found


def failing(error: Callable[[], Exception], *, after: bool, times: int | None = None) -> Callable[[Step], Step]:
    """A step that raises, before or after its effect, so many times (None: always)."""
    left = [times]

    def change(step: Step) -> Step:
        def do(run: Run) -> Change | None:
            if left[0] == 0:
                return step.do(run)
            if left[0] is not None:
                left[0] -= 1
            if after:
                step.do(run)
            raise error()

        return replace(step, do=do)

    return change


def doing_twice(step: Step) -> Step:
    """Its effect happens twice: its runner died before the commit and another went on."""

    def do(run: Run) -> Change | None:
        step.do(run)
        return step.do(run)

    return replace(step, do=do)


def undoing_twice(step: Step) -> Step:
    """The same of its undo."""
    if step.undo is None:
        return step
    once = step.undo

    def undo(run: Run) -> Change | None:
        once(run)
        return once(run)

    return replace(step, undo=undo)


def undo_failing(failures: list[int]) -> Callable[[Step], Step]:
    """A step whose undo raises while ``failures`` is not empty."""

    def change(step: Step) -> Step:
        def undo(run: Run) -> Change | None:
            if failures:
                raise RuntimeError("the undo fails")
            return step.undo(run) if step.undo is not None else None

        return replace(step, undo=undo) if step.undo is not None else step

    return change


def calling_first(call: Callable[[Run], object]) -> Callable[[Step], Step]:
    """A step before whose effect something happens, once."""
    return _calling(call, before=True)


def calling_after(call: Callable[[Run], object]) -> Callable[[Step], Step]:
    """A step behind whose effect, before its commit, something happens, once."""
    return _calling(call, before=False)


def _calling(call: Callable[[Run], object], *, before: bool) -> Callable[[Step], Step]:
    called: list[bool] = []

    def once(run: Run) -> None:
        if not called:
            called.append(True)
            call(run)

    def change(step: Step) -> Step:
        def do(run: Run) -> Change | None:
            if before:
                once(run)
            found = step.do(run)
            if not before:
                once(run)
            return found

        return replace(step, do=do, rows=False)  # what happens meanwhile cannot happen within its commit

    return change


@dataclass(slots=True)
class Intrusion:
    """Something that others do to a job while a step is under way, and what came of it: ``call`` does it. ``late`` are
    the steps that called hosts after it, of the claim it happened to; ``begun`` tells whether the step under way had
    looked at the job's row, or needed not: only then it may go on.
    """

    deed: Callable[[], object]
    begun: bool = True
    late: list[int] = field(default_factory=list)
    _doing: list[int] = field(default_factory=list)
    _over: bool = False

    def call(self, run: Run) -> None:
        """It happens now."""
        self.begun = run.guard is None
        doing, self._doing = self._doing, []
        self.deed()
        self._doing, self._over = doing, True

    @contextmanager
    def watched(self, stage: Stage, kind: str) -> Iterator[None]:
        """Note who calls hosts."""
        found, hosts = saga.SAGAS[kind], stage.world.hosts
        called = hosts.call

        def noting(*given: Any, **named: Any) -> Any:
            if self._over and self._doing:
                self.late.append(self._doing[-1])
            return called(*given, **named)

        steps = tuple(self._told(index, step) for index, step in enumerate(found.steps))
        saga.SAGAS[kind] = replace(found, steps=steps)
        stage.world.hosts.call = noting  # type: ignore[method-assign]  # one stage's only
        try:
            yield
        finally:
            saga.SAGAS[kind] = found
            del stage.world.hosts.call  # the class's own is behind it

    def _told(self, index: int, step: Step) -> Step:
        def do(run: Run) -> Change | None:
            self._doing.append(index)
            try:
                return step.do(run)
            finally:
                self._doing.pop()

        return replace(step, do=do)


def cancel(stage: Stage, job: Job) -> None:
    """Ask the job to stop, as jobCancel does."""
    command = jobs.JobCancel(id=jobs.NOUN.public(job))
    stage.world.db.run(lambda session: jobs.cancel(session, CLOUD, command))


def retry(stage: Stage, job: Job) -> None:
    """Take the stuck job up again, as jobRetry does."""
    command = jobs.JobRetry(id=jobs.NOUN.public(job))
    stage.world.db.run(lambda session: jobs.retry(session, CLOUD, command))


def overtake(stage: Stage, job: Job) -> None:
    """Let the lease run out and another runner do the job to its end."""
    stage.world.clock.advance(seconds=LEASE.total_seconds() + 1)
    Runner(stage.world.db, stage.world.hosts, "another", settings=stage.world.settings).run(job.id)


@contextmanager
def dying_at_commit(number: int, *, after: bool) -> Iterator[list[bool]]:
    """Die just before or after the n-th commit (from 1); what is yielded is not empty once that happened."""
    seen = [0]
    died: list[bool] = []

    def count(_session: Any) -> None:
        seen[0] += 1
        if seen[0] == number and not died:
            died.append(True)
            raise Death

    name = "after_commit" if after else "before_commit"
    sa.event.listen(OrmSession, name, count)
    try:
        yield died
    finally:
        sa.event.remove(OrmSession, name, count)


def run_until_death(stage: Stage, number: int, *, after: bool) -> bool:
    """Carry the stage's job out with runners of which the first dies; whether it did. Whoever comes next finishes."""
    with dying_at_commit(number, after=after) as died, suppress(Death):
        stage.world.work()
    if died:
        stage.world.crank.rung.clear()
        stage.world.clock.at += timedelta(milliseconds=1)
        stage.world.runner = Runner(stage.world.db, stage.world.hosts, "next", settings=stage.world.settings)
        stage.world.work()
    return bool(died)
