"""Waiting for the log: PostgreSQL's tells an event when no older transaction is open, whichever database it is in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from sqlmodel import col, select

from gateway.jobs import event as events
from gateway.jobs.event import Event
from gateway.kernel.db import Database
from tests.servers.daemon import wait_until


def all_told(db: Database) -> None:
    """Return when nothing that is committed is held back: other tests share the server, and their transactions too."""

    def told() -> bool:
        with db.read() as session:
            place = select(Event.transaction, Event.id).order_by(col(Event.transaction).desc(), col(Event.id).desc())
            last = session.exec(place.limit(1)).first()
            return last is None or events.newest(session) == last

    wait_until(told, 30, "an older transaction stays open")


async def singly(stream: AsyncGenerator[list[Event], None]) -> AsyncGenerator[Event, None]:
    """The events of a feed's stream, one by one."""
    async with aclosing(stream) as found:
        async for together in found:
            for each in together:
                yield each
