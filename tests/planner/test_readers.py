"""The connections beneath plans: nothing is written through them, what breaks is left to the executor, and a request
that is given up gives its statement up, too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gateway.reads.errors import NotRead
from gateway.reads.reader import Reader, SqliteReader, reader
from tests.planner.two_ways import TwoWays

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
DEADLINE_SECONDS = 20


def run(ways: TwoWays, work: Callable[[Reader], Awaitable[Any]]) -> Any:
    """Do something with a reader of the cloud's database."""

    async def whole() -> Any:
        made = reader(ways.db, DEADLINE_SECONDS)
        try:
            return await work(made)
        finally:
            made.close()
            await asyncio.sleep(0)

    return asyncio.run(whole())


def test_bytes_come_back_as_they_are(ways: TwoWays) -> None:
    async def work(made: Reader) -> Any:
        return await made.read("SELECT 'é' || 'x', NULL", (), small=True)

    assert run(ways, work) == ["éx".encode(), None] or run(ways, work) == ("éx".encode(), None)


@pytest.mark.parametrize("small", [True, False])
def test_nothing_is_written(ways: TwoWays, *, small: bool) -> None:
    async def work(made: Reader) -> None:
        with pytest.raises(NotRead, match="read"):
            await made.read("DELETE FROM server RETURNING 1", (), small=small)

    run(ways, work)


def test_a_statement_that_is_given_up_ends(ways: TwoWays) -> None:
    async def work(made: Reader) -> None:
        for _ in range(10):  # more than there are connections and threads
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await made.read(ENDLESS, (), small=False)
        assert await made.read("SELECT '1'", (), small=False)

    run(ways, work)
    if ways.db.sqlite:
        return
    running = sa.text("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'WITH RECURSIVE n%'")
    end = time.monotonic() + DEADLINE_SECONDS / 2
    with ways.db.engine.connect() as connection:
        while connection.execute(running).scalar_one():
            assert time.monotonic() < end, "it still runs"
            connection.rollback()


def test_a_cut_connection_is_replaced(ways: TwoWays) -> None:
    if ways.db.sqlite:
        ways.planned("admin", "{ flavors { nodes { name } } }")
        return
    for _ in range(2):
        ways.planned("admin", "{ flavors { nodes { name } } }")
        with ways.db.engine.begin() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            connection.execute(sa.text(f"{others} AND pid <> pg_backend_pid() AND query LIKE '%flavor AS t%'"))
        ways.same("admin", "{ flavors { nodes { name } } }")
        ways.planned("admin", "{ flavors { nodes { name } } }")


def test_many_at_once_share_few_connections(ways: TwoWays) -> None:
    async def work(made: Reader) -> list[Any]:
        asked = (made.read(f"SELECT '{number}'", (), small=False) for number in range(100))
        return [(each[0] or b"").decode() for each in await asyncio.gather(*asked)]

    assert run(ways, work) == [str(number) for number in range(100)]


def test_sqlite_is_closed(ways: TwoWays) -> None:
    made = reader(ways.db, DEADLINE_SECONDS)
    if isinstance(made, SqliteReader):
        asyncio.run(made.read("SELECT 1", (), small=True))
        made.close()
        assert asyncio.run(made.read("SELECT '1'", (), small=True)) == (b"1",)
    made.close()


def test_only_what_an_index_bounds_and_was_quick_holds_the_loop(tmp_path: Path) -> None:
    made = SqliteReader(sa.make_url(f"sqlite:///{tmp_path}/one.db"))

    async def looped(text: str, *, bounded: bool) -> bool:
        """Whether it was read in the loop's own thread."""
        before = made.inline
        await made.read(text, (), small=False, bounded=bounded)
        return made.inline > before

    async def work() -> list[bool]:
        slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT count(*) FROM n"
        asked = [("SELECT '1'", True), ("SELECT '1'", True), ("SELECT '1'", False), (slow, True), (slow, True)]
        return [await looped(text, bounded=bounded) for text, bounded in asked]

    try:
        assert asyncio.run(work()) == [False, True, False, False, False]
    finally:
        made.close()
