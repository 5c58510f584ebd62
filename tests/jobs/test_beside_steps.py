"""What goes wrong beside a job's steps leaves no lease hanging: the job is released, and STUCK after some tries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.jobs import job as jobs
from gateway.jobs.job import JobRetry, Status, StepStatus
from gateway.kernel.access import CLOUD
from gateway.kernel.db import Database
from tests.jobs.queue import KIND, NOTES, opened, rows, runner, submit
from workers import saga
from workers.saga import TRIES, Run, Step

KEPT = "it is a test's"


@pytest.fixture
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request, "sqlite", tmp_path) as found:
        yield found


def _nothing(_run: Run) -> None:
    return None


def _broken(_run: Run) -> None:
    raise RuntimeError("the step fails")


def _run_to_rest(db: Database, key: int) -> None:
    for _ in range(10_000):
        runner(db).run(key)
        if rows(db)[0].status not in jobs.LIVE:
            return
    raise AssertionError("no end")


def test_steps_that_this_version_does_not_know_leave_the_job_stuck(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = submit(db, "a")

    def older(session: Any) -> None:
        job = session.get(jobs.Job, key)
        jobs.write_steps(job, [jobs.Step("another", StepStatus.DONE), jobs.Step("note")])

    db.run(older)
    monkeypatch.setitem(saga.SAGAS, KIND, saga.Saga(KIND, (*[Step(name, _nothing, kept=KEPT) for name in "abc"],)))
    runner(db).run(key)
    (row,) = rows(db)
    assert (row.status, row.lease_until, row.lease_by) == (Status.STUCK, None, None)
    assert (row.error or {})["code"] == "INTERNAL"
    behind = submit(db, "a")
    monkeypatch.setitem(saga.SAGAS, KIND, saga.Saga(KIND, (Step("note", _nothing, kept=KEPT),)))
    runner(db).run(behind)
    assert rows(db)[1].status is Status.SUCCEEDED, "a stuck job steps out of the queue"


def test_a_fault_in_what_follows_a_failure_is_tried_again_and_then_stuck(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def failed(_session: Any, job: jobs.Job, _why: object) -> None:
        calls.append(job.tries)
        if len(calls) <= TRIES:
            raise ZeroDivisionError("a fault of ours")

    steps = (Step("fail", _broken, kept=KEPT),)
    monkeypatch.setitem(saga.SAGAS, KIND, saga.Saga(KIND, steps, failed))
    key = submit(db, "a")
    runner(db).run(key)
    (row,) = rows(db)
    assert (row.status, row.lease_until, row.lease_by, row.tries) == (Status.UNWINDING, None, None, 1)
    _run_to_rest(db, key)
    (row,) = rows(db)
    assert (row.status, row.lease_until, len(calls)) == (Status.STUCK, None, TRIES)
    db.run(lambda session: jobs.retry(session, CLOUD, JobRetry(id=jobs.NOUN.public(row))))
    _run_to_rest(db, key)
    (row,) = rows(db)
    assert (row.status, len(calls)) == (Status.FAILED, TRIES + 1)
    assert NOTES.order == []
