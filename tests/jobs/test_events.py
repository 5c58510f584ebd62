"""The event log: whoever resumes from a cursor sees each event once and in order, however often the line breaks and
however slow other transactions are.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from gateway.jobs import event as events
from gateway.jobs import job as jobs
from gateway.jobs.event import Cursor
from gateway.jobs.job import Order
from gateway.kernel.access import CLOUD
from gateway.kernel.db import Database
from gateway.kernel.errors import Invalid
from resolvers.kernel import feed as feeds
from resolvers.kernel.feed import Feed
from tests.jobs.queue import BACKENDS, KIND, opened
from tests.jobs.told import all_told, singly

BREAKS = 1_000


@pytest.fixture(params=BACKENDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with opened(request, request.param, tmp_path) as found:
        yield found


def test_nothing_is_missed_or_doubled_over_a_thousand_breaks(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "BATCH", 3)  # so that a few events are several pages
    db.run(lambda session: [jobs.submit(session, CLOUD, Order(KIND, None, target=f"r{n}")) for n in range(BREAKS * 2)])
    chance = Random(1)  # noqa: S311 - chance, not secrets

    async def follow() -> list[Cursor]:
        feed = Feed(db)
        feed.start()
        seen: list[Cursor] = []
        after = Cursor(0, 0)
        for _ in range(BREAKS):
            stream = singly(feed.stream(after))
            for _ in range(chance.choice((1, 1, 2))):
                event = await asyncio.wait_for(anext(stream), 30)
                seen.append(event.cursor)
                after = Cursor.decode(event.cursor.encode())
            await stream.aclose()
        await feed.stop()
        return seen

    seen = asyncio.run(follow())
    assert seen == sorted(set(seen))
    with db.read() as session:
        everything = [each.cursor for each in events.after(session, Cursor(0, 0), 5_000).events]
    assert seen == everything[: len(seen)]
    assert len(seen) >= BREAKS


def test_a_slow_transaction_is_not_overtaken(db: Database) -> None:
    """Ids are handed out before commit: a reader that went by id alone would pass the slow ones by."""
    done = threading.Event()
    chance = Random(2)  # noqa: S311 - chance, not secrets
    pauses = [[chance.random() * 0.02 for _ in range(15)] for _ in range(4)]

    def write(number: int) -> None:
        for pause in pauses[number]:
            with db.write() as session:
                jobs.submit(session, CLOUD, Order("test.noted", None, target=f"slow-{number}"))
                if not db.sqlite:
                    time.sleep(pause)  # the transaction is slow: its event exists and nobody may see it

    seen: list[Cursor] = []

    def read() -> None:
        while True:
            last_look = done.is_set()
            with db.read() as session:
                found = events.after(session, seen[-1] if seen else Cursor(0, 0), 10).events
            seen.extend(each.cursor for each in found)
            if last_look and not found:
                return

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join(timeout=60)
    all_told(db)
    done.set()
    reader.join(timeout=60)
    assert not reader.is_alive()
    assert len(seen) == 60
    assert seen == sorted(set(seen))


def test_a_cursor_of_nobody_is_refused() -> None:
    for text in ("", "x", "ééé", "LTE6LTE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk6MQ"):
        with pytest.raises(Invalid):
            Cursor.decode(text)
