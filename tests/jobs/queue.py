"""Jobs without a cloud around them: a database, and a saga that notes who ran what when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from sqlmodel import SQLModel, select

from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import noun
from gateway.kernel.access import CLOUD
from gateway.kernel.db import Database
from workers import saga
from workers.runner import Runner
from workers.saga import Change, Run, Step

T = TypeVar("T")

BACKENDS = ("sqlite", "postgresql")
KIND = "test.noted"


@dataclass(slots=True)
class Notes:
    """What ran, and whether two of one resource ever ran at once."""

    order: list[int] = field(default_factory=list)
    inside: set[str] = field(default_factory=set)
    crossed: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


NOTES = Notes()


def _note(run: Run) -> Change | None:
    resource = str(run.arguments["resource"])
    with NOTES.lock:
        if resource in NOTES.inside:
            NOTES.crossed.append(run.job_id)
        NOTES.inside.add(resource)
        NOTES.order.append(run.job_id)
    with run.read() as session:
        session.get(Job, run.job_id)
    with NOTES.lock:
        NOTES.inside.discard(resource)
    return None


saga.SAGAS.setdefault(KIND, saga.Saga(KIND, (Step("note", _note, kept="it only notes"),)))


@contextmanager
def opened(request: pytest.FixtureRequest, backend: str, folder: Path) -> Iterator[Database]:
    """An empty database of that kind, and empty notes."""
    noun.load_all()
    url = request.getfixturevalue("migrated_url") if backend == "postgresql" else f"sqlite:///{folder / 'jobs.db'}"
    db = Database(url)
    SQLModel.metadata.create_all(db.engine)
    NOTES.order.clear()
    NOTES.inside.clear()
    NOTES.crossed.clear()
    try:
        yield db
    finally:
        db.close()


def submit(db: Database, resource: str, kind: str = KIND) -> int:
    """A job in a resource's queue; its key."""
    order = Order(kind, None, target=resource, arguments={"resource": resource})
    return db.run(lambda session: jobs.submit(session, CLOUD, order)).id


def rows(db: Database) -> list[Job]:
    """All jobs, in the order of their keys."""
    with db.read() as session:
        return list(session.exec(select(Job).order_by(Job.id)))  # type: ignore[arg-type]  # a column


def runner(db: Database, name: str = "one") -> Runner:
    """Somebody who runs jobs."""
    return Runner(db, None, name, backoff_s=0.001)


def at_once(number: int, work: Callable[[int], T]) -> list[T]:
    """The answers of ``work(0..number-1)`` on threads that begin together; whatever one raises is raised."""
    barrier = threading.Barrier(number)

    def begin(index: int) -> T:
        barrier.wait(timeout=60)
        return work(index)

    with ThreadPoolExecutor(number) as pool:
        return [each.result(timeout=120) for each in [pool.submit(begin, index) for index in range(number)]]
