"""Generated subscriptions to every root, as every role, many at once while both tenants are at work: no bug shows, no
word of another tenant's is pushed, and when they have left the feed serves nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from graphql import parse, validate
from hypothesis import strategies as st

from gateway.jobs.event import Cursor
from resolvers.kernel.context import Context
from resolvers.kernel.feed import Feed
from resolvers.schema import schema
from resolvers.transport.answers import refused_answer
from resolvers.transport.caller import Caller, OperationInfo, Transport
from resolvers.transport.errors import RequestRefused
from resolvers.transport.execution import Engine
from resolvers.transport.requests import GraphQLRequest
from resolvers.transport.settings import TransportSettings
from tests.adversarial.documents import operations
from tests.adversarial.examples import SCHEMA, Drawn, Root, every_root
from tests.adversarial.neighbours import THEIRS, Neighbours
from tests.world import Client

pytestmark = pytest.mark.timeout(300)
AT_ONCE = 12
DEADLINE_S = 30.0
CALLER = Caller(None, None, None, "generated-subscriptions", Transport.WEBSOCKET)
ALL = """subscription($after: String) { events(after: $after) {
  kind objectId object { id ... on Network { name description } } } }"""


@dataclass(eq=False)
class Listener:
    """One subscription, and all that it was told."""

    who: str
    client: Client
    document: str
    values: dict[str, Any]
    told: list[str] = field(default_factory=list)
    key: str = "anybody"
    expires_at: None = None

    async def valid(self) -> bool:
        """As an identity of the transport's: always."""
        return True

    async def listen(self, neighbours: Neighbours, feed: Feed) -> None:
        """Until the stream ends, or for ever, as a socket's operation would."""

        def context(identity: Any, _caller: Caller, info: OperationInfo) -> Context:
            return Context(identity.client.subject, replace(neighbours.world.services, feed=feed), info)

        engine = Engine(schema(), TransportSettings(), context)
        request = GraphQLRequest(query=self.document, variables=self.values)
        try:
            ready = await engine.prepare(request, self, CALLER)
            async with aclosing(engine.stream(ready)) as answers:
                async for each in answers:
                    self.told.append(each.encoded().decode())
        except RequestRefused as refused:
            self.told.append(refused_answer(refused, CALLER.request_id).encoded().decode())


def test_subscriptions(neighbours: Neighbours) -> None:
    every_root("subscription", 3, partial(_check, neighbours))


def _check(neighbours: Neighbours, root: Root, data: Drawn) -> None:
    others = {"admin": neighbours.world.admin, "their manager": neighbours.theirs.manager}
    listeners = []
    for who in data.draw(
        st.lists(st.sampled_from(sorted({*neighbours.people, *others})), min_size=6, max_size=AT_ONCE)
    ):
        household = neighbours.theirs if who in others else neighbours.ours
        document, values = data.draw(operations(SCHEMA, neighbours.ids, root, household.ids))
        assert validate(SCHEMA, parse(document)) == [], document
        listeners.append(Listener(who, {**neighbours.people, **others}[who], document, values))
    after = {"after": Cursor(0, 0).encode()}
    ours, theirs = (Listener("", each.manager, ALL, after) for each in (neighbours.ours, neighbours.theirs))
    asyncio.run(_while_both_work(neighbours, [*listeners, ours, theirs]))
    assert THEIRS in "".join(theirs.told)  # what is looked for would show
    for each in [*listeners, ours]:
        told = "".join(each.told)
        assert "INTERNAL" not in told, (each.document, each.values)
        assert each.who in others or THEIRS not in told, (each.who, each.document, each.values)


async def _while_both_work(neighbours: Neighbours, listeners: list[Listener]) -> None:
    async with _feed(neighbours) as feed, asyncio.timeout(DEADLINE_S):
        tasks = [asyncio.create_task(each.listen(neighbours, feed)) for each in listeners]
        await _until(lambda: _subscribers(feed) == sum(1 for each in tasks if not each.done()))
        marks = [uuid4().hex, uuid4().hex]
        for household, mark in zip((neighbours.ours, neighbours.theirs), marks, strict=True):
            network = next(each for each in household.ids if each.startswith("network_"))
            text = f"{household.word} {mark}"
            await asyncio.to_thread(household.manager.do, "networkUpdate", "__typename", id=network, description=text)
        for listener, mark in zip(listeners[-2:], marks, strict=True):
            await _until(lambda listener=listener, mark=mark: any(mark in each for each in listener.told))  # type: ignore[misc]  # the defaults bind this turn's
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert ended is None or isinstance(ended, asyncio.CancelledError), ended
        assert _subscribers(feed) == 0


@asynccontextmanager
async def _feed(neighbours: Neighbours) -> AsyncIterator[Feed]:
    feed = Feed(neighbours.world.db)
    feed.start()
    try:
        yield feed
    finally:
        await feed.stop()


def _subscribers(feed: Feed) -> int:
    return len(feed._subscribers)


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for it; the caller has a deadline."""
    while not condition():  # noqa: ASYNC110 - of things inside that have no event
        await asyncio.sleep(0.005)
