"""What a host tells of its machines is recorded as it is, not as it was."""

from __future__ import annotations

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
from workers.hypervisor import Address
from workers.reach import address_of
from workers.sweep import Context


def test_news_that_are_older_than_what_is_recorded_change_nothing(world: World) -> None:
    """A machine is made off and then started; word of the first may come when its server is ACTIVE already."""
    scene = Scene.make(world)
    server = scene.server()
    uid = world.uid(server)
    context = Context(world.db, world.hosts, world.settings)
    with world.db.read() as session:
        where = address_of(session, session.exec(select(Host)).one())
    stream = watch._begin(context, where)
    assert isinstance(stream, SimWatch)
    try:
        now = inspected(world, where, uid)
        assert now.power is Power.RUNNING
        stream._on_change(MachineChanged(uid, replace(now, power=Power.OFF)))
        assert scene.status(server) == "ACTIVE"
        world.hosts.call(where, lambda driver, deadline: driver.machines.power(uid, PowerAction.OFF, deadline))
        wait_until(lambda: scene.status(server) == "STOPPED", 10, "word of what is so now")
        stream._on_change(MachineChanged(uid, now))
        assert scene.status(server) == "STOPPED"
    finally:
        stream.close()


def inspected(world: World, where: Address, uid: UUID) -> Machine:
    found = world.hosts.call(where, lambda driver, deadline: driver.machines.inspect(uid, deadline))
    assert found is not None
    return found


def test_a_list_that_is_older_than_a_server_does_not_lose_it(world: World) -> None:
    """A host's machines are listed, then a server is made there, then the two are compared."""
    scene = Scene.make(world)
    context = Context(world.db, world.hosts, world.settings)
    with world.db.read() as session:
        where = address_of(session, session.exec(select(Host)).one())
    server = scene.server()
    watch._compare(context, where, {})
    assert scene.status(server) == "ACTIVE"
    world.hosts.call(where, lambda driver, deadline: driver.machines.remove(world.uid(server), deadline))
    watch._compare(context, where, {})
    assert scene.status(server) == "ERROR"
