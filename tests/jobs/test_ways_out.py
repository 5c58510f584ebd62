"""A step that follows a record held back takes no way out before the job's row was looked at, whichever way it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from gateway.jobs import job as jobs
from gateway.jobs.job import JobCancel, Status, StepStatus
from gateway.kernel.access import CLOUD
from gateway.kernel.db import Database
from tests.jobs.queue import BACKENDS, KIND, opened, rows, runner, submit
from workers import saga
from workers.runner import LEASE, Runner
from workers.saga import Change, Run, Step

KEPT = "it is a test's"
WAYS: dict[str, Callable[[Run], object]] = {
    "db": lambda run: run.db,
    "hosts": lambda run: run.hosts,
    "settings": lambda run: run.settings,
}


@pytest.fixture(params=BACKENDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request, request.param, tmp_path) as found:
        yield found


def _cancel(db: Database) -> None:
    public = jobs.NOUN.public(rows(db)[0])
    db.run(lambda session: jobs.cancel(session, CLOUD, JobCancel(id=public)))


def _steps(monkeypatch: pytest.MonkeyPatch, *does: Callable[[Run], Change | None]) -> None:
    steps = tuple(Step(f"s{at}", do, kept=KEPT) for at, do in enumerate(does))
    monkeypatch.setitem(saga.SAGAS, KIND, saga.Saga(KIND, steps))


@pytest.mark.parametrize("way", WAYS)
def test_no_way_out_is_open_to_a_job_that_was_cancelled(
    db: Database, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    out: list[str] = []

    def reaching(run: Run) -> None:
        with run.read() as session:
            assert session.get_one(jobs.Job, run.job_id).cancel_requested
        WAYS[way](run)
        out.append(way)

    _steps(monkeypatch, lambda _run: _cancel(db), reaching, lambda _run: None)
    runner(db).run(submit(db, "a"))
    (row,) = rows(db)
    assert (out, row.status) == ([], Status.CANCELLED)
    assert [each.status for each in row.told] == [StepStatus.UNDONE, StepStatus.UNDONE, StepStatus.PENDING]


def test_rows_are_not_changed_either_even_by_the_last_step(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[bool] = []

    def change(_session: Session, job: jobs.Job) -> None:
        changed.append(job.cancel_requested)

    _steps(monkeypatch, lambda _run: _cancel(db), lambda _run: change)
    runner(db).run(submit(db, "a"))
    assert rows(db)[0].status is Status.CANCELLED
    assert True not in changed, "what was tried on the row as it was known is rolled back, and not tried again"


def test_a_job_that_was_taken_over_gets_no_way_out(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    out: list[Any] = []
    key = submit(db, "a")

    def overtaken(run: Run) -> None:
        if run.outside.hosts == "first":
            db.clock = lambda now=db.clock: now() + 2 * LEASE  # type: ignore[misc]  # mypy: default of a lambda
            db.provide("clock", db.clock)
            Runner(db, "second", "second").run(key)

    _steps(monkeypatch, overtaken, lambda run: out.append(run.hosts))
    Runner(db, "first", "first").run(key)
    assert (out, rows(db)[0].status) == (["second"], Status.SUCCEEDED)


def test_a_row_that_others_only_touched_holds_nobody_up(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    out: list[Any] = []
    key = submit(db, "a")

    def touch(session: Session) -> None:
        session.get_one(jobs.Job, key).request_id = "touched"

    _steps(monkeypatch, lambda _run: db.run(touch), lambda run: out.append(run.hosts), lambda _run: None)
    Runner(db, "hosts", "one").run(key)
    assert (out, rows(db)[0].status) == (["hosts"], Status.SUCCEEDED)
