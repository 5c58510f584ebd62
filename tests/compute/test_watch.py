"""What a host tells of its machines is recorded as it is, not as it was."""

from __future__ import annotations

import threading
from dataclasses import replace
from uuid import UUID

from sqlmodel import select

from drivers.api import Machine, MachineChanged, Power, PowerAction
from drivers.sim.watch import SimWatch
from gateway.compute.host import Host
from tests.compute.scene import Scene
from tests.servers.daemon import wait_until
from tests.world import World
from workers.compute import watch
from workers.compute.heard import Heard, Word, news
from workers.hypervisor import Address
from workers.reach import address_of
from workers.sweep import Context


def test_news_that_are_older_than_what_is_recorded_change_nothing(world: World) -> None:
    """A machine is made off and then started; word of the first may come when its server is ACTIVE already."""
    scene = Scene.make(world)
    server = scene.server()
    uid = world.uid(server)
    context = Context(world.db, world.hosts, world.settings)
    where = the_host(world)
    now = inspected(world, where, uid)
    assert now.power is Power.RUNNING
    old = Word(where, uid, replace(now, power=Power.OFF))
    assert news(context, [old, Word(where, uid, now)]) == [old]
    watch._record_now(context, where, uid)
    assert scene.status(server) == "ACTIVE"
    power(world, where, uid, PowerAction.OFF)
    watch._record_now(context, where, uid)
    assert scene.status(server) == "STOPPED"


def test_word_of_a_machine_is_recorded_once_and_for_the_host_that_has_it(world: World) -> None:
    """Over a stream: what is told while a host is being asked is asked for again afterwards, and nothing is lost."""
    scene = Scene.make(world)
    servers = [scene.server() for _ in range(3)]
    uids = [world.uid(each) for each in servers]
    context = Context(world.db, world.hosts, world.settings)
    where = the_host(world)
    asked: list[UUID] = []
    free, busy = threading.Event(), threading.Event()

    def record(_context: Context, _where: Address, uid: UUID) -> None:
        asked.append(uid)
        busy.set()
        assert free.wait(30)
        watch._record_now(context, where, uid)

    heard = Heard(context, record)
    stream = watch._begin(context, where, heard)
    assert isinstance(stream, SimWatch)
    try:
        for uid in uids:
            power(world, where, uid, PowerAction.OFF)
            assert busy.wait(30)
        heard.put(replace(where, host_id=where.host_id + 1), MachineChanged(uids[0], None))  # has no such server
        free.set()
        wait_until(lambda: [scene.status(each) for each in servers] == ["STOPPED"] * 3, 20, "all are seen to be off")
        assert sorted(asked) == sorted(uids)
    finally:
        free.set()
        stream.close()
        heard.close()
    heard.put(where, MachineChanged(uids[0], None))
    assert heard._thread is None
    assert not any(each.is_alive() for each in heard._under_way.values())
    assert len(asked) == 3


def test_what_a_job_records_too_late_does_not_stay(world: World) -> None:
    """A job has seen a machine run and is about to record it; meanwhile the machine stops, and that is recorded."""
    scene = Scene.make(world)
    server = scene.server()
    uid = world.uid(server)
    context = Context(world.db, world.hosts, world.settings)
    where = the_host(world)
    heard = Heard(context, watch._record_now)
    stream = watch._begin(context, where, heard)
    assert stream is not None
    try:
        seen = inspected(world, where, uid)
        power(world, where, uid, PowerAction.OFF)
        wait_until(lambda: scene.status(server) == "STOPPED", 20, "it is seen to be off")
        world.db.run(lambda session: watch.record(session, uid, where.host_id, seen))
        assert scene.status(server) == "ACTIVE"
        wait_until(lambda: scene.status(server) == "STOPPED", 20, "it is looked at once more")
    finally:
        stream.close()
        heard.close()


def test_a_host_whose_stream_ended_is_looked_at_when_it_is_opened_again(world: World) -> None:
    """What changed in between was told to nobody, and the next look at everything is a quarter of a minute away."""
    scene = Scene.make(world)
    server = scene.server()
    context = Context(world.db, world.hosts, world.settings)
    where = the_host(world)
    watch.watch(context)
    try:
        _, stream = watch._open[world.hosts].open[where.host_id]
        stream.close()
        power(world, where, world.uid(server), PowerAction.OFF)
        assert scene.status(server) == "ACTIVE"
        watch.watch(context)
        assert scene.status(server) == "STOPPED"
        assert watch._open[world.hosts].open[where.host_id][1].alive
    finally:
        watch.close_all()


def the_host(world: World) -> Address:
    with world.db.read() as session:
        return address_of(session, session.exec(select(Host)).one())


def power(world: World, where: Address, uid: UUID, action: PowerAction) -> None:
    world.hosts.call(where, lambda driver, deadline: driver.machines.power(uid, action, deadline))


def inspected(world: World, where: Address, uid: UUID) -> Machine:
    found = world.hosts.call(where, lambda driver, deadline: driver.machines.inspect(uid, deadline))
    assert found is not None
    return found


def test_a_list_that_is_older_than_a_server_does_not_lose_it(world: World) -> None:
    """A host's machines are listed, then a server is made there, then the two are compared."""
    scene = Scene.make(world)
    context = Context(world.db, world.hosts, world.settings)
    where = the_host(world)
    server = scene.server()
    watch._compare(context, where, {})
    assert scene.status(server) == "ACTIVE"
    world.hosts.call(where, lambda driver, deadline: driver.machines.remove(world.uid(server), deadline))
    watch._compare(context, where, {})
    assert scene.status(server) == "ERROR"
