"""The queue of each resource, the claim, the lease and the sweep, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session, select

from gateway.identity.tenant import Tenant
from gateway.jobs import job as jobs
from gateway.jobs.job import Bell, Fenced, Job, JobCancel, JobRetry, Order, Status
from gateway.kernel import ids, noun
from gateway.kernel.access import CLOUD
from gateway.kernel.db import Database
from tests.jobs.queue import BACKENDS, KIND, NOTES, at_once, opened, rows, runner, submit
from tests.statements import counted
from workers import saga
from workers.runner import LEASE
from workers.saga import Run, Step
from workers.sweep import Rung, ring_due

SECOND = timedelta(seconds=1)


@pytest.fixture(params=BACKENDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request, request.param, tmp_path) as found:
        yield found


class Kept(Bell):
    """A bell that keeps what was rung for."""

    def __init__(self) -> None:
        self.rung: list[int] = []

    def ring(self, job_id: int) -> None:
        self.rung.append(job_id)


def test_of_sixteen_who_claim_one_gets_it(db: Database) -> None:
    for _ in range(5):
        key = submit(db, "a")
        claimed = at_once(16, lambda n, key=key: db.run(lambda s: jobs.claim(s, key, f"w{n}", LEASE)))  # type: ignore[misc]  # mypy: default of a lambda
        (mine,) = [each for each in claimed if each is not None]
        assert mine.attempt == 1
        db.run(lambda s, mine=mine: jobs.settle(s, jobs.held(s, mine.id, 1), Status.SUCCEEDED))  # type: ignore[misc]  # mypy: default of a lambda


def test_fifty_jobs_of_one_resource_end_in_order_and_never_cross(db: Database) -> None:
    keys = sorted(at_once(10, lambda _: [submit(db, "a") for _ in range(5)]), key=min)
    keys_in_order = sorted(key for some in keys for key in some)
    assert len(keys_in_order) == 50

    def work(number: int) -> None:
        mine = runner(db, f"w{number}")
        for _ in range(10_000):
            with db.read() as session:
                due = jobs.due(session)
            if not due:
                return
            for key in sorted(due)[:8]:  # the first of the queue is among them, whenever its thread asked for it
                mine.run(key)

    at_once(8, work)
    assert {each.status for each in rows(db)} == {Status.SUCCEEDED}
    assert NOTES.order == keys_in_order
    assert NOTES.crossed == []


def test_a_job_behind_another_waits_and_one_of_another_resource_does_not(db: Database) -> None:
    first, second, other = submit(db, "a"), submit(db, "a"), submit(db, "b")
    one = runner(db)
    one.run(second)
    one.run(other)
    assert NOTES.order == [other]
    one.run(first)
    one.run(second)
    assert NOTES.order == [other, first, second]


def test_a_later_job_that_is_committed_first_waits_for_the_earlier_one(db: Database) -> None:
    """Two mutations of one object at once: whoever joins the queue second has the higher key, whoever commits first."""
    if db.sqlite:
        return  # one writer at a time: the case cannot arise
    order = jobs.Order(KIND, None, target="a", arguments={"resource": "a"})
    with db.write() as session:
        early = jobs.submit(session, CLOUD, order).id
        late: list[int] = []
        import threading

        thread = threading.Thread(target=lambda: late.append(submit(db, "a")))
        thread.start()
        thread.join(timeout=0.5)
        assert thread.is_alive(), "the second did not wait for the first to commit"
    thread.join(timeout=30)
    assert late[0] > early


def test_a_queue_is_held_but_for_that_of_a_row_made_in_the_same_unit_of_work(db: Database) -> None:
    """Whoever makes a row makes the first job of its queue; nobody else can know of it."""

    def ordered(session: Session, row: Tenant) -> int:
        return jobs.submit(session, CLOUD, Order(KIND, None, target=noun.public(row))).id

    def taken_back(session: Session) -> int:
        savepoint = session.begin_nested()
        row = made(session, "gone")
        savepoint.rollback()
        return ordered(session, row)

    def made(session: Session, name: str) -> Tenant:
        row = Tenant(name=name, uid=ids.new(session))
        session.add(row)
        session.flush()
        return row

    def first(session: Session) -> list[int]:
        row, other = made(session, "lab"), session.exec(select(Tenant).where(Tenant.name == "other")).one()
        return [ordered(session, row), ordered(session, row), ordered(session, other)]

    other = db.run(lambda session: made(session, "other"))
    held = {"postgresql": 1, "sqlite": 0}[db.engine.dialect.name]
    for work, expected in (
        (lambda session: [ordered(session, made(session, "new"))], 0),
        (lambda session: [ordered(session, other)], held),
        (first, held),
        (lambda session: [taken_back(session)], held),
    ):
        with counted(db) as sent:
            keys = db.run(work)
        assert keys == sorted(keys)
        assert sum("advisory" in each for each in sent) == expected


def test_a_dead_runners_job_is_taken_over_and_the_dead_are_fenced(db: Database) -> None:
    key = submit(db, "a")
    dead = db.run(lambda s: jobs.claim(s, key, "dead", timedelta(seconds=-1)))
    assert dead is not None
    runner(db).run(key)
    (row,) = rows(db)
    assert (row.status, row.attempt) == (Status.SUCCEEDED, 2)
    with pytest.raises(Fenced):
        db.run(lambda s: jobs.held(s, key, dead.attempt))


def test_a_lease_is_renewed_only_while_it_is_held(db: Database) -> None:
    key = submit(db, "a")
    mine = db.run(lambda s: jobs.claim(s, key, "one", SECOND))
    assert mine is not None
    assert db.run(lambda s: jobs.renew(s, key, mine.attempt, LEASE)) is True
    assert db.run(lambda s: jobs.claim(s, key, "two", LEASE)) is None
    db.run(lambda s: jobs.release(s, jobs.held(s, key, mine.attempt), due_in=-SECOND))
    assert db.run(lambda s: jobs.renew(s, key, mine.attempt, LEASE)) is False
    assert db.run(lambda s: jobs.claim(s, key, "two", LEASE)) is not None


def test_a_cancelled_job_ends_without_having_begun(db: Database) -> None:
    key = submit(db, "a")
    (row,) = rows(db)
    command = JobCancel(id=jobs.NOUN.public(row))
    at_once(4, lambda _: db.run(lambda s: jobs.cancel(s, CLOUD, command)))
    runner(db).run(key)
    (row,) = rows(db)
    assert (row.status, NOTES.order) == (Status.CANCELLED, [])


def test_a_stuck_job_steps_aside_and_waits_for_the_one_at_work_when_retried(db: Database) -> None:
    broken = [True]

    def undo(_run: Run) -> None:
        if broken:
            raise RuntimeError("the undo fails")

    def fail(_run: Run) -> None:
        raise RuntimeError("the step fails")

    saga.SAGAS["test.stuck"] = saga.Saga("test.stuck", (Step("fail", fail, undo),))
    stuck, behind = submit(db, "a", "test.stuck"), submit(db, "a")
    one = runner(db)
    for _ in range(200):
        one.run(stuck)
        if rows(db)[0].status is Status.STUCK:
            break
    assert rows(db)[0].status is Status.STUCK
    at_work = db.run(lambda s: jobs.claim(s, behind, "another", LEASE))
    assert at_work is not None
    broken.clear()
    command = JobRetry(id=jobs.NOUN.public(rows(db)[0]))
    db.run(lambda s: jobs.retry(s, CLOUD, command))
    one.run(stuck)
    assert rows(db)[0].status is Status.UNWINDING, "it ran beside the job at work"
    db.run(lambda s: jobs.settle(s, jobs.held(s, behind, at_work.attempt), Status.SUCCEEDED))
    one.run(stuck)
    assert rows(db)[0].status is Status.FAILED


def test_the_sweep_rings_for_lost_bells_and_not_all_the_time(db: Database) -> None:
    bell, rung = Kept(), Rung()
    keys = [submit(db, each) for each in ("a", "b")]
    assert ring_due(db, bell, rung) == 2
    assert ring_due(db, bell, rung) == 0
    assert bell.rung == keys
    for key in keys:
        runner(db).run(key)
    assert ring_due(db, bell, Rung()) == 0


def test_a_runner_that_stops_claims_nothing(db: Database) -> None:
    key = submit(db, "a")
    stopped = runner(db)
    stopped.stopping.set()
    stopped.run(key)
    (row,) = rows(db)
    assert (row.status, row.attempt) == (Status.QUEUED, 0)


def test_a_kind_that_nobody_knows_fails(db: Database) -> None:
    key = submit(db, "a", "test.unheard-of")
    runner(db).run(key)
    with db.read() as session:
        found = session.get_one(Job, key)
    assert found.status is Status.FAILED
    assert (found.error or {})["code"] == "INTERNAL"
