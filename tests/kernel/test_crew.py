"""Threads for calls that may hang: bounded, given up in time, and one who hangs never keeps another waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from drivers.api import Transient
from tests.servers.daemon import wait_until
from tests.world import World
from workers import hypervisor
from workers.crew import Crew, HungError, LateError
from workers.hypervisor import Address, Hosts


def test_answers_and_errors_come_back() -> None:
    crew = Crew()
    assert crew.run("a", lambda: 41 + 1, 5) == 42
    with pytest.raises(ZeroDivisionError):
        crew.run("a", lambda: 1 // 0, 5)
    with pytest.raises(TimeoutError, match="its own"):
        crew.run("a", _raise_its_own, 5)
    crew.close()


def _raise_its_own() -> None:
    raise TimeoutError("its own")


def hang(call: Callable[[Callable[[], object]], object], gate: threading.Event, count: int) -> None:
    """Have so many calls hang. One that was given up before its thread had begun does not, and is made again."""
    begun: list[int] = []

    def work() -> None:
        begun.append(1)
        gate.wait()

    deadline = time.monotonic() + 60
    while len(begun) < count:
        assert time.monotonic() < deadline, "no call hangs"
        with pytest.raises((LateError, HungError, Transient)):
            call(work)


def test_threads_are_used_again() -> None:
    crew = Crew()
    assert len({crew.run(number, threading.get_ident, 5) for number in range(50)}) == 1
    crew.close()


def test_one_who_hangs_is_given_up_then_refused_at_once_and_taken_again_when_it_comes_back() -> None:
    crew = Crew(each=2, most=3, hung=10)
    gate = threading.Event()
    hang(lambda work: crew.run("hangs", work, 0.01), gate, 2)
    with pytest.raises(HungError):
        crew.run("hangs", gate.wait, 600)
    assert crew.hung == 2
    assert [crew.run(number, lambda: "answers", 5) for number in range(10)] == ["answers"] * 10
    gate.set()
    wait_until(lambda: crew.hung == 0, 10, "it did not end")
    assert crew.run("hangs", lambda: "again", 5) == "again"
    crew.close()


def test_however_many_hang_in_all_those_who_answer_are_served() -> None:
    """The bound on what hangs keeps out only who hangs already."""
    crew = Crew(each=8, most=2, hung=5)
    gate = threading.Event()
    for number in range(12):
        hang(partial(crew.run, number, seconds=0.01), gate, 1)
    with pytest.raises(HungError):
        crew.run(3, gate.wait, 600)
    assert crew.run("answers", lambda: 1, 5) == 1
    gate.set()
    wait_until(lambda: crew.hung == 0, 10, "it did not end")
    crew.close()


def test_no_more_are_at_work_than_may_be() -> None:
    crew = Crew(each=3, most=5, hung=0)
    lock, now, seen = threading.Lock(), [0, 0], [0, 0]
    barrier = threading.Semaphore(0)

    def work(host: int) -> None:
        with lock:
            now[host] += 1
            seen[host] = max(seen[host], now[host])
            assert sum(now) <= 5
        barrier.acquire(timeout=10)
        with lock:
            now[host] -= 1

    callers = [
        threading.Thread(target=crew.run, args=(host, lambda host=host: work(host), 30))
        for host in (0, 1) for _ in range(8)
    ]  # fmt: skip
    for each in callers:
        each.start()
    wait_until(lambda: sum(now) == 5, 10, "it did not end")
    barrier.release(16)
    for each in callers:
        each.join(30)
    assert max(seen) <= 3
    crew.close()


def test_a_hung_host_keeps_no_other_waiting(world: World, tmp_path: Path) -> None:
    world.host("hanging")
    world.host("well")
    hosts = Hosts(tmp_path)
    hanging, well = (
        Address(number, "SIM", name, f"sim://{name}", (("store", "memory"),))
        for number, name in enumerate(("hanging", "well"))
    )
    assert hosts.call(hanging, lambda driver, deadline: list(driver.machines.list(deadline))) == []
    gate = threading.Event()
    hang(lambda work: hosts.call(hanging, lambda _driver, _deadline: work(), seconds=-0.99), gate, 8)
    with pytest.raises(Transient, match="still hang"):
        hosts.call(hanging, lambda _driver, _deadline: gate.wait(), seconds=600)
    assert hosts.call(well, lambda driver, deadline: list(driver.machines.list(deadline))) == []
    with pytest.raises(Transient, match="did not answer within"):
        hosts.call(well, lambda _driver, _deadline: gate.wait(), seconds=-0.99)
    gate.set()
    hosts.close()


def test_connections_that_nobody_uses_are_closed_but_for_those_to_keep(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hypervisor, "IDLE_S", 0.0)
    hosts = Hosts(tmp_path)
    drivers: list[object] = []
    for number, name in enumerate(("kept", "idle")):
        world.host(name)
        where = Address(number, "SIM", name, f"sim://{name}", (("store", "memory"),))
        drivers.append(hosts.call(where, lambda driver, _deadline: driver))
    hosts.trim({0})
    again = [
        hosts.call(Address(number, "SIM", name, f"sim://{name}", (("store", "memory"),)), lambda driver, _: driver)
        for number, name in enumerate(("kept", "idle"))
    ]
    assert [before is after for before, after in zip(drivers, again, strict=True)] == [True, False]
    hosts.close()
