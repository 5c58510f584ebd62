"""What must hold for every saga, whoever wrote it: done or undone, whatever goes wrong at whatever moment.

Nothing here names a saga except the allow-list KEPT, which only shrinks: what a step that says ``kept`` may leave
behind when its job fails. A new saga needs a scenario (tests/sagas/scenarios.py) and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from drivers.api import Deadline, DriverError, HostAtFault, Refused, Transient
from drivers.sim.faults import conditions
from gateway.jobs.job import Job, Status, StepStatus
from tests.sagas import disturbance
from tests.sagas.scenarios import SCENARIOS
from tests.sagas.stage import Stage, State, Template
from workers.main import load_all
from workers.saga import SAGAS

load_all()
KINDS = sorted(kind for kind in SAGAS if not kind.startswith("test."))
STEPS = [(kind, index) for kind in KINDS for index in range(len(SAGAS[kind].steps))]
IDS = [f"{kind}-{SAGAS[kind].steps[index].name}" for kind, index in STEPS]
every_saga = pytest.mark.parametrize("kind", KINDS)
every_step = pytest.mark.parametrize(("kind", "index"), STEPS, ids=IDS)

IMAGE = frozenset({"image_copy", "centre.images"})
POWER = frozenset({"centre.machines", "centre.tally"})
KEPT: dict[tuple[str, str], frozenset[str]] = {
    ("server.create", "image"): IMAGE,
    ("server.start", "power"): POWER,
    ("server.stop", "power"): POWER,
    ("server_snapshot.restore", "revert"): POWER | {"centre.volumes"},
    ("volume.create", "image"): IMAGE,
    ("volume.extend", "extend"): frozenset({"centre.volumes", "centre.tally"}),
}
"""What a step that is not undone may leave behind: tables, and parts of the data centre."""

ERRORS: dict[str, Callable[[], Exception]] = {
    "refused": lambda: Refused("ordered by a test"),
    "host-at-fault": lambda: HostAtFault("ordered by a test"),
    "transient": lambda: Transient("ordered by a test"),
    "bug": lambda: ZeroDivisionError("ordered by a test"),
}
RECONCILERS = ("images", "networks")
"""Those that come back to what a host did not answer to."""
MOST = 80
"""No job commits or asks a host more often than this."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A job's stage, and the two places where it may end: done, and as if it had never begun."""

    template: Template
    done: State
    undone: State


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Reference]:
    folder = tmp_path_factory.mktemp("stages")

    @cache
    def make(kind: str) -> Reference:
        return _reference(folder / kind, kind)

    return make


def _reference(folder: Path, kind: str) -> Reference:
    template = Template.make(folder, SCENARIOS[kind])
    assert template.job.kind == kind, f"the scenario of {kind} ends with a job {template.job.kind}"
    with template.copy() as stage:
        stage.world.work()
        job = _job(stage, template)
        assert job.status is Status.SUCCEEDED, job.error
        done = stage.state()
    if SAGAS[kind].forward:
        return Reference(template, done, done)
    with template.copy() as stage:
        disturbance.cancel(stage, template.job)
        stage.world.work()
        assert _job(stage, template).status is Status.CANCELLED
        undone = stage.state()
    return Reference(template, done, undone)


def _job(stage: Stage, template: Template) -> Job:
    with stage.world.db.read() as session:
        return session.get_one(Job, template.job.id)


@pytest.fixture
def played(stages: Callable[[str], Reference], kind: str) -> Iterator[Reference]:
    return stages(kind)  # type: ignore[return-value]  # a fixture that needs no clean-up


def _carry_out(stage: Stage, reference: Reference) -> None:
    """Carry the job out. One that only goes forward may be stuck when a host refused; then it is taken up again, and
    reconcilers make up for hosts that did not answer in time.
    """
    stage.world.work()
    if not SAGAS[reference.template.job.kind].forward:
        return
    stage.centre.heal()
    if _job(stage, reference.template).status is Status.STUCK:
        disturbance.retry(stage, reference.template.job)
    stage.world.clock.advance(seconds=120)
    stage.world.reconcile(*RECONCILERS)


def _check_end(stage: Stage, reference: Reference, *expected: Status) -> None:
    """The job has ended, one way or the other, and the world is what that end says."""
    job = _job(stage, reference.template)
    assert job.status in expected, (job.status, job.error, job.steps)
    assert (job.lease_until, job.lease_by) == (None, None)
    if job.status is Status.SUCCEEDED:
        assert {each.status for each in job.told} == {StepStatus.DONE}
        assert reference.done.difference(stage.state()) == []
    else:
        assert {each.status for each in job.told} <= {StepStatus.UNDONE, StepStatus.PENDING}
        found = stage.state()
        assert reference.undone.difference(found, without=_left_behind(job) | {"files"}) == []
        assert set(found.tables["files"]) <= set(reference.undone.tables["files"]), "a file is left behind"


def _left_behind(job: Job) -> frozenset[str]:
    begun = {each.name for each in job.told if each.attempt}
    return frozenset().union(*(KEPT.get((job.kind, name), frozenset()) for name in begun))


# ------------------------------------------------------------------------------------------------ registry


def test_every_saga_has_a_scenario() -> None:
    assert sorted(SCENARIOS) == KINDS


def test_what_is_left_behind_names_steps_that_are_not_undone() -> None:
    kept = {(kind, step.name) for kind in KINDS for step in SAGAS[kind].steps if step.undo is None}
    assert set(KEPT) <= kept


@every_saga
def test_a_saga_that_goes_forward_undoes_nothing(kind: str) -> None:
    found = SAGAS[kind]
    assert len({step.name for step in found.steps}) == len(found.steps)
    if found.forward:
        assert all(step.undo is None for step in found.steps)


# ------------------------------------------------------------------------------------------------ twice equals once


@every_step
def test_a_step_done_twice_equals_once(played: Reference, kind: str, index: int) -> None:
    with played.template.copy() as stage, disturbance.step_changed(kind, index, disturbance.doing_twice):
        stage.world.work()
        _check_end(stage, played, Status.SUCCEEDED)


@every_step
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_runner_that_was_overtaken_changes_nothing(played: Reference, kind: str, index: int, when: str) -> None:
    with played.template.copy() as stage:
        overtaking = disturbance.Intrusion(lambda: disturbance.overtake(stage, played.template.job))
        _intrude(stage, kind, index, overtaking, when)
        _check_end(stage, played, Status.SUCCEEDED)


def _intrude(stage: Stage, kind: str, index: int, intrusion: disturbance.Intrusion, when: str) -> None:
    """Have it happen at a step: nothing is begun on any host after it, but by the step that was at work already."""
    calling = disturbance.calling_first if when == "before" else disturbance.calling_after
    with intrusion.watched(stage, kind), disturbance.step_changed(kind, index, calling(intrusion.call)):
        stage.world.work()
    assert set(intrusion.late) <= ({index} if intrusion.begun else set())


@every_step
def test_a_step_undone_twice_equals_once(played: Reference, kind: str, index: int) -> None:
    if SAGAS[kind].forward:
        return
    last = len(SAGAS[kind].steps) - 1
    failing = disturbance.failing(ERRORS["refused"], after=True)
    with (
        played.template.copy() as stage,
        disturbance.step_changed(kind, index, disturbance.undoing_twice),
        disturbance.step_changed(kind, last, failing),
    ):
        stage.world.work()
        _check_end(stage, played, Status.FAILED)


# ------------------------------------------------------------------------------------------------ failures


@every_step
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", ERRORS)
def test_a_step_that_fails(played: Reference, kind: str, index: int, error: str, when: str) -> None:
    forward = SAGAS[kind].forward
    failing = disturbance.failing(ERRORS[error], after=when == "after", times=9 if forward else None)
    with played.template.copy() as stage:
        with disturbance.step_changed(kind, index, failing):
            _carry_out(stage, played)
        _check_end(stage, played, Status.SUCCEEDED if forward else Status.FAILED)


@every_saga
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Refused, HostAtFault, Transient])
def test_the_host_fails_at_its_nth_answer(played: Reference, kind: str, error: type[DriverError], when: str) -> None:
    for number in range(MOST):
        with played.template.copy() as stage:
            stage.centre.fail("*", error, after=when == "after", skip=number)
            stage.world.work()
            hit = not _faults(stage)
            _carry_out(stage, played)
            _check_end(stage, played, Status.SUCCEEDED, *([] if SAGAS[kind].forward else [Status.FAILED]))
        if not hit:
            return
    raise AssertionError("no end")


def _faults(stage: Stage) -> list[object]:
    """What is still ordered of the host."""
    with stage.centre.store.read(Deadline(1.0)) as transaction:
        return list(conditions(transaction).faults)


@every_step
def test_an_undo_that_fails_is_stuck_until_it_is_retried(played: Reference, kind: str, index: int) -> None:
    if SAGAS[kind].steps[index].undo is None:
        return
    last = len(SAGAS[kind].steps) - 1
    failures = [1]
    with (
        played.template.copy() as stage,
        disturbance.step_changed(kind, index, disturbance.undo_failing(failures)),
        disturbance.step_changed(kind, last, disturbance.failing(ERRORS["refused"], after=True)),
    ):
        stage.world.work()
        stuck = _job(stage, played.template)
        assert stuck.status is Status.STUCK
        assert stuck.told[index].status is StepStatus.STUCK
        failures.clear()
        disturbance.retry(stage, stuck)
        stage.world.work()
        _check_end(stage, played, Status.FAILED)


# ------------------------------------------------------------------------------------------------ death


@every_saga
@pytest.mark.parametrize("when", ["before", "after"])
def test_death_at_the_nth_commit(played: Reference, kind: str, when: str) -> None:
    for number in range(1, MOST):
        with played.template.copy() as stage:
            died = disturbance.run_until_death(stage, number, after=when == "after")
            _check_end(stage, played, Status.SUCCEEDED)
        if not died:
            assert number > 1, kind
            return
    raise AssertionError("no end")


@every_saga
@pytest.mark.parametrize("when", ["before", "after"])
def test_death_at_the_nth_commit_while_unwinding(played: Reference, kind: str, when: str) -> None:
    if SAGAS[kind].forward:
        return
    last = len(SAGAS[kind].steps) - 1
    for number in range(1, MOST):
        with (
            played.template.copy() as stage,
            disturbance.step_changed(kind, last, disturbance.failing(ERRORS["bug"], after=True)),
        ):
            died = disturbance.run_until_death(stage, number, after=when == "after")
            _check_end(stage, played, Status.FAILED)
        if not died:
            return
    raise AssertionError("no end")


# ------------------------------------------------------------------------------------------------ cancel


@every_step
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_cancel_at_any_step(played: Reference, kind: str, index: int, when: str) -> None:
    if SAGAS[kind].forward:
        return  # it cannot be cancelled
    with played.template.copy() as stage:
        cancelling = disturbance.Intrusion(lambda: disturbance.cancel(stage, played.template.job))
        _intrude(stage, kind, index, cancelling, when)
        over = index == len(SAGAS[kind].steps) - 1 and cancelling.begun
        _check_end(stage, played, Status.SUCCEEDED if over else Status.CANCELLED)
