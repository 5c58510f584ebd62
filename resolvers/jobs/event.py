"""Events and pushed objects in the graph: the log from a cursor, and single objects as they change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import strawberry
from pydantic import Field
from strawberry.types import Info

from gateway.jobs import event as events
from gateway.jobs.event import Cursor
from gateway.kernel import errors, ids
from gateway.kernel import noun as nouns
from gateway.kernel.access import Need
from gateway.kernel.command import AnyId, Command
from gateway.kernel.noun import Noun
from resolvers.kernel import inputs
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Node, wrap
from resolvers.kernel.roots import subscription


@strawberry.type(description="One change of one object.")
class Event:
    """An entry of the event log."""

    entry: strawberry.Private[events.Event]

    @property
    def shared(self) -> Hashable:
        """Its name among all that is pushed: who asks alike is shown it alike."""
        return ("event", self.entry.cursor)

    @strawberry.field(description="The place behind this event: give it as `after` to go on from here.")
    def cursor(self) -> str:
        """The cursor."""
        return self.entry.cursor.encode()

    @strawberry.field(description="When.")
    def at(self) -> datetime:
        """The moment."""
        return self.entry.at

    @strawberry.field(description="What happened, such as `server.created`, `server.changed`, `server.deleted`.")
    def kind(self) -> str:
        """The kind."""
        return self.entry.kind

    @strawberry.field(description="What it happened to; may be gone by now.")
    def object_id(self) -> strawberry.ID:
        """The TypeID."""
        return strawberry.ID(ids.encode(self.entry.noun, self.entry.object_uid))

    @strawberry.field(description="The object's version after it.")
    def version(self) -> int:
        """The version."""
        return self.entry.version

    @strawberry.field(description="The names of what changed, as the cloud keeps them; empty when made or deleted.")
    def changed(self) -> list[str]:
        """The names."""
        return list(self.entry.changed)

    @strawberry.field(graphql_type=Node | None, description="The object as it is now; null when it is gone.")
    async def object(self, info: Info) -> Any:
        """The object."""
        context: Context = info.context
        noun = nouns.BY_PREFIX[self.entry.noun]
        found = await context.batch(
            ("event", noun.prefix), lambda session, uids: noun.find(session, context.subject, uids)
        ).load(self.entry.object_uid)
        return wrap(found)


class EventFilter(Command):
    """Which events."""

    nouns: list[str] | None = Field(
        default=None, max_length=50, description="Of these kinds of objects, such as `server` or `job`."
    )
    object_id: AnyId | None = Field(default=None, description="Of this object.")


@subscription(
    Need.SIGNED_IN,
    "Everything that changes in your tenants, from a cursor on (by default from now on). A client that reconnects with "
    "the last cursor it saw misses nothing; events are kept for seven days.",
    name="events", shown_as=Event,
)  # fmt: skip
async def all_events(
    info: Info,
    after: Annotated[str | None, strawberry.argument(description="Behind this cursor.")] = None,
    filter: Annotated[  # noqa: A002 - the argument's public name
        inputs.input_type(EventFilter, "EventFilter") | None, strawberry.argument(description="Only these.")
    ] = None,
) -> AsyncIterator[Any]:
    """The log, pushed."""
    context: Context = info.context
    wanted = inputs.command_of(EventFilter, filter) if filter else EventFilter()
    cursor = Cursor.decode(after) if after is not None else None
    uid = ids.decode(wanted.object_id)[1] if wanted.object_id is not None else None  # type: ignore[attr-defined]  # parse answers with EventFilter
    kinds = set(wanted.nouns) if wanted.nouns is not None else None  # type: ignore[attr-defined]  # parse answers with EventFilter
    async for entry in context.services.feed.stream(cursor, uid):
        if (kinds is None or entry.noun in kinds) and events.visible(await context.now(), entry):
            yield Event(entry=entry)


def pushed(row: Any, entry: events.Event) -> Any:
    """A row as the event found it: who asks alike is shown it alike."""
    shown = wrap(row)
    shown.shared = (entry.cursor, row.version)
    return shown


async def _look(context: Context, noun: Noun[Any], public_id: str) -> Any:
    subject = context.subject
    return await context.read(lambda session: noun.get(session, subject, public_id))


async def changes(info: Info, noun: Noun[Any], public_id: str, done: Any = None) -> AsyncIterator[Any]:
    """An object now and after each change, until ``done(row)`` or it is gone. Raises NotFound for one that may not be
    seen.
    """
    context: Context = info.context
    cursor = await context.read(events.newest)
    row = await context.read(lambda session: noun.get(session, context.subject, public_id, "id"))
    yield wrap(row)  # as it is now, so for this subscriber alone
    version = row.version
    if done is not None and done(row):
        return
    async for entry in context.services.feed.stream(cursor, row.uid):
        context.subject = await context.now()
        try:
            row = await context.services.feed.once.get(
                (entry.cursor, context.viewer), partial(_look, context, noun, public_id)
            )
        except errors.NotFound:
            return
        if row.version > version:
            version = row.version
            yield pushed(row, entry)
            if done is not None and done(row):
                return
