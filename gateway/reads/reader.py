"""Runs compiled statements straight on the driver's connections, past SQLAlchemy, and answers with bytes.

SQLite: small reads run in the calling thread on one connection, since a thread costs as much as the read; others on a
few threads with a connection each. PostgreSQL: a few connections of psycopg in the event loop, read-only, each with its
prepared statements. Whatever goes wrong is :class:`NotRead`: the ordinary path then tells it in its own words.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import sqlalchemy as sa
import structlog

from gateway.kernel import ids
from gateway.kernel.db import Database

_THREADS = 4
_CONNECTIONS = 8
_STATEMENTS = 512
_CACHE_KIB = 16_384
_MAPPED_BYTES = 268_435_456

log = structlog.get_logger(__name__)


class NotRead(Exception):  # noqa: N818 - an event: the executor shall answer
    """The statement could not be run."""


class Reader(Protocol):
    """One database's connections for reading."""

    async def read(self, text: str, parameters: Sequence[Any], *, small: bool) -> Sequence[bytes | None]:
        """The one row of a statement. Raises NotRead."""

    def close(self) -> None:
        """Drop all connections."""


def reader(db: Database, timeout_s: float) -> Reader:
    """The reader of a database; no statement of it runs longer than ``timeout_s``."""
    return SqliteReader(db.url) if db.sqlite else PostgresReader(db.url, timeout_s)


class SqliteReader:
    """Connections to one file."""

    def __init__(self, url: sa.URL) -> None:
        self._path = url.database or ""
        self._own = threading.local()
        self._every: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="reads")

    async def read(self, text: str, parameters: Sequence[Any], *, small: bool) -> Sequence[bytes | None]:
        """The one row of a statement. Raises NotRead."""
        try:
            if small:
                return self._row(self._connection(), text, parameters)
            running: list[sqlite3.Connection] = []

            def work() -> Sequence[bytes | None]:
                running.append(self._connection())
                return self._row(running[0], text, parameters)

            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
            except asyncio.CancelledError:
                for each in running:
                    each.interrupt()
                raise
        except sqlite3.Error as error:
            raise NotRead(str(error)) from error

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
            found.create_function("stratograph_typeid", 2, _typeid, deterministic=True)
            for pragma in (
                "foreign_keys=ON", "busy_timeout=10000", f"cache_size=-{_CACHE_KIB}", f"mmap_size={_MAPPED_BYTES}",
                "query_only=ON",
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


def _typeid(prefix: bytes | str, uid: bytes | str) -> str:
    plain = (each if isinstance(each, str) else each.decode() for each in (prefix, uid))
    return ids.encode_hex(*plain)


class PostgresReader:
    """Connections in the running event loop, last used first, so that a quiet process keeps few of them busy."""

    def __init__(self, url: sa.URL, timeout_s: float) -> None:
        import psycopg

        self._error: type[Exception] = psycopg.Error
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        milliseconds = int(timeout_s * 1000)
        told = {"default_transaction_read_only": "on", "statement_timeout": milliseconds, "jit": "off"}
        self._options = " ".join(f"-c {name}={value}" for name, value in {**told, "client_encoding": "UTF8"}.items())
        self._idle: deque[Any] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = asyncio.Semaphore(_CONNECTIONS)

    async def read(self, text: str, parameters: Sequence[Any], *, small: bool) -> Sequence[bytes | None]:  # noqa: ARG002 - the event loop waits for either
        """The one row of a statement. Raises NotRead."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._idle, self._room = loop, deque(), asyncio.Semaphore(_CONNECTIONS)
        async with self._room:
            connection = self._idle.pop() if self._idle else None
            fresh = connection is None
            try:
                if connection is None:
                    connection = await self._connect()
                result = (await connection.execute(text, parameters, prepare=True)).pgresult
            except self._error as error:
                if connection is not None:
                    await connection.close()
                if fresh:
                    raise NotRead(str(error)) from error
                self._idle.clear()  # the others are likely as old as this one
                raise NotRead(str(error)) from error
            except BaseException:
                if connection is not None:
                    await connection.close()
                raise
            self._idle.append(connection)
        if result is None or result.ntuples != 1:
            raise NotRead("no row")
        return [result.get_value(0, number) for number in range(result.nfields)]

    async def _connect(self) -> Any:
        import psycopg

        connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, options=self._options, cursor_factory=psycopg.AsyncRawCursor
        )
        connection.prepared_max = _STATEMENTS
        return connection

    def close(self) -> None:
        """Drop all connections."""
        while self._idle:
            self._idle.pop().pgconn.finish()
