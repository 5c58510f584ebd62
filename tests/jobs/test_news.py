"""What one process commits, another hears of at once; and what nobody told, or a slower transaction held back, is found
all the same. Here two Database objects on one PostgreSQL are the two processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from gateway.jobs import event as events
from gateway.jobs import job as jobs
from gateway.jobs import turn
from gateway.jobs.event import Cursor, Event
from gateway.jobs.job import Order
from gateway.kernel import news as kernel_news
from gateway.kernel import noun
from gateway.kernel.access import CLOUD
from gateway.kernel.db import Database
from gateway.kernel.news import tell_of_commits
from resolvers.kernel import feed as feeds
from resolvers.kernel.feed import Feed
from tests.jobs.queue import KIND, submit
from tests.jobs.told import singly
from tests.servers.daemon import wait_until
from tests.servers.postgres import PostgresServer

NEVER_S = 3_600.0


@pytest.fixture
def here(postgres_url: str) -> Iterator[Database]:
    """The process that has the feed."""
    noun.load_all()
    db = Database(postgres_url)
    SQLModel.metadata.create_all(db.engine)
    yield db
    db.close()


@pytest.fixture
def there(here: Database) -> Iterator[Database]:
    """The process that commits, and does not tell by itself."""
    db = Database(here.url.render_as_string(hide_password=False))
    yield db
    db.close()


@pytest.fixture
def telling(there: Database) -> Database:
    """The process that commits and tells."""
    tell_of_commits(there)
    return there


@asynccontextmanager
async def following(db: Database) -> AsyncIterator[tuple[Feed, Callable[[], Awaitable[Event]]]]:
    """A feed that hears, and a way to get the next event from it."""
    feed = Feed(db)
    feed.start()
    stream = singly(feed.stream(Cursor(0, 0)))
    coming = asyncio.ensure_future(anext(stream))
    try:
        await until(lambda: feed._ear.hears)

        async def one() -> Event:
            nonlocal coming
            found = await asyncio.wait_for(coming, 30)
            coming = asyncio.ensure_future(anext(stream))
            return found

        yield feed, one
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await feed.stop()


async def until(true: Callable[[], bool]) -> None:
    """Return once it holds."""
    await asyncio.to_thread(wait_until, true, 30, "it did not come to that")


def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a feed look only when it is told, or has seen that something is held back."""
    monkeypatch.setattr(feeds, "LOOK_SELDOM_S", NEVER_S)


@contextmanager
def writing(url: str) -> Iterator[sa.Connection]:
    """A transaction that has a number and stays open, and is then taken back."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_current_xact_id()"))
        yield connection
        connection.rollback()
    engine.dispose()


def test_what_others_commit_is_told(here: Database, telling: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the telling lets the feed look."""
    only_told(monkeypatch)

    async def follow() -> list[Event]:
        async with following(here) as (_, one):
            found = []
            for number in range(20):
                await asyncio.to_thread(submit, telling, f"r{number}")
                found.append(await one())
        return found

    found = asyncio.run(asyncio.wait_for(follow(), 60))
    assert [each.cursor for each in found] == sorted({each.cursor for each in found})
    with here.read() as session:
        assert [each.cursor for each in events.after(session, Cursor(0, 0), 50).events] == [
            each.cursor for each in found
        ]


def test_what_nobody_told_is_found(here: Database, there: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies between its commit and telling of it costs time, not the event."""
    monkeypatch.setattr(feeds, "LOOK_SELDOM_S", 0.2)

    async def follow() -> Event:
        async with following(here) as (_, one):
            await asyncio.to_thread(submit, there, "r")
            return await one()

    assert asyncio.run(asyncio.wait_for(follow(), 60)).kind == "job.created"


def test_what_was_held_back_comes_though_nobody_tells(
    here: Database, telling: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slower transaction ends without a commit: nobody tells, and what it held back is shown."""
    only_told(monkeypatch)
    url = here.url.render_as_string(hide_password=False)

    async def follow() -> Event:
        async with following(here) as (feed, one):
            with writing(url):
                await asyncio.to_thread(submit, telling, "r")
                await until(lambda: feed._held_back > 0)
                with here.read() as session:
                    assert events.after(session, Cursor(0, 0), 10) == events.Page([], waits=True)
            return await one()

    assert asyncio.run(asyncio.wait_for(follow(), 60)).kind == "job.created"


def test_only_transactions_of_this_database_hold_events_back(here: Database, postgres_server: PostgresServer) -> None:
    other = postgres_server.create_database()
    try:
        with writing(other), writing(other):
            submit(here, "a")
            with here.read() as session:
                page = events.after(session, Cursor(0, 0), 10)
                assert [each.kind for each in page.events] == ["job.created"]
                assert not page.waits
            with here.read() as session:
                assert events.newest(session) == page.events[0].cursor
            with writing(here.url.render_as_string(hide_password=False)):
                submit(here, "b")
                with here.read() as session:
                    assert events.after(session, page.events[0].cursor, 10) == events.Page([], waits=True)
                with here.read() as session:
                    assert events.newest(session) == page.events[0].cursor
            with here.read() as session:
                assert len(events.after(session, Cursor(0, 0), 10).events) == 2
    finally:
        postgres_server.drop_database(other)


def test_an_ear_that_lost_its_connection_listens_again(
    here: Database, telling: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_told(monkeypatch)
    monkeypatch.setattr(kernel_news, "AGAIN_S", 0.3)
    listening = sa.text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
                        " AND datname = current_database()")  # fmt: skip

    def cut() -> None:
        with telling.read() as session:
            assert session.execute(listening).scalar_one() == 1

    async def follow() -> list[str]:
        async with following(here) as (feed, one):
            await asyncio.to_thread(cut)
            await until(lambda: not feed._ear.hears)
            await until(lambda: feed._ear.hears)
            await asyncio.to_thread(submit, telling, "r")
            return [(await one()).kind]

    assert asyncio.run(asyncio.wait_for(follow(), 60)) == ["job.created"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_commits_without_events_are_not_announced(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else f"sqlite:///{tmp_path / 'a.db'}"
    db = Database(url)
    noun.load_all()
    SQLModel.metadata.create_all(db.engine)
    heard: list[int] = []
    db.announced.append(lambda: heard.append(1))
    db.run(lambda session: turn.take(session, "quiet", timedelta(minutes=1)))
    assert heard == []
    submit(db, "r")
    assert heard == [1]
    db.close()


def test_every_commit_with_events_is_told_after_it(here: Database, telling: Database) -> None:
    """And neither one without events, nor one that is taken back."""
    address = here.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as ear:
        ear.execute(f"LISTEN {kernel_news.CHANNEL}")
        telling.rehearse(lambda session: jobs.submit(session, CLOUD, Order(KIND, None)))
        telling.run(lambda session: turn.take(session, "quiet", timedelta(minutes=1)))
        submit(telling, "r1")
        assert [each.payload for each in ear.notifies(timeout=30, stop_after=1)] == [telling.token]
        with here.read() as session:
            assert len(events.after(session, Cursor(0, 0), 9).events) == 1
        submit(telling, "r2")
        kernel_news.tell(here)
        told = [each.payload for each in ear.notifies(timeout=30, stop_after=2)]
        assert told == [telling.token, here.token]
