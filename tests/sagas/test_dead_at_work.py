"""A runner that dies between the records of its steps: records are held back, so what it had begun is not written down.
Whoever comes next goes on, or takes all of it back.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from gateway.compute import server_create
from gateway.jobs.job import Job, Status, StepStatus
from tests.sagas import disturbance
from tests.sagas.disturbance import Death
from tests.sagas.scenarios import _server
from tests.sagas.stage import Stage, Template
from workers.main import load_all
from workers.runner import Runner
from workers.saga import SAGAS

load_all()
KIND = "server.create"
NAMES = [step.name for step in SAGAS[KIND].steps]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    def ask(stage: Stage) -> None:
        stage.order(server_create.create, _server(stage, networks=[{"network_id": stage.parts["network"]}]))

    return Template.make(tmp_path_factory.mktemp("dead") / "stage", ask)


def _die(_step: object = None) -> None:
    raise Death


def _until_death(stage: Stage, template: Template, index: int, *, before: bool) -> Job:
    """Run the job until a step's effect, or just before it, and die there; the row that is left."""
    calling = disturbance.calling_first if before else disturbance.calling_after
    with disturbance.step_changed(KIND, index, calling(_die)), suppress(Death):
        stage.world.work()
    stage.world.crank.rung.clear()
    stage.world.runner = Runner(stage.world.db, stage.world.hosts, "next", settings=stage.world.settings)
    with stage.world.db.read() as session:
        return session.get_one(Job, template.job.id)


@pytest.mark.parametrize("index", range(1, len(NAMES)), ids=NAMES[1:])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_dead_runner_began_is_taken_back_on_a_cancel(template: Template, index: int, when: str) -> None:
    with template.copy() as stage:
        left = _until_death(stage, template, index, before=when == "before")
        assert left.lease_by == "world"
        disturbance.cancel(stage, template.job)
        stage.world.work()
        with stage.world.db.read() as session:
            job = session.get_one(Job, template.job.id)
        assert job.status is Status.CANCELLED
        assert {each.status for each in job.told} <= {StepStatus.UNDONE, StepStatus.PENDING}
        there = stage.centre.snapshot_of_world().without_images()
        assert (there.machines, there.volumes, there.networks, there.ports) == ({}, {}, {}, {})
        assert (there.tally.vcpus, there.tally.ram_mib) == (0, 0)


def test_what_a_dead_runner_began_is_taken_back_when_the_next_one_fails(template: Template) -> None:
    """The first died with the machine running; the second fails at a step that the first had passed."""
    with template.copy() as stage:
        _until_death(stage, template, NAMES.index("active"), before=True)
        refused = disturbance.failing(lambda: ZeroDivisionError("ordered by a test"), after=False)
        with disturbance.step_changed(KIND, NAMES.index("image"), refused):
            stage.world.work()
        with stage.world.db.read() as session:
            assert session.get_one(Job, template.job.id).status is Status.FAILED
        there = stage.centre.snapshot_of_world().without_images()
        assert (there.machines, there.volumes, there.networks, there.ports) == ({}, {}, {}, {})


def test_a_quick_job_is_written_down_twice_and_a_slow_one_as_it_goes(template: Template) -> None:
    """Once when it is claimed and placed, once at its end; a step that takes longer is told of in between."""
    with template.copy() as stage:
        seen: list[tuple[int, list[str]]] = []

        def look() -> None:
            with stage.world.db.read() as session:
                job = session.get_one(Job, template.job.id)
            seen.append((job.version, [each.status.value for each in job.told]))

        def slowly(_run: object) -> None:
            look()
            stage.world.clock.at += timedelta(seconds=1)
            stage.world.runner.tell()
            look()

        with disturbance.step_changed(KIND, NAMES.index("power"), disturbance.calling_first(slowly)):
            stage.world.work()
        (first, then), (second, now) = seen
        assert second == first + 1
        assert then == ["DONE", "RUNNING", *["PENDING"] * 5]
        assert now == [*["DONE"] * 5, "RUNNING", "PENDING"]
