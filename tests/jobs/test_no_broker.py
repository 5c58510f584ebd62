"""Workers whose broker is away: jobs run all the same."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlmodel import SQLModel

from drivers.api import Transient
from gateway.jobs.job import Status
from gateway.kernel import noun
from gateway.kernel.db import Database
from gateway.kernel.settings import Settings
from tests.jobs.queue import KIND, rows, submit
from tests.servers.daemon import free_port
from workers import main, saga
from workers.saga import Change, Run, Step


def test_due_jobs_run_in_a_worker_that_has_no_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doorbell rings at a closed port; the sweep finds the job and runs it itself, its second try too."""
    noun.load_all()
    monkeypatch.setattr("workers.sweep.RECONCILERS", {})
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    settings = Settings(state_dir=tmp_path, database_url=url, broker_url=f"amqp://127.0.0.1:{free_port()}")
    db = Database(url)
    SQLModel.metadata.create_all(db.engine)
    done = threading.Event()
    tries: list[int] = []

    def twice(run: Run) -> Change | None:
        tries.append(run.job_id)
        if len(tries) == 1:
            raise Transient("ordered by a test")
        done.set()
        return None

    monkeypatch.setitem(saga.SAGAS, KIND, saga.Saga(KIND, (Step("twice", twice, kept="it only notes"),)))
    plant = main.start(db, settings)
    try:
        key = submit(db, "a")
        assert done.wait(60)
    finally:
        plant.stop()
    assert tries == [key, key]
    (row,) = rows(db)
    assert row.status is Status.SUCCEEDED
    db.close()
