"""One change for many subscribers: what those who ask alike see is read and rendered once, and nobody sees what is
another's.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest

from gateway.jobs import event as events
from gateway.kernel.access import Subject
from resolvers.kernel.context import Context
from resolvers.kernel.feed import Feed
from resolvers.schema import schema
from resolvers.transport.app import Caller, TransportSettings
from resolvers.transport.caller import Transport
from resolvers.transport.execution import Engine
from resolvers.transport.requests import GraphQLRequest
from tests.compute.scene import Scene
from tests.statements import counted
from tests.world import Client, World

EVENTS = """subscription($after: String) { events(after: $after, filter: {nouns: ["server", "network"]}) {
  kind object { ... on Server { name description keypair { name } } } } }"""
CHANGED = "subscription($id: ID!) { serverChanged(id: $id) { description keypair { name } } }"


@dataclass(frozen=True)
class Known:
    """Somebody who is connected."""

    subject: Subject
    key: str = "k"
    expires_at: datetime | None = None

    async def valid(self) -> bool:
        return True


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


@asynccontextmanager
async def pushing(world: World) -> AsyncIterator[Callable[..., Any]]:
    """Gives a function that opens a subscription of somebody and answers with its stream."""
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

    async def opened(who: Client, text: str, **variables: Any) -> Any:
        caller = Caller(None, "127.0.0.1", None, "a-request-id", Transport.WEBSOCKET)
        if text == EVENTS:
            variables["after"] = after
        ready = await engine.prepare(GraphQLRequest(query=text, variables=variables), Known(who.subject), caller)
        return engine.stream(ready)

    try:
        yield opened
    finally:
        await feed.stop()


async def following(streams: list[Any], change: Callable[[], object]) -> list[Any]:
    """What each stream gives for a change."""
    waiting = [asyncio.create_task(anext(stream)) for stream in streams]
    await asyncio.to_thread(change)
    answers = await asyncio.wait_for(asyncio.gather(*waiting), 30)
    return [json.loads(each.encoded())["data"] for each in answers]


def prepared(scene: Scene) -> tuple[Client, Client, str]:
    """Somebody with a server that has their own keypair, a colleague who may not see that, and the server."""
    colleague = scene.world.member(scene.tenant_row)
    key = scene.alice.do("keypairCreate", "keypair { id }", name="own")["keypair"]["id"]
    return scene.alice, colleague, scene.server(keypairId=key)


def change(scene: Scene, server: str, text: str) -> Callable[[], object]:
    return lambda: scene.alice.do("serverUpdate", "server { id }", id=server, description=text)


@pytest.mark.parametrize(("text", "first"), [(EVENTS, False), (CHANGED, True)], ids=["events", "one"])
def test_who_asks_alike_shares_the_work_and_who_sees_otherwise_does_not(
    scene: Scene,
    text: str,
    first: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    alice, colleague, server = prepared(scene)
    given = {"id": server} if text == CHANGED else {}

    async def statements(people: list[Client], new: str) -> tuple[list[Any], int]:
        async with pushing(scene.world) as opened:
            streams = [await opened(who, text, **given) for who in people]
            for stream in streams if first else []:
                await asyncio.wait_for(anext(stream), 20)  # as it is now
            with counted(scene.world.db) as sent:
                found = await following(streams, change(scene, server, new))
            for stream in streams:
                async with aclosing(stream):
                    pass
            return found, sum("FROM server" in each and "WHERE server.uid" in each for each in sent)

    found, alone = asyncio.run(statements([alice, colleague], "first"))
    root = "events" if text == EVENTS else "serverChanged"
    shown = [each[root]["object"] if text == EVENTS else each[root] for each in found]
    assert [(each["description"], each["keypair"]) for each in shown] == [("first", {"name": "own"}), ("first", None)]
    again, many = asyncio.run(statements([alice] * 12 + [colleague] * 12, "second"))
    shown = [each[root]["object"] if text == EVENTS else each[root] for each in again]
    assert [each["description"] for each in shown] == ["second"] * 24
    assert [each["keypair"] for each in shown] == [{"name": "own"}] * 12 + [None] * 12
    assert many < alone + 12, "each of many read it for itself"


def test_a_stranger_hears_nothing(scene: Scene) -> None:
    alice, _colleague, server = prepared(scene)
    stranger = scene.world.member(scene.world.tenant())

    async def run() -> tuple[Any, Any]:
        async with pushing(scene.world) as opened:
            own, foreign = await opened(alice, EVENTS), await opened(stranger, EVENTS)
            silent = asyncio.create_task(anext(foreign))
            (heard,) = await following([own], change(scene, server, "x"))
            await asyncio.to_thread(lambda: stranger.do("networkCreate", "network { id }", name="mine"))
            told = json.loads((await asyncio.wait_for(silent, 20)).encoded())["data"]
            for stream in (own, foreign):
                async with aclosing(stream):
                    pass
            return heard, told

    heard, told = asyncio.run(run())
    assert heard["events"]["object"]["description"] == "x"
    assert told["events"]["kind"] == "network.created"  # and of the server before it nothing


def test_one_who_does_not_read_holds_nobody_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscriber that stopped reading misses nothing once it reads on, however little is kept for it."""
    from resolvers.kernel import feed as feeds

    monkeypatch.setattr(feeds, "MOST_WAITING", 3)
    alice, _colleague, server = prepared(scene)

    async def run() -> list[str]:
        async with pushing(scene.world) as opened:
            slow, quick = await opened(alice, EVENTS), await opened(alice, EVENTS)
            await following([slow, quick], change(scene, server, "0"))
            for number in range(1, 9):
                (heard,) = await following([quick], change(scene, server, str(number)))
                assert heard["events"]["object"]["description"] == str(number)
            late = [json.loads((await asyncio.wait_for(anext(slow), 20)).encoded())["data"] for _ in range(8)]
            for stream in (slow, quick):
                async with aclosing(stream):
                    pass
            return [each["events"]["kind"] for each in late]

    assert asyncio.run(run()) == ["server.changed"] * 8
