"""Runs compiled statements straight on the driver's connections, past SQLAlchemy, and answers with bytes.

SQLite: small reads, and those which an index bounds and which took less than a millisecond lately, run in the calling
thread on one connection, since a thread costs a tenth of a millisecond; others on a few threads with a connection each.
PostgreSQL: a few connections of psycopg in the event loop, read-only, each with its prepared statements. Whatever goes
wrong is :class:`NotRead`: the ordinary path then tells it in its own words.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import sqlalchemy as sa

from gateway.kernel.db import Database
from gateway.reads.errors import NotRead

_THREADS = 4
_STATEMENTS = 512
_CACHE_KIB = 16_384
_QUICK_S = 0.001
"""So long the event loop may wait for one statement; without a plan the executor keeps it busy for far longer."""
_FORGETTING = 0.9


class Reader(Protocol):
    """One database's connections for reading."""

    async def read(
        self, text: str, parameters: Sequence[Any], *, small: bool, bounded: bool = False
    ) -> Sequence[bytes | None]:
        """The one row of a statement, which reads little (``small``), or what an index bounds. Raises NotRead."""

    def close(self) -> None:
        """Drop all connections."""


def reader(db: Database, timeout_s: float) -> Reader:
    """The reader of a database; no statement of it runs longer than ``timeout_s``."""
    if db.sqlite:
        return SqliteReader(db.url)
    from gateway.reads.postgres import PostgresReader  # psycopg is only there where PostgreSQL is

    return PostgresReader(db.url, timeout_s)


class SqliteReader:
    """Connections to one file."""

    def __init__(self, url: sa.URL) -> None:
        self._path = url.database or ""
        self._own = threading.local()
        self._every: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="reads")
        self._usual: dict[str, float] = {}
        """The processor's seconds that a statement takes, as of late."""
        self.inline = 0
        """How many statements that are not small were run in the event loop's thread."""

    async def read(
        self, text: str, parameters: Sequence[Any], *, small: bool, bounded: bool = False
    ) -> Sequence[bytes | None]:
        """The one row of a statement. Raises NotRead."""
        try:
            if small:
                return self._row(self._connection(), text, parameters)
            if bounded and self._usual.get(text, _QUICK_S) < _QUICK_S:
                self.inline += 1
                return self._timed(self._connection(), text, parameters)
            running: list[sqlite3.Connection] = []

            def work() -> Sequence[bytes | None]:
                running.append(self._connection())
                return self._timed(running[0], text, parameters)

            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
            except asyncio.CancelledError:
                for each in running:
                    each.interrupt()
                raise
        except sqlite3.Error as error:
            raise NotRead(str(error)) from error

    def _timed(self, connection: sqlite3.Connection, text: str, parameters: Sequence[Any]) -> Sequence[bytes | None]:
        """As :meth:`_row`; remembers how long it took. A slow one counts for some time."""
        began = time.thread_time()
        found = self._row(connection, text, parameters)
        took = time.thread_time() - began
        if len(self._usual) >= _STATEMENTS:
            self._usual.clear()
        self._usual[text] = max(took, self._usual.get(text, 0.0) * _FORGETTING)
        return found

    @staticmethod
    def _row(connection: sqlite3.Connection, text: str, parameters: Sequence[Any]) -> Sequence[bytes | None]:
        found: tuple[bytes | None, ...] = connection.execute(text, parameters).fetchone()
        return found

    def _connection(self) -> sqlite3.Connection:
        """The calling thread's connection."""
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if found is None:
            found = sqlite3.connect(
                self._path, timeout=10, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS
            )
            found.text_factory = bytes
            found.create_function("stratograph_digest", 1, _digest, deterministic=True)
            for pragma in (
                "foreign_keys=ON", "busy_timeout=10000", f"cache_size=-{_CACHE_KIB}", "query_only=ON",
            ):  # fmt: skip
                found.execute(f"PRAGMA {pragma}")
            self._own.connection = found
            self._every.append(found)
        return found

    def close(self) -> None:
        """Drop all connections."""
        self._threads.shutdown()
        self._own = threading.local()
        while self._every:
            self._every.pop().close()


def _digest(text: bytes | str | None) -> str | None:
    return None if text is None else hashlib.sha256(text if isinstance(text, bytes) else text.encode()).hexdigest()
