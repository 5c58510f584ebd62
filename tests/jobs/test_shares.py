"""Workers share the hosts: each is visited by exactly one of the living, and by others soon after that one died."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from drivers.api import Transient
from drivers.sim import DataCentre
from gateway.compute.host import Host, HostStatus, Hypervisor
from gateway.jobs import worker
from gateway.jobs.turn import Turn
from tests.bench.scene import insert
from tests.world import World
from workers import shares
from workers.compute import watch
from workers.hypervisor import Hosts
from workers.main import disown_the_dead, load_all, runner_name
from workers.sweep import RECONCILERS, Context

load_all()  # all reconcilers, whichever tests ran before
VISITS = ("hosts", "servers", "watches", "samples", "networks")
names = st.sets(st.text("abcdefgh-0123456789", min_size=1, max_size=12), min_size=1, max_size=6)


@given(names, st.integers(1, 2**40), st.text("xyz", min_size=1, max_size=3))
def test_whoever_comes_takes_hosts_only_for_itself(living: set[str], host: int, newcomer: str) -> None:
    before = worker.owner(tuple(sorted(living)), host)
    after = worker.owner(tuple(sorted({*living, newcomer})), host)
    assert before in living
    assert after in (before, newcomer)


def test_shares_are_of_about_one_size() -> None:
    living = tuple(f"worker-{number}" for number in range(4))
    held = [worker.owner(living, host) for host in range(1, 4001)]
    assert all(900 < held.count(name) < 1100 for name in living)
    assert worker.owner((), 1) is None


@dataclass
class Crew:
    """Workers of one world, each with connections of its own."""

    world: World
    hosts: dict[str, Hosts] = field(default_factory=dict)

    def context(self, name: str) -> Context:
        hosts = self.hosts.setdefault(name, Hosts(self.world.settings.state_dir / name))
        return Context(self.world.db, hosts, self.world.settings, name)

    def show(self, *living: str) -> None:
        for name in living:
            shares.show(self.context(name))

    def turn(self, *living: str) -> None:
        for name in living:
            for each in VISITS:
                RECONCILERS[each].look(self.context(name))

    def owned(self, name: str) -> set[int]:
        context = self.context(name)
        with self.world.db.read() as session:
            return {host.id for host in shares.mine(context, session, select(Host))}

    def close(self) -> None:
        watch.close_all()
        for each in self.hosts.values():
            each.close()


def all_hosts(world: World) -> set[int]:
    with world.db.read() as session:
        return set(session.exec(select(Host.id)))


def status_of(world: World, host: int) -> HostStatus:
    with world.db.read() as session:
        return session.get_one(Host, host).status


@pytest.mark.parametrize("seed", range(3))
def test_workers_come_and_go_and_every_host_has_one_owner(world: World, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - a seed is a run
    rows = ({"name": f"h{number}"} for number in range(40))
    hosts = set(
        insert(world.db, Host(name="", hypervisor=Hypervisor.SIM, endpoint="sim://", availability_zone="z"), rows)
    )
    crew, living, number = Crew(world), set[str](), 0
    for _ in range(60):
        what = dice.random()
        if what < 0.3 or not living:
            living.add(f"w{(number := number + 1)}")
            crew.show(f"w{number}")
        elif what < 0.4:
            leaver = living.pop()
            shares.leave(world.db, leaver)
        elif what < 0.5:
            living.pop()  # it died: nobody says so
        else:
            crew.show(*living)
            world.clock.at += timedelta(seconds=dice.choice((1, 4)))
        owners = [crew.owned(name) for name in crew.hosts]
        assert sum(map(len, owners)) == len(set().union(*owners)) <= len(hosts), "a host has two owners"
    crew.show(*living)
    world.clock.at += worker.LASTS - timedelta(seconds=1)
    crew.show(*living)
    world.clock.at += timedelta(seconds=1)  # whoever died is missed now
    assert set().union(*(crew.owned(name) for name in living)) == hosts
    assert all(not crew.owned(name) for name in crew.hosts.keys() - living)
    crew.show(*living)
    with world.db.read() as session:
        assert set(worker.known(session)) == living


def test_a_dead_workers_hosts_are_visited_by_others(world: World) -> None:
    centres: list[DataCentre] = [world.host(f"h{number}") for number in range(8)]
    hosts = all_hosts(world)
    crew = Crew(world)
    try:
        crew.show("one", "two")
        crew.turn("one", "two")
        one, two = crew.hosts["one"].connected, crew.hosts["two"].connected
        assert one | two == hosts
        assert one
        assert two
        assert not one & two, "two connections to a host"
        assert {each: len(watch.watched(crew.hosts[each])) for each in ("one", "two")} == {
            "one": len(one),
            "two": len(two),
        }
        for centre in centres:  # the worker that dies will not see it
            centre.down(Transient)
        crew.turn("one")
        assert {host for host in hosts if status_of(world, host) is HostStatus.OFFLINE} == one
        world.clock.at += worker.LASTS
        crew.show("one")
        for centre in centres:
            centre.up()
        crew.turn("one")
        crew.turn("one")  # a stream is opened to a host that was seen to be there
        assert crew.hosts["one"].connected == hosts
        assert watch.watched(crew.hosts["one"]) == hosts
        assert all(status_of(world, host) is HostStatus.ONLINE for host in hosts)
        with world.db.read() as session:
            assert [each.name for each in session.exec(select(Turn)) if each.name.startswith("samples")] == [
                "samples one"
            ]
        crew.show("two")  # it was not dead, only slow
        crew.turn("one", "two")
        assert watch.watched(crew.hosts["one"]) == one
        assert watch.watched(crew.hosts["two"]) == two
    finally:
        crew.close()


def test_a_process_that_died_on_this_machine_is_missed_at_once(world: World) -> None:
    dead = runner_name(2**22 + 1)  # above the highest number that a process can have
    other = "elsewhere-1"
    for name in (dead, other):
        world.db.run(partial(worker.show, name=name))
    disown_the_dead(world.db)
    with world.db.read() as session:
        assert worker.known(session) == [other]


def test_many_hosts_do_not_make_many_threads(world: World) -> None:
    """1,000 hosts, all visited by four reconcilers at once, over one small crew of threads."""
    options = {"store": "memory"}
    row = Host(
        name="",
        hypervisor=Hypervisor.SIM,
        endpoint="",
        options=options,
        availability_zone="z",
        status=HostStatus.ONLINE,
    )
    insert(world.db, row, ({"name": f"h{number}", "endpoint": f"sim://{number}"} for number in range(1000)))
    crew = Crew(world)
    context = crew.context("one")
    crew.show("one")
    before, most, done = threading.active_count(), 0, threading.Event()

    def count() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, threading.active_count())

    counting = threading.Thread(target=count)
    counting.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            turns = [
                pool.submit(RECONCILERS[each].look, context) for each in ("hosts", "servers", "samples", "watches")
            ]
            for each in turns:
                each.result(120)
        assert len(crew.hosts["one"].connected) == 1000
    finally:
        done.set()
        counting.join()
        crew.close()
    assert 0 < most - before < 150
