"""One change for many subscribers: what those who see alike are told is read and rendered once, nobody sees what is
another's, and nobody misses anything.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any

import pytest

from gateway.jobs import event as events
from gateway.kernel.access import Role, Subject
from gateway.kernel.noun import BY_PREFIX
from gateway.kernel.typical import Typical
from resolvers.kernel.context import Context
from resolvers.kernel.feed import Feed
from resolvers.schema import schema
from resolvers.transport.app import Caller, TransportSettings
from resolvers.transport.caller import Transport
from resolvers.transport.execution import Engine
from resolvers.transport.requests import GraphQLRequest
from tests.compute.scene import Scene
from tests.jobs.told import all_told
from tests.statements import counted
from tests.world import Client, World

EVENTS = """subscription($after: String) { events(after: $after, filter: {nouns: ["server", "network"]}) {
  cursor kind object { ... on Server { name description keypair { name } } } } }"""
CURSORS = 'subscription($after: String) { events(after: $after, filter: {nouns: ["server"]}) { cursor } }'
PLAIN = "subscription($id: ID!) { serverChanged(id: $id) { description } }"
CHANGED = "subscription($id: ID!) { serverChanged(id: $id) { description keypair { name } } }"


class Known:
    """Somebody who is connected. One of those whose standing is ``watched`` can tell that nobody's has changed."""

    changes = 0

    def __init__(self, subject: Subject, key: str, *, watched: bool = True) -> None:
        self._subject = subject
        self.key = key
        self.expires_at: datetime | None = None
        self.asked = 0
        self.steady = Known.unchanged if watched else None

    @classmethod
    def unchanged(cls) -> int:
        return cls.changes

    @property
    def subject(self) -> Subject:
        self.asked += 1
        return self._subject

    @subject.setter
    def subject(self, new: Subject) -> None:
        Known.changes += 1
        self._subject = new

    async def valid(self) -> bool:
        return True


class Ear:
    """A connection: what it was told, told by others or by its own stream. A deaf one takes nothing."""

    def __init__(self, who: Known, stream: Callable[[Any], Any]) -> None:
        self.who = who
        self.hearing = asyncio.Event()
        self.hearing.set()
        self.offered = 0
        self.over = False
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task = asyncio.create_task(self._listen(stream))

    async def next(self) -> dict[str, Any]:
        """The next response."""
        return await asyncio.wait_for(self._heard.get(), 30)

    @property
    def silent(self) -> bool:
        """Whether nothing is there that nobody has asked for."""
        return self._heard.empty()

    async def ended(self) -> bool:
        """Wait until the stream has completed."""
        await asyncio.wait_for(self._task, 30)
        return self.over

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def _offer(self, body: bytes) -> bool:
        if not self.hearing.is_set():
            return False
        self.offered += 1
        self._heard.put_nowait(json.loads(body))
        return True

    async def _listen(self, stream: Callable[[Any], Any]) -> None:
        async with aclosing(stream(self._offer)) as answers:
            async for answer in answers:
                await self.hearing.wait()
                self._heard.put_nowait(json.loads(answer.encoded()))
        self.over = True


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


@asynccontextmanager
async def pushing(world: World, *, watched: bool = True) -> AsyncIterator[Callable[..., Any]]:
    """Gives a function that opens a subscription of somebody."""
    feed = Feed(world.db)
    services = replace(world.services, feed=feed)

    async def context(identity: Known, _caller: Caller, _operation: Any) -> Context:
        async def refresh() -> Subject:
            return identity.subject

        return Context(subject=identity.subject, services=services, refresh=refresh)

    engine = Engine(schema(), TransportSettings(), context)  # type: ignore[arg-type]  # our own identities
    feed.start()
    with world.db.read() as session:
        after = events.newest(session).encode()  # so that nobody who is quick is missed
    ears: list[Ear] = []

    async def opened(who: Client, text: str, **variables: Any) -> Ear:
        number = len(ears)
        caller = Caller(None, "127.0.0.1", None, f"a-request-{number:04}", Transport.WEBSOCKET)
        if "$after" in text:
            variables["after"] = after
        known = Known(replace(who.subject, request_id=caller.request_id), f"{who.subject.user_id}", watched=watched)
        ready = await engine.prepare(GraphQLRequest(query=text, variables=variables), known, caller)
        ears.append(Ear(known, partial(engine.stream, ready)))
        return ears[-1]

    opened.audiences = engine._audiences  # type: ignore[attr-defined]  # for those who look whether all have met
    try:
        yield opened
    finally:
        for ear in ears:
            await ear.close()
        async with asyncio.timeout(30):
            while feed._subscribers:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.01)
        await feed.stop()
        assert not engine._audiences.all, "an audience outlives its listeners"


async def following(ears: list[Ear], change: Callable[[], object]) -> list[Any]:
    """What each is told of a change."""
    await asyncio.to_thread(change)
    return [(await ear.next())["data"] for ear in ears]


def prepared(scene: Scene) -> tuple[Client, Client, str]:
    """Somebody with a server that has their own keypair, a colleague who may not see that, and the server."""
    colleague = scene.world.member(scene.tenant_row)
    key = scene.alice.do("keypairCreate", "keypair { id }", name="own")["keypair"]["id"]
    server = scene.server(keypairId=key)
    all_told(scene.world.db)
    return scene.alice, colleague, server


def change(scene: Scene, server: str, text: str) -> Callable[[], object]:
    def done() -> None:
        scene.alice.do("serverUpdate", "server { id }", id=server, description=text)
        all_told(scene.world.db)

    return done


async def together(ears: list[Ear], change: Callable[[str], Callable[[], object]]) -> None:
    """Return when all are told together: from then on nobody reads for itself."""
    for number in range(50):
        before = [ear.offered for ear in ears]
        await following(ears, change(f"settling {number}"))
        if all(ear.offered > was for ear, was in zip(ears, before, strict=True)):
            return
    raise AssertionError("they are never told together")


@pytest.mark.parametrize(
    ("text", "first"), [(EVENTS, False), (CHANGED, True), (PLAIN, True)], ids=["events", "one", "impersonal"]
)
def test_who_sees_alike_is_told_together_and_who_sees_otherwise_is_not(
    scene: Scene,
    text: str,
    first: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    alice, colleague, server = prepared(scene)
    given = {"id": server} if text != EVENTS else {}
    assert alice.subject.roles == colleague.subject.roles, "they differ only in who they are"

    async def statements(people: list[Client], new: str) -> tuple[list[Any], int]:
        async with pushing(scene.world) as opened:
            ears = [await opened(who, text, **given) for who in people]
            for ear in ears if first else []:
                await ear.next()  # as it is now
            await together(ears, lambda told: change(scene, server, told))
            with counted(scene.world.db) as sent:
                found = await following(ears, change(scene, server, new))
            return found, sum("FROM server" in each and "WHERE server.uid" in each for each in sent)

    found, alone = asyncio.run(statements([alice], "first"))
    again, many = asyncio.run(statements([alice] * 12 + [colleague] * 12, "second"))
    root = "events" if text == EVENTS else "serverChanged"
    shown = [each[root]["object"] if text == EVENTS else each[root] for each in [*found, *again]]
    assert [each["description"] for each in shown] == ["first"] + ["second"] * 24
    if text == PLAIN:
        assert many == alone, "who they are was not asked for, so it was read once for all"
    else:
        assert [each["keypair"] for each in shown[1:]] == [{"name": "own"}] * 12 + [None] * 12
        assert many <= 3 * alone, "each of many read it for itself"


def test_all_who_follow_one_object_meet_wherever_they_began(scene: Scene) -> None:
    """From an old cursor, from a new one, from now on: they differ in what they have heard, not in what comes."""
    alice, _colleague, server = prepared(scene)
    asked = "subscription($id: ID!, $from: String) { events(after: $from, filter: {objectId: $id}) { kind } }"

    def newest() -> str:
        with scene.world.db.read() as session:
            return events.newest(session).encode()

    async def run() -> None:
        async with pushing(scene.world) as opened:
            await asyncio.to_thread(change(scene, server, "to be read from the log"))
            old = newest()
            await asyncio.to_thread(change(scene, server, "this, too"))
            await asyncio.to_thread(lambda: alice.do("networkCreate", "network { id }", name="not followed"))
            await asyncio.to_thread(all_told, scene.world.db)
            ears = [await opened(alice, asked, id=server, **{"from": each}) for each in (newest(), None, old)]
            assert (await ears[2].next())["data"]["events"]["kind"] == "server.changed"
            async with asyncio.timeout(30):
                while [len(each) for each in opened.audiences.all] != [3]:  # type: ignore[attr-defined]  # noqa: ASYNC110 - put there by pushing; no event tells of it
                    await asyncio.sleep(0.01)
            await following(ears, change(scene, server, "new"))
            assert [ear.offered for ear in ears] == [1, 1, 1]
            assert all(ear.silent for ear in ears)

    asyncio.run(run())


def test_two_who_follow_two_objects_by_one_document_are_told_of_their_own(scene: Scene) -> None:
    alice, _colleague, first = prepared(scene)
    second = scene.server(name="second")

    async def run() -> None:
        async with pushing(scene.world) as opened:
            ears = [await opened(alice, PLAIN, id=each) for each in (first, second, first, second)]
            for ear in ears:
                await ear.next()
            for ear in ears:  # whether told alone (deaf at first) or together
                ear.hearing.clear()
            for number in range(3):
                await asyncio.to_thread(change(scene, first, f"first {number}"))
                await asyncio.to_thread(change(scene, second, f"second {number}"))
                for ear in ears:
                    ear.hearing.set()
                for ear, name in zip(ears, ("first", "second") * 2, strict=True):
                    told: list[str] = []
                    while f"{name} {number}" not in told:
                        told.append((await ear.next())["data"]["serverChanged"]["description"])
                    assert all(each.startswith(name) for each in told)

    asyncio.run(run())


def test_a_stranger_hears_nothing(scene: Scene) -> None:
    alice, _colleague, server = prepared(scene)
    stranger = scene.world.member(scene.world.tenant())

    async def run() -> tuple[Any, Any]:
        async with pushing(scene.world) as opened:
            own, foreign = await opened(alice, EVENTS), await opened(stranger, EVENTS)
            (heard,) = await following([own], change(scene, server, "x"))
            await asyncio.to_thread(lambda: stranger.do("networkCreate", "network { id }", name="mine"))
            return heard, (await foreign.next())["data"]

    heard, told = asyncio.run(run())
    assert heard["events"]["object"]["description"] == "x"
    assert told["events"]["kind"] == "network.created"  # and of the server before it nothing


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "asked each time"])
def test_roles_count_as_they_are_when_something_happens(scene: Scene, watched: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Who lost its role hears nothing from then on, and who got one hears; all of them sat in one audience."""
    alice, colleague, server = prepared(scene)
    stranger = scene.world.member(scene.world.tenant())

    async def run() -> None:
        async with pushing(scene.world, watched=watched) as opened:
            stays, goes = await opened(alice, EVENTS), await opened(colleague, EVENTS)
            comes = await opened(stranger, EVENTS)
            await together([stays, goes], lambda told: change(scene, server, told))
            goes.who.subject = replace(goes.who.subject, roles=stranger.subject.roles)
            (heard,) = await following([stays], change(scene, server, "secret"))
            assert heard["events"]["object"]["description"] == "secret"
            comes.who.subject = replace(comes.who.subject, roles=alice.subject.roles)
            for number in count():  # who may not see something is asked again only when a second has passed
                await following([stays], change(scene, server, f"open {number}"))
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(comes._heard.get(), 0.1)
                    break
            assert goes.silent

    asyncio.run(run())


def test_one_who_does_not_read_holds_nobody_up_and_misses_nothing(scene: Scene) -> None:
    alice, _colleague, server = prepared(scene)

    async def run() -> list[str]:
        async with pushing(scene.world) as opened:
            slow, quick = await opened(alice, EVENTS), await opened(alice, EVENTS)
            await together([slow, quick], lambda told: change(scene, server, told))
            slow.hearing.clear()
            for number in range(8):
                (heard,) = await following([quick], change(scene, server, str(number)))
                assert heard["events"]["object"]["description"] == str(number)
            slow.hearing.set()
            late = [await slow.next() for _ in range(8)]
            await together([slow, quick], lambda told: change(scene, server, told))
            return [each["data"]["events"]["kind"] for each in late]

    assert asyncio.run(run()) == ["server.changed"] * 8


def test_errors_carry_the_request_id_of_each(scene: Scene) -> None:
    alice, colleague, server = prepared(scene)
    asked = "subscription($id: ID!) { serverChanged(id: $id) { description consoleLog } }"

    async def run() -> list[Any]:
        async with pushing(scene.world) as opened:
            ears = [await opened(who, asked, id=server) for who in (alice, alice, colleague)]
            for ear in ears:
                await ear.next()
            for number in range(2):
                await asyncio.to_thread(change(scene, server, f"new {number}"))
                told = [await ear.next() for ear in ears]
                assert [each["data"]["serverChanged"]["description"] for each in told] == [f"new {number}"] * 3
            return [each["errors"][0]["extensions"]["requestId"] for each in told]

    assert asyncio.run(run()) == [f"a-request-{number:04}" for number in range(3)]


def test_a_stream_completes_for_all(scene: Scene) -> None:
    alice, colleague, server = prepared(scene)
    asked = "subscription($id: ID!) { jobChanged(id: $id) { status } }"

    async def run() -> None:
        async with pushing(scene.world) as opened:
            gone = [await opened(who, CHANGED, id=server) for who in (alice, colleague, colleague)]
            for ear in gone:
                await ear.next()
            job = (await asyncio.to_thread(scene.alice.do, "serverDelete", "job { id }", id=server))["job"]["id"]
            done = [await opened(who, asked, id=job) for who in (alice, colleague)]
            await asyncio.to_thread(scene.world.work)
            for ear in done:
                assert await ear.ended()
                told = [await ear.next() for _ in range(ear._heard.qsize())]
                assert told[-1]["data"]["jobChanged"]["status"] == "SUCCEEDED"
            for ear in gone:
                assert await ear.ended()

    asyncio.run(run())


@pytest.mark.parametrize("seed", range(3))
def test_whoever_comes_when_and_reads_however_gets_every_event_once_and_in_order(scene: Scene, seed: int) -> None:
    """Subscribers come, go, stop reading and read on while things happen; what each has heard is the log."""
    alice, colleague, server = prepared(scene)
    dice = random.Random(seed)  # noqa: S311 - a seed is a run
    log: list[str] = []

    def happen() -> None:
        with scene.world.db.read() as session:
            last = events.newest(session)
        change(scene, server, str(dice.random()))()
        with scene.world.db.read() as session:
            log.extend(
                each.cursor.encode() for each in events.after(session, last, 500).events if each.noun == "server"
            )

    async def run() -> None:
        async with pushing(scene.world) as opened:
            ears: list[Ear] = []
            for _ in range(25):
                what = dice.random()
                if what < 0.5 or not ears:
                    ears.append(await opened(dice.choice((alice, colleague)), CURSORS if what < 0.3 else EVENTS))
                elif what < 0.7:
                    dice.choice(ears).hearing.clear()
                elif what < 0.9:
                    dice.choice(ears).hearing.set()
                await asyncio.to_thread(happen)
                await asyncio.sleep(dice.choice((0, 0, 0.001, 0.02)))
            for ear in ears:
                ear.hearing.set()
            for ear in ears:
                heard = [(await ear.next())["data"]["events"]["cursor"] for _ in log]
                assert heard == log
                assert ear.silent

    asyncio.run(run())


@pytest.mark.parametrize("prefix", sorted(BY_PREFIX))
def test_a_scope_that_asks_for_nobody_in_particular_is_the_same_for_all_of_a_standing(prefix: str) -> None:
    def shown(subject: Subject) -> str:
        return str(BY_PREFIX[prefix].scope(subject).compile(compile_kwargs={"literal_binds": True}))

    one = Subject(user_id=7, user_name="one", roles={1: Role.MEMBER, 4: Role.READER}, session_id=3)
    other = Subject(user_id=8, user_name="other", roles={4: Role.READER, 1: Role.MEMBER}, api_key_id=9)
    anybody = Typical.of(one)
    assert shown(anybody) == shown(one)
    assert anybody.asked or shown(one) == shown(other)


def test_nobody_is_asked_while_nobodys_standing_changes(scene: Scene) -> None:
    """But for one, whose context is looked with; and all are once it did."""
    alice, _colleague, server = prepared(scene)
    people = [alice, *(scene.world.member(scene.tenant_row) for _ in range(8))]

    async def run() -> None:
        async with pushing(scene.world) as opened:
            ears = [await opened(who, CURSORS) for who in people]
            await together(ears, lambda told: change(scene, server, told))
            await following(ears, change(scene, server, "by now all of them have been asked"))
            before = [ear.who.asked for ear in ears]
            await following(ears, change(scene, server, "quiet"))
            asked = [ear.who.asked - was for ear, was in zip(ears, before, strict=True)]
            assert sorted(asked)[:-1] == [0] * 8
            Known.changes += 1
            await following(ears, change(scene, server, "somebody's standing has changed"))
            assert all(ear.who.asked > was for ear, was in zip(ears, before, strict=True))

    asyncio.run(run())


def test_a_change_in_one_tenant_is_no_matter_of_the_others(scene: Scene) -> None:
    """Their audiences are not even woken: what a change costs does not grow with the tenants that are there."""
    alice, _colleague, server = prepared(scene)
    strangers = [scene.world.member(scene.world.tenant()) for _ in range(5)]

    async def run() -> None:
        async with pushing(scene.world) as opened:
            own = await opened(alice, EVENTS)
            others = [await opened(who, EVENTS) for who in strangers]
            await together([own], lambda told: change(scene, server, told))
            async with asyncio.timeout(30):
                while len(opened.audiences.all) < 6:  # type: ignore[attr-defined]  # noqa: ASYNC110 - put there by pushing; no event tells of it
                    await asyncio.sleep(0.01)
            for _ in range(10):  # what the others were asked when they came may still be on its way
                before = [ear.who.asked for ear in others]
                await following([own], change(scene, server, "a matter of alice's tenant"))
                if [ear.who.asked for ear in others] == before:
                    break
            else:
                raise AssertionError("others are asked at each change")
            assert all(ear.silent for ear in others)

    asyncio.run(run())
