"""How the ESXi driver waits: one collector for all that lasts, through ends of sessions, and what changes unasked."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import Deadline, Driver, MachineChanged, Power, PowerAction, Watching
from drivers.contracts.rig import wait_for
from drivers.esxi.lookout import WAIT_S
from drivers.esxi.session import Session
from drivers.esxi.trust import endpoint
from tests.drivers.esxi_host import MIB, SECONDS, config_of, connect, content_of, finished, machine_of
from tests.drivers.esxi_host import simulated as simulated_host
from tests.servers.esxsim import EsxSim

AT_ONCE = 6


@pytest.fixture(scope="module")
def sim(program: Path) -> Iterator[EsxSim]:
    with simulated_host(program) as made:
        yield made


@pytest.fixture
def driver(sim: EsxSim) -> Iterator[Driver]:
    opened = connect(sim)
    yield opened
    opened.close()


@contextmanager
def machines(driver: Driver, count: int) -> Iterator[list[UUID]]:
    """So many machines that are off."""
    made = [(uuid4(), uuid4()) for _ in range(count)]
    for volume, machine in made:
        driver.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS))
        spec = api.MachineSpec(machine, "m", 1, 64, (api.DiskSpec(volume, "vda"),))
        driver.machines.ensure(spec, Deadline(SECONDS))
    yield [machine for _, machine in made]
    for volume, machine in made:
        driver.machines.remove(machine, Deadline(SECONDS))
        driver.volumes.remove(volume, Deadline(SECONDS))


@contextmanager
def slow(sim: EsxSim, method: str, milliseconds: int) -> Iterator[None]:
    sim.delay(method, milliseconds)
    try:
        yield
    finally:
        sim.delay(method, 5)


def on(driver: Driver, machine: UUID) -> Power:
    return driver.machines.power(machine, PowerAction.ON, Deadline(SECONDS)).power


def last_power(seen: list[MachineChanged]) -> Power | None:
    last = seen[-1].machine if seen else None
    return None if last is None else last.power


# ------------------------------------------------------------------------------------------ tasks


def test_tasks_that_last_are_pushed_to_one_collector(sim: EsxSim, driver: Driver) -> None:
    with machines(driver, AT_ONCE) as ids, ThreadPoolExecutor(AT_ONCE) as pool, slow(sim, "PowerOnVM_Task", 2500):
        sim.calls()
        assert set(pool.map(lambda each: on(driver, each), ids)) == {Power.RUNNING}
        seen = sim.calls()
    assert (seen["CreatePropertyCollector"], seen["PowerOnVM_Task"]) == (1, AT_ONCE)
    assert seen["WaitForUpdatesEx"] >= 2
    assert seen["RetrievePropertiesEx"] < 24 * AT_ONCE  # looking every tenth of a second would be 25 for the task alone


@pytest.mark.parametrize("method", ["WaitForUpdatesEx", "ModifyListView", "CreatePropertyCollector"])
def test_a_task_that_lasts_outlives_the_session_and_the_collector(sim: EsxSim, driver: Driver, method: str) -> None:
    with machines(driver, 1) as (machine,), slow(sim, "PowerOnVM_Task", 1200):
        sim.expire_at(method)
        sim.calls()
        assert on(driver, machine) is Power.RUNNING
        seen = sim.calls()
        assert (seen["PowerOnVM_Task"], seen["Login"]) == (1, 1)


@pytest.mark.parametrize("fault", ["NotSupported", "http", "drop"])
def test_without_a_collector_tasks_are_looked_at(sim: EsxSim, driver: Driver, fault: str) -> None:
    sim.fault("CreatePropertyCollector", fault, times=1000)
    try:
        with machines(driver, 1) as (machine,), slow(sim, "PowerOnVM_Task", 800):
            assert on(driver, machine) is Power.RUNNING
    finally:
        sim.fault("CreatePropertyCollector", fault, times=0)


def test_a_task_that_lasts_and_fails_says_why(sim: EsxSim, driver: Driver) -> None:
    with machines(driver, 1) as (machine,), slow(sim, "PowerOnVM_Task", 1000):
        sim.fault("PowerOnVM_Task", "task:NoDiskSpace")
        with pytest.raises(api.HostAtFault) as caught:
            on(driver, machine)
        assert caught.value.vendor_code == "NoDiskSpace"


# ------------------------------------------------------------------------------------------ watching


def test_a_watch_outlives_its_session_and_tells_what_it_missed(sim: EsxSim, driver: Driver) -> None:
    assert isinstance(driver, Watching)
    with machines(driver, 3) as (stopped, gone, same):
        for each in (stopped, gone, same):
            on(driver, each)
        seen: list[MachineChanged] = []
        watch = driver.watch(seen.append, Deadline(SECONDS))
        sim.fault("WaitForUpdatesEx", "NotAuthenticated")  # deaf until its turn is over
        sim.expire()
        theirs = content_of(sim)
        finished(machine_of(theirs, stopped).PowerOffVM_Task())
        finished(machine_of(theirs, gone).PowerOffVM_Task())
        machine_of(theirs, gone).UnregisterVM()
        wait_for(lambda: {each.machine_id for each in seen} >= {stopped, gone}, SECONDS, "the missed changes are told")
        last = {each.machine_id: each.machine for each in seen}
        assert last[gone] is None
        off = last[stopped]
        assert off is not None
        assert off.power is Power.OFF
        assert same not in last
        assert watch.alive
        on(driver, stopped)
        wait_for(lambda: last_power(seen) is Power.RUNNING, SECONDS, "the start is told")
        watch.close()
        assert not watch.alive


def test_two_watches_and_a_task_share_the_collector(sim: EsxSim, driver: Driver) -> None:
    assert isinstance(driver, Watching)
    with machines(driver, 1) as (machine,):
        sim.calls()
        heard: tuple[list[MachineChanged], list[MachineChanged]] = ([], [])
        watches = [driver.watch(each.append, Deadline(SECONDS)) for each in heard]
        with slow(sim, "PowerOnVM_Task", 800):
            on(driver, machine)
        for each in heard:
            wait_for(lambda each=each: bool(each), SECONDS, "both are told")  # type: ignore[misc]  # the loop's own
        watches[0].close()
        count = len(heard[0])
        driver.machines.power(machine, PowerAction.OFF, Deadline(SECONDS))
        wait_for(lambda: last_power(heard[1]) is Power.OFF, SECONDS, "the stop is told")
        assert len(heard[0]) == count
        watches[1].close()


def test_a_watch_begins_although_the_wait_before_it_was_not_interrupted(sim: EsxSim, driver: Driver) -> None:
    """A wait that begins just after its interruption lasts ten seconds: the interruption is sent again."""
    assert isinstance(driver, Watching)
    first = driver.watch(lambda _: None, Deadline(SECONDS))
    sim.fault("CancelWaitForUpdates", "http")
    second = driver.watch(lambda _: None, Deadline(WAIT_S * 0.8))
    assert first.alive
    assert second.alive
    second.close()
    first.close()


def test_a_watch_ends_when_the_host_stays_away(program: Path) -> None:
    with simulated_host(program, machines=0) as own:
        driver = connect(own)
        assert isinstance(driver, Watching)
        watch = driver.watch(lambda _: None, Deadline(SECONDS))
        own.daemon.kill()
        wait_for(lambda: not watch.alive, SECONDS, "the watch ends")
        with pytest.raises(api.DriverError):
            driver.watch(lambda _: None, Deadline(2))
        watch.close()
        driver.close()
        own.daemon.start()


# ------------------------------------------------------------------------------------------ the session


def test_an_idle_session_is_kept_alive(sim: EsxSim) -> None:
    session = Session(endpoint(config_of(sim)), Deadline(SECONDS), keep_alive_s=0.05)
    sim.calls()
    told: list[int] = []
    wait_for(lambda: told.append(sim.calls().get("CurrentTime", 0)) or sum(told) >= 3, SECONDS, "it asks for the time")  # type: ignore[func-returns-value]  # append, then look
    session.close()
