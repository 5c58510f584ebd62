"""The feed: the event log, pushed. One reader per process, however many subscribers.

It is woken by this process's own commits, and on PostgreSQL by what others tell (gateway/kernel/news.py); beside that
it looks now and then, in case nobody told. Events that a slower transaction holds back are looked for again soon, since
nobody tells when it ends. With no subscriber it does nothing. Each subscriber gets the events of the objects it asked
for; one that falls too far behind is sent back to the log itself, so a slow client costs bounded memory and misses
nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from gateway.jobs import event as events
from gateway.jobs.event import Cursor, Event, Page
from gateway.kernel.db import Database
from gateway.kernel.news import Ear
from resolvers.kernel.context import on_thread
from resolvers.kernel.interests import Interest, Interests

BATCH = 500
LOOK_EVERY_S = 0.1
"""How often it looks where others cannot tell: on SQLite, and while there is nothing that hears them."""
LOOK_SELDOM_S = 1.0
"""How often it looks although others tell: somebody may have died between a commit and telling of it."""
LOOK_AGAIN_S = 0.005
"""How soon it looks for events that are held back; twice as late each further time, up to LOOK_EVERY_S."""
LOOKING = 0.2
"""The share of the time that may be spent on looks at the log."""
LOOK_APART_S = (0.01, 0.02)
"""So far apart they are at least, and at most: longer where the machine is busy, and a look takes long."""
AHEAD = 4
"""So many looks may come early: the few commits of a quick job are told at once each, those of many jobs together."""
MOST_WAITING = 5_000
TOGETHER = 16
"""So many events at most are handed over at once."""

EVERYTHING = Interest()

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Subscriber:
    """Somebody who waits for events."""

    waiting: deque[Event] = field(default_factory=deque)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    overflown: bool = False

    def put(self, event: Event) -> None:
        """Hand an event over."""
        if len(self.waiting) >= MOST_WAITING:
            self.waiting.clear()
            self.overflown = True
        if not self.overflown:
            self.waiting.append(event)
        self.ready.set()

    def take(self, last: Cursor) -> list[Event]:
        """The next of those that wait behind ``last``, up to TOGETHER of them; none when nothing waits."""
        found: list[Event] = []
        while self.waiting and len(found) < TOGETHER:
            event = self.waiting.popleft()
            if event.cursor > last:
                found.append(event)
        return found


class Feed:
    """Reads the log once and hands events out."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._subscribers: Interests[Subscriber] = Interests()
        self._wake = asyncio.Event()
        self._cursor: Cursor | None = None
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ear = Ear(db, self._wake.set)
        self._listening: asyncio.Task[None] | None = None
        self._held_back = 0
        """How often in a row the last look ended before events that a slower transaction holds back."""

    def start(self) -> None:
        """Begin, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._db.announced.append(self._committed)
        self._task = asyncio.create_task(self._run(), name="feed")
        self._listening = asyncio.create_task(self._ear.listen(), name="ear")

    async def stop(self) -> None:
        """End."""
        with suppress(ValueError):
            self._db.announced.remove(self._committed)
        for task in (self._task, self._listening):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def stream(self, after: Cursor | None, interest: Interest = EVERYTHING) -> AsyncGenerator[list[Event], None]:
        """Events behind a cursor (None: from now on), in the log's order, without end: each time as many as are there,
        up to TOGETHER. What is there already comes whatever its noun and tenant.
        """
        subscriber, object_uid = Subscriber(), interest.object_uid
        self._subscribers.add(subscriber, interest)
        self._wake.set()
        try:
            if after is None:
                after = await self.newest()
            last = after
            async for logged in self.past(last, object_uid):
                last = logged[-1].cursor
                yield logged
            while True:
                if subscriber.overflown:
                    subscriber.overflown = False
                    async for logged in self.past(last, object_uid):
                        last = logged[-1].cursor
                        yield logged
                while some := subscriber.take(last):
                    last = some[-1].cursor
                    yield some
                subscriber.ready.clear()
                if not subscriber.waiting and not subscriber.overflown:
                    await subscriber.ready.wait()
        finally:
            self._subscribers.discard(subscriber)

    async def newest(self) -> Cursor:
        """The place behind all events so far."""

        def read() -> Cursor:
            with self._db.read() as session:
                return events.newest(session)

        return await on_thread(read)

    async def past(self, cursor: Cursor, object_uid: UUID | None = None) -> AsyncGenerator[list[Event], None]:
        """What the log has behind a cursor, until there is no more; up to TOGETHER of it each time."""
        while True:
            found = (await on_thread(self._reader(cursor, object_uid))).events
            for start in range(0, len(found), TOGETHER):
                yield found[start : start + TOGETHER]
            if len(found) < BATCH:
                return
            cursor = found[-1].cursor

    # ------------------------------------------------------------------------------------------ inside

    def _reader(self, cursor: Cursor, object_uid: UUID | None = None) -> Callable[[], Page]:
        def read() -> Page:
            with self._db.read() as session:
                return events.after(session, cursor, BATCH, object_uid)

        return read

    def _committed(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closing
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _run(self) -> None:
        least_s, most_s = LOOK_APART_S
        used_until, apart_s = 0.0, least_s
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._patience_s)
            await asyncio.sleep(max(0.0, used_until - AHEAD * apart_s - time.monotonic()))
            self._wake.clear()
            began = time.monotonic()
            try:
                await self._look()
            except Exception:
                log.exception("the event log could not be read")
                await asyncio.sleep(1.0)
            apart_s = min(max((time.monotonic() - began) / LOOKING, least_s), most_s)
            used_until = max(used_until, began) + apart_s

    @property
    def _patience_s(self) -> float | None:
        """How long to wait for a reason to look."""
        if not self._subscribers:
            return None
        if self._held_back:
            return min(LOOK_AGAIN_S * 2.0 ** (self._held_back - 1), LOOK_EVERY_S)
        return LOOK_SELDOM_S if self._ear.hears else LOOK_EVERY_S

    async def _look(self) -> None:
        if not self._subscribers:
            self._cursor = None
            return
        if self._cursor is None:
            self._cursor = await self.newest()
            # Those who came before this moment look at the log themselves for what they may have missed.
            for subscriber in self._subscribers:
                subscriber.overflown = True
                subscriber.ready.set()
        here = self._db.sqlite  # a look takes less there than handing it to a thread would, and waits for nobody
        while True:
            look = self._reader(self._cursor)
            found, held_back = look() if here else await on_thread(look)
            here = False  # who finds so much that there is more must not keep the loop from all others
            for event in found:
                for subscriber in self._subscribers.of(event):
                    subscriber.put(event)
            if found:
                self._cursor = found[-1].cursor
            if len(found) < BATCH:
                self._held_back = min(self._held_back + 1, 10) if held_back else 0
                return
