"""A host that does not answer is waited for, with the state told; one that refuses leaves the job STUCK."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from drivers.api import DriverError, HostAtFault, Refused, Transient
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Status
from tests.sagas import disturbance
from tests.sagas.scenarios import SCENARIOS
from tests.sagas.stage import Stage, Template
from workers.course import BACKOFF_MAX_S
from workers.main import load_all
from workers.saga import TRIES

load_all()
MANY = 4 * TRIES


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return Template.make(tmp_path_factory.mktemp("patience") / "stage", SCENARIOS["server.create"])


@pytest.fixture
def stage(template: Template) -> Iterator[Stage]:
    with template.copy() as found:
        yield found


def _turn(stage: Stage, key: int) -> Job:
    """Let the job have its next turn."""
    with stage.world.db.read() as session:
        job = session.get_one(Job, key)
    stage.world.clock.at = max(stage.world.clock.at, job.due_at + timedelta(milliseconds=1))
    stage.world.runner.run(key)
    with stage.world.db.read() as session:
        return session.get_one(Job, key)


@pytest.mark.parametrize("error", [Transient, HostAtFault])
def test_what_is_taken_back_waits_for_its_host(stage: Stage, template: Template, error: type[DriverError]) -> None:
    stage.centre.fail("machines.power", Refused, times=1)
    stage.centre.fail("machines.remove", error, times=None)
    for number in range(1, MANY):
        job = _turn(stage, template.job.id)
        assert (job.status, job.tries, job.lease_until) == (Status.UNWINDING, number, None)
        assert timedelta() < job.due_at - stage.world.clock.at <= timedelta(seconds=BACKOFF_MAX_S)
        told = next(each for each in job.told if each.name == "machine")
        assert (told.message or "").startswith("Trying again to take it back: ")
    stage.centre.heal()
    stage.world.work()
    with stage.world.db.read() as session:
        assert session.get_one(Job, template.job.id).status is Status.FAILED
    assert stage.centre.snapshot_of_world().machines == {}


def test_what_is_taken_back_is_stuck_when_its_host_refuses(stage: Stage, template: Template) -> None:
    stage.centre.fail("machines.power", Refused, times=1)
    stage.centre.fail("machines.remove", Refused, times=None)
    for _ in range(TRIES):
        job = _turn(stage, template.job.id)
    assert job.status is Status.STUCK
    stage.centre.heal()
    disturbance.retry(stage, job)
    stage.world.work()
    with stage.world.db.read() as session:
        assert session.get_one(Job, template.job.id).status is Status.FAILED


@pytest.mark.parametrize("error", [Transient, HostAtFault])
def test_a_deletion_waits_for_its_host(tmp_path_factory: pytest.TempPathFactory, error: type[DriverError]) -> None:
    made = Template.make(tmp_path_factory.mktemp("deletion") / "stage", SCENARIOS["server.delete"])
    with made.copy() as stage:
        stage.centre.fail("machines.remove", error, times=None)
        for number in range(1, MANY):
            job = _turn(stage, made.job.id)
            assert (job.status, job.tries) == (Status.RUNNING, number)
            assert (job.told[1].message or "").startswith("Trying again: ")
        stage.centre.heal()
        stage.world.work()
        with stage.world.db.read() as session:
            assert session.get_one(Job, made.job.id).status is Status.SUCCEEDED


def test_a_deletion_is_stuck_when_its_host_refuses_and_goes_on_when_it_is_retried(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = Template.make(tmp_path_factory.mktemp("refused") / "stage", SCENARIOS["server.delete"])
    with made.copy() as stage:
        stage.centre.fail("machines.remove", Refused, times=None)
        for _ in range(TRIES):
            job = _turn(stage, made.job.id)
        assert job.status is Status.STUCK
        assert (job.error or {})["code"] == "HYPERVISOR_ERROR"
        stage.centre.heal()
        stage.world.db.run(lambda s: jobs.retry(s, stage.alice, jobs.JobRetry(id=jobs.NOUN.public(job))))
        stage.world.work()
        with stage.world.db.read() as session:
            assert session.get_one(Job, made.job.id).status is Status.SUCCEEDED
