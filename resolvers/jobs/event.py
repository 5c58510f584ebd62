"""Events and pushed objects in the graph: the log from a cursor, and single objects as they change."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import strawberry
from pydantic import Field
from sqlmodel import Session
from strawberry.types import Info

from gateway.jobs import event as events
from gateway.jobs.event import Cursor
from gateway.kernel import errors, ids
from gateway.kernel import noun as nouns
from gateway.kernel.access import Need, Subject
from gateway.kernel.command import AnyId, Command
from gateway.kernel.noun import Noun
from gateway.kernel.typical import Typical
from resolvers.kernel import inputs
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Node, wrap
from resolvers.kernel.interests import Interest
from resolvers.kernel.roots import subscription
from resolvers.transport.audience import Contexts, Tail

AHEAD_S = 1.0
"""An object that was read for another event is shown for so long: as long as an answer is kept for who asks alike."""


class Together:
    """Entries that came together: when one's object is asked for, those of the others of its noun are read too, by the
    same statement. What was read for somebody is shown to them alone (:attr:`Context.sight`), and was read after all of
    these entries were committed: an object may be newer than its event, as ever, and is never older.
    """

    def __init__(self, entries: Sequence[events.Event]) -> None:
        self._entries = entries
        self._read: dict[Hashable, tuple[float, dict[UUID, Any]]] = {}

    async def object(self, context: Context, entry: events.Event) -> Any:
        """The row of an entry as this context may see it; None when it may not, or it is gone."""
        noun, uid, key = nouns.BY_PREFIX[entry.noun], entry.object_uid, (entry.noun, context.sight)
        until, rows = self._read.get(key, (0.0, {}))
        if uid in rows and time.monotonic() < until:
            return rows[uid]

        def load(session: Session, uids: Sequence[UUID]) -> dict[UUID, Any]:
            until = time.monotonic() + AHEAD_S
            wanted = list(dict.fromkeys([*uids, *self._uids(context.subject, entry)]))
            found = noun.find(session, context.subject, wanted)
            if not context.personal:
                self._read[key] = until, {uid: found.get(uid) for uid in wanted}
            return found

        return await context.batch(("event", noun.prefix), load, single=True).load(uid)

    def _uids(self, subject: Subject, entry: events.Event) -> Iterator[UUID]:
        """Of all objects of its noun that are to be told of to a subject."""
        return (
            each.object_uid
            for each in self._entries
            if each.noun == entry.noun and each.cursor > entry.cursor and events.visible(subject, each)
        )


@strawberry.type(description="One change of one object.")
class Event:
    """An entry of the event log."""

    entry: strawberry.Private[events.Event]
    together: strawberry.Private[Together]

    @property
    def shared(self) -> Hashable:
        """Its name among all that is pushed: who asks alike is shown it alike."""
        return ("event", self.entry.cursor)

    @property
    def place(self) -> Cursor:
        """How far somebody is who was told of it."""
        return self.entry.cursor

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
        return wrap(await self.together.object(info.context, self.entry))


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
    uid = ids.decode(wanted.object_id)[1] if wanted.object_id is not None else None  # type: ignore[attr-defined]  # parse answers with EventFilter
    kinds = frozenset(wanted.nouns) if wanted.nouns is not None else None  # type: ignore[attr-defined]  # parse answers with EventFilter
    feed, interest = context.services.feed, Interest(uid, kinds)
    place = Cursor.decode(after) if after is not None else await feed.newest()
    own = _alone(context)
    while context.together:
        end = await feed.newest()  # others may have come as far, though nothing that is wanted was on the way
        async for entries in feed.past(place, uid):
            together = Together(entries)
            for entry in entries:
                place = entry.cursor
                if await _told(entry, interest, own):
                    yield Event(entry=entry, together=together)
        place = max(place, end)
        tail = Tail(("events", kinds, uid), place, partial(_shared, feed, place, interest))
        yield tail
        place = tail.place
    async with aclosing(_live(feed, place, interest, own)) as live:
        async for event in live:
            yield event


async def _live(feed: Any, after: Cursor, interest: Interest, contexts: Contexts) -> AsyncGenerator[Event, None]:
    """What happens behind a cursor, as those may know it in whose name ``contexts`` are."""
    async with aclosing(feed.stream(after, interest)) as found:
        async for entries in found:
            together = Together(entries)
            for entry in entries:
                if await _told(entry, interest, contexts):
                    yield Event(entry=entry, together=together)


async def _shared(feed: Any, after: Cursor, interest: Interest, contexts: Contexts) -> AsyncGenerator[Event, None]:
    """As :func:`_live`, for an audience: whoever comes to read other tenants leaves it, so only theirs are met."""
    who = (await contexts()).subject
    met = interest if who.admin else replace(interest, tenants=frozenset(who.roles))
    async with aclosing(_live(feed, after, met, contexts)) as live:
        async for event in live:
            yield event


def _alone(context: Context) -> Contexts:
    """For one subscriber: its own context, with the roles of this moment."""

    async def now(within_s: float = 0.0) -> Context:
        del within_s  # it costs nothing to be newer
        context.subject = await context.now()
        return context

    return now


DOUBT_S = 1.0
"""Those who may not see an event are asked whether they may by now when they were not for so long."""


async def _told(entry: events.Event, interest: Interest, contexts: Contexts) -> bool:
    if not interest.wants(entry):
        return False
    if not events.visible((await contexts(DOUBT_S)).subject, entry):
        return False
    return events.visible((await contexts()).subject, entry)


def pushed(row: Any, name: Hashable) -> Any:
    """A row as one event found it: who asks alike is shown it alike."""
    shown = wrap(row)
    shown.shared, shown.place = (row.uid, row.version, name), row.version
    return shown


def personal(noun: Noun[Any], subject: Subject) -> bool:
    """Whether it depends on who somebody is, and not on roles alone, that they see a noun's rows."""
    anybody = Typical.of(subject)
    noun.scope(anybody)
    return anybody.asked


Done = Callable[[Any], bool]


async def changes(info: Info, noun: Noun[Any], public_id: str, done: Done | None = None) -> AsyncIterator[Any]:
    """An object now and after each change, until ``done(row)`` or it is gone. Raises NotFound for one that may not be
    seen.
    """
    context: Context = info.context
    thing = _Thing(context.services.feed, noun, public_id, done)
    cursor, row = await context.read(lambda session: thing.now(session, context.subject, "id"))
    yield wrap(row)  # as it is now, so for this subscriber alone
    version, own = row.version, _alone(context)
    while context.together and not thing.is_done(row):
        source = partial(thing.live, cursor, row.uid, version)
        tail = Tail((noun.prefix, row.uid), version, source, personal=personal(noun, context.subject))
        yield tail
        version = tail.place
        await own()
        try:
            cursor, row = await context.read(lambda session: thing.now(session, context.subject))
        except errors.NotFound:
            return
        if row.version > version:
            version = row.version
            yield pushed(row, cursor)
    if not thing.is_done(row):
        async with aclosing(thing.live(cursor, row.uid, version, own)) as live:
            async for each in live:
                yield each


@dataclass(frozen=True, slots=True)
class _Thing:
    """One object that somebody follows."""

    feed: Any
    noun: Noun[Any]
    public_id: str
    done: Done | None

    def now(self, session: Session, subject: Subject, *path: str) -> tuple[Cursor, Any]:
        """A place in the log, and the object at that place or a little later. Raises NotFound."""
        return events.newest(session), self.noun.get(session, subject, self.public_id, *path)

    async def live(self, after: Cursor, uid: UUID, version: int, contexts: Contexts) -> AsyncGenerator[Any, None]:
        """Its changes behind a cursor and a version, as those see it in whose name ``contexts`` are."""
        async with aclosing(self.feed.stream(after, Interest(uid))) as found:
            async for entries in found:  # of one object: all of them are told of by what it is behind the last
                context = await contexts()
                try:
                    row = await context.read(partial(self._seen_by, context.subject))
                except errors.NotFound:
                    return
                if row.version > version:
                    version = row.version
                    yield pushed(row, entries[-1].cursor)
                    if self.is_done(row):
                        return

    def is_done(self, row: Any) -> bool:
        """Whether nothing more will happen to it."""
        return self.done is not None and self.done(row)

    def _seen_by(self, subject: Subject, session: Session) -> Any:
        return self.noun.get(session, subject, self.public_id)
