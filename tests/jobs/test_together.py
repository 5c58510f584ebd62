"""Events that come together: their objects are read by one statement, for nobody but those who may see them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import Session, col, select

from gateway.compute import server as servers
from gateway.compute.server import Server
from gateway.jobs import event as events
from gateway.jobs.event import Cursor
from gateway.kernel.access import Role
from gateway.kernel.ids import encode
from resolvers.jobs import event as shown
from resolvers.jobs.event import Together
from resolvers.kernel import feed as feeds
from resolvers.kernel.context import Context
from tests.compute.scene import Scene, active_image
from tests.jobs.test_fanout import pushing, together
from tests.jobs.told import all_told
from tests.statements import counted
from tests.world import Client, World

OBJECTS = """subscription($after: String) { events(after: $after, filter: {nouns: ["server"]}) {
  kind version object { ... on Server { id name description version } } } }"""


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


def renamed(world: World, text: str) -> None:
    """Change all servers in one unit of work, so that their events are there at one and the same moment."""

    def work(session: Session) -> None:
        for row in session.exec(select(Server).order_by(col(Server.id))):
            row.description = text

    world.db.run(work)
    all_told(world.db)


def logged(world: World) -> list[events.Event]:
    """Every entry there is."""
    all_told(world.db)
    with world.db.read() as session:
        return events.after(session, Cursor(0, 0), 5_000).events


def looked(world: World, who: Client, *, typical: bool = False) -> Callable[[Together, events.Event], Any]:
    """How somebody asks for an entry's object, anew each time."""

    def ask(entries: Together, entry: events.Event) -> Any:
        async def run() -> Any:
            context = Context(subject=who.subject, services=world.services)
            return await entries.object(context.typical() if typical else context, entry)

        return asyncio.run(run())

    return ask


def reads(sent: list[str]) -> set[str]:
    """The statements that read servers by their uids, each text once: PostgreSQL's reads are noted twice."""
    return {each for each in sent if "WHERE server.uid" in each}


@pytest.mark.parametrize("live", [True, False], ids=["told as it happens", "read from the log"])
def test_objects_are_read_together_and_told_once_each_in_order(scene: Scene, live: bool) -> None:  # noqa: FBT001 - a parameter of the test
    names = [f"s{number}" for number in range(feeds.TOGETHER + 4)]
    scene.world.admin.do(
        "quotaSet", "__typename", tenantId=scene.tenant,
        limits=[{"resource": each, "limit": -1} for each in ("SERVERS", "VCPUS", "RAM_MIB")],
    )  # fmt: skip
    ids = [scene.create(name=name)["server"]["id"] for name in names]
    all_told(scene.world.db)

    async def run() -> tuple[list[Any], set[str]]:
        async with pushing(scene.world) as opened:
            if live:
                ear = await opened(scene.alice, OBJECTS)
                await together([ear], lambda text: lambda: described(scene, ids[0], text))
            with counted(scene.world.db) as sent:
                await asyncio.to_thread(renamed, scene.world, "new")
                if not live:
                    ear = await opened(scene.alice, OBJECTS)
                told = [(await ear.next())["data"]["events"] for _ in names]
            assert ear.silent
            return told, reads(sent)

    told, statements = asyncio.run(run())
    changed = [each.object_uid for each in logged(scene.world)[-len(names) :]]
    assert [each["object"]["id"] for each in told] == [encode("server", uid) for uid in changed]
    assert sorted(each["object"]["name"] for each in told) == sorted(names)
    assert {each["object"]["description"] for each in told} == {"new"}
    assert all(each["object"]["version"] == each["version"] for each in told)
    assert len(statements) == 2, "as many as come together, and then the rest"
    assert not any("server.uid =" in each for each in statements), "one by one"


def described(scene: Scene, server: str, text: str) -> None:
    scene.alice.do("serverUpdate", "server { id }", id=server, description=text)
    all_told(scene.world.db)


def test_what_was_read_for_one_is_not_shown_to_another(scene: Scene) -> None:
    world = scene.world
    ids = [scene.server(name="a"), scene.server(name="b")]
    first, last = [each for each in logged(world) if each.kind == "server.created"]
    entries = Together([first, last])
    assert looked(world, scene.alice)(entries, first).name == "a"
    stranger = world.member(world.tenant())
    without = Client(world, replace(scene.alice.subject, roles={}))
    for nobody in (stranger, without):
        assert looked(world, nobody)(entries, last) is None
    with counted(world.db) as sent:
        found = looked(world, scene.alice)(entries, last)
    assert (servers.NOUN.public(found), reads(sent)) == (ids[1], set())


def test_what_is_somebodys_own_is_not_kept_for_all_of_a_standing(scene: Scene) -> None:
    world = scene.world
    mine, theirs = (
        Client(world, replace(who.subject, admin=True)) for who in (scene.alice, world.member(scene.tenant_row))
    )
    assert mine.subject.standing == theirs.subject.standing
    for name in ("one", "two"):
        mine.do("keypairCreate", "keypair { id }", name=name)
    first, last = [each for each in logged(world) if each.kind == "keypair.created"]
    entries = Together([first, last])
    assert looked(world, mine, typical=True)(entries, first).name == "one"
    assert looked(world, theirs, typical=True)(entries, last) is None
    assert looked(world, mine, typical=True)(entries, last).name == "two"


def test_nothing_is_read_ahead_that_somebody_may_not_be_told_of(scene: Scene) -> None:
    world = scene.world
    scene.server(name="a")
    tenant = world.tenant()
    world.member(tenant).do(
        "serverCreate", "server { id }", name="b", flavorId=scene.flavor, imageId=active_image(world, tenant)
    )
    first, last = [each for each in logged(world) if each.kind == "server.created"]
    both = Client(world, replace(scene.alice.subject, roles={**scene.alice.subject.roles, tenant.id: Role.READER}))
    entries = Together([first, last])
    assert looked(world, scene.alice)(entries, first).name == "a"
    assert looked(world, scene.alice)(entries, last) is None
    assert looked(world, both)(entries, last).name == "b", "who was given a role meanwhile sees it"


def test_an_object_is_shown_as_it_is_now(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    world = scene.world
    scene.server(name="a")
    second = scene.server(name="b")
    first, last = [each for each in logged(world) if each.kind == "server.created"]
    entries, ask = Together([first, last]), looked(world, scene.alice)
    monkeypatch.setattr(shown, "AHEAD_S", 0.0)
    ask(entries, first)
    scene.alice.do("serverUpdate", "server { id }", id=second, description="later")
    assert ask(entries, last).description == "later"
    scene.do_and_work("serverDelete", id=second)
    assert ask(entries, last) is None
