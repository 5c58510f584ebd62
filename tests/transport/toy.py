"""A small strawberry schema with everything the transport has to carry: nested lists, a mutation, subscriptions, a slow
field, failing fields. It knows nothing of the cloud; the transport serves any schema.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import strawberry
from strawberry.types import Info

from resolvers.transport.app import Caller, Identity, OperationInfo


class Refusal(Exception):  # noqa: N818 - stands for the domain's refusals
    """What an application raises to be understood."""

    code = "NOT_FOUND"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.extensions = {"noun": "server"}


class ForeignCode(Exception):  # noqa: N818 - like SQLAlchemy's errors: a code, but not one of ours
    """Carries a code that the contract does not know."""

    code = "e3q8"


@dataclass
class Room:
    """What the toy's resolvers share, so that tests can see what happened."""

    notes: list[str] = field(default_factory=list)
    contexts: int = 0
    open_streams: int = 0
    cancelled: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Context:
    """A resolver's context."""

    room: Room
    identity: Identity
    caller: Caller
    info: OperationInfo
    serial: int


def room_of(info: Info[Context, None]) -> Room:
    return info.context.room


@strawberry.type
class PageInfo:
    has_next_page: bool = False


@strawberry.type
class Port:
    number: int

    @strawberry.field
    def server(self) -> Server:
        return Server(name="of-port")


@strawberry.type
class PortConnection:
    nodes: list[Port]
    page_info: PageInfo


@strawberry.type
class Server:
    name: str

    @strawberry.field
    def ports(self) -> list[Port]:
        return [Port(number=1), Port(number=2)]

    @strawberry.field
    def paged_ports(self, first: int = 20) -> PortConnection:
        return PortConnection(nodes=[Port(number=each) for each in range(first)], page_info=PageInfo())

    @strawberry.field
    def peer(self) -> Server | None:
        return Server(name=f"{self.name}'")


@strawberry.type
class ServerConnection:
    nodes: list[Server]
    page_info: PageInfo
    total_count: int


@strawberry.type
class Budgeted:
    limit: int
    remaining: int
    cost: int


@strawberry.type
class Query:
    @strawberry.field
    def hello(self, name: str = "world") -> str:
        return f"hello {name}"

    @strawberry.field
    def server(self) -> Server:
        return Server(name="one")

    @strawberry.field
    def servers(self, first: int | None = None, last: int | None = None) -> ServerConnection:
        count = first or last or 20
        nodes = [Server(name=f"s{each}") for each in range(min(count, 5))]
        return ServerConnection(nodes=nodes, page_info=PageInfo(), total_count=count)

    @strawberry.field
    def by_ids(self, ids: list[strawberry.ID]) -> list[Server]:
        return [Server(name=each) for each in ids]

    @strawberry.field
    async def slow(self, info: Info[Context, None]) -> str:
        try:
            await room_of(info).gate.wait()
        except asyncio.CancelledError:
            room_of(info).cancelled += 1
            raise
        return "at last"

    @strawberry.field
    def broken(self) -> str | None:
        raise RuntimeError("secret: hunter2") from KeyError("the cause")

    @strawberry.field
    def refused(self) -> str | None:
        raise Refusal("there is no such server")

    @strawberry.field
    def foreign(self) -> str | None:
        raise ForeignCode("secret: the table's name")

    @strawberry.field
    def too_big(self) -> int | None:
        return 2**40

    @strawberry.field
    def required_but_refused(self) -> str:
        raise Refusal("there is no such server")

    @strawberry.field
    def rate(self, info: Info[Context, None]) -> Budgeted | None:
        budget = info.context.info.budget
        if budget is None:
            return None
        return Budgeted(limit=budget.limit, remaining=budget.remaining, cost=info.context.info.cost)

    @strawberry.field
    def me(self, info: Info[Context, None]) -> str:
        return info.context.identity.key

    @strawberry.field
    def request_id(self, info: Info[Context, None]) -> str:
        return info.context.info.request_id

    @strawberry.field
    def serial(self, info: Info[Context, None]) -> int:
        return info.context.serial


@strawberry.type
class Mutation:
    @strawberry.mutation
    def note(self, info: Info[Context, None], text: str) -> int:
        room_of(info).notes.append(text)
        return len(room_of(info).notes)

    @strawberry.mutation
    async def slow_note(self, info: Info[Context, None]) -> str:
        await room_of(info).gate.wait()
        return "noted"


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def count(self, to: int, after: int = 0) -> AsyncGenerator[int, None]:
        for each in range(after + 1, to + 1):
            yield each

    @strawberry.subscription
    async def forever(self, info: Info[Context, None]) -> AsyncGenerator[int, None]:
        room = room_of(info)
        room.open_streams += 1
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            room.open_streams -= 1

    @strawberry.subscription
    async def breaks(self) -> AsyncGenerator[int, None]:
        yield 1
        raise RuntimeError("secret: hunter2")

    @strawberry.subscription
    async def serials(self) -> AsyncGenerator[Server, None]:
        for _ in range(3):
            yield Server(name="x")

    @strawberry.subscription
    async def closed(self) -> AsyncGenerator[int, None]:
        if datetime.now(UTC).year:  # always; the function must be a generator
            raise Refusal("there is no such server")
        yield 1

    @strawberry.subscription
    async def ticks(self, info: Info[Context, None]) -> AsyncIterator[int]:
        room = room_of(info)
        yield 1
        await room.gate.wait()
        yield 2


def toy_schema(**more: Any) -> strawberry.Schema:
    """A fresh schema of the toy."""
    return strawberry.Schema(query=Query, mutation=Mutation, subscription=Subscription, **more)
