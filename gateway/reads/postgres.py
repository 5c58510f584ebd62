"""PostgreSQL's connections for reading: libpq itself, by psycopg's wrapper, in the event loop.

psycopg's cursors adapt values, types and rows for every use; a plan needs none of that: its parameters are texts, its
answer is one row of texts. Over libpq a small read costs a sixth of what it costs over a cursor (measured, 32 against
190 microseconds). Connections are read-only, keep their statements prepared, and are used last in, first out, so that
a quiet process keeps few of them warm.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from gateway.reads.errors import NotRead

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

_CONNECTIONS = 8
_STATEMENTS = 256

_TEXTS: dict[type[Any], Callable[[Any], bytes]] = {
    bool: lambda value: b"t" if value else b"f",
    int: lambda value: b"%d" % value,
    float: lambda value: repr(value).encode(),
    str: str.encode,
    UUID: lambda value: value.hex.encode(),
    datetime: lambda value: value.isoformat().encode(),
}


class PostgresReader:
    """A few connections of one event loop; made when first needed."""

    def __init__(self, url: sa.URL, timeout_s: float) -> None:
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        told = {
            "default_transaction_read_only": "on", "statement_timeout": int(timeout_s * 1000), "jit": "off",
            "client_encoding": "UTF8",
        }  # fmt: skip
        self._options = " ".join(f"-c {name}={value}" for name, value in told.items())
        self._idle: deque[Connection] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = asyncio.Semaphore(_CONNECTIONS)

    async def read(
        self,
        text: str,
        parameters: Sequence[Any],
        *,
        small: bool,  # noqa: ARG002 - the event loop waits for either
        bounded: bool = False,  # noqa: ARG002 - as above
    ) -> Sequence[bytes | None]:
        """The one row of a statement. Raises NotRead."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._idle, self._room = loop, deque(), asyncio.Semaphore(_CONNECTIONS)
        values = [_text(value) for value in parameters]
        async with self._room:
            warm = self._warm()
            connection = warm or await self._connect(loop)
            try:
                result = await connection.run(text, values)
            except NotRead:
                connection.drop()
                if warm is None or not connection.cut:
                    raise
                connection, result = await self._once_more(loop, text, values)
            except BaseException:
                connection.drop()
                raise
            self._idle.append(connection)
        return [result.get_value(0, number) for number in range(result.nfields)]

    async def _once_more(
        self, loop: asyncio.AbstractEventLoop, text: str, values: list[bytes | None]
    ) -> tuple[Connection, PGresult]:
        """On a new connection, after a kept one turned out to be cut: reading again does no harm."""
        connection = await self._connect(loop)
        try:
            return connection, await connection.run(text, values)
        except BaseException:
            connection.drop()
            raise

    def _warm(self) -> Connection | None:
        while self._idle:
            found = self._idle.pop()
            if not found.lost:
                return found
        return None

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> Connection:
        import psycopg

        try:
            made = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True, options=self._options)
        except psycopg.Error as error:
            raise NotRead(str(error)) from error
        return Connection(made, loop)

    def close(self) -> None:
        """Drop all idle connections; may be called from any thread."""
        idle, self._idle = self._idle, deque()

        def drop() -> None:
            for each in idle:
                each.drop()

        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(drop)
        else:
            drop()


class Connection:
    """One connection: one statement at a time."""

    def __init__(self, made: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._made = made  # keeps libpq's connection open
        self._pq: PGconn = made.pgconn
        self._loop = loop
        self._socket = self._pq.socket
        self._pq.nonblocking = 1
        self._waiting: asyncio.Future[PGresult | None] | None = None
        self._result: PGresult | None = None
        self._names: OrderedDict[str, bytes] = OrderedDict()
        self._count = 0
        self.lost = False
        self.cut = False
        """Whether the other side ended it."""
        loop.add_reader(self._socket, self._readable)

    async def run(self, text: str, values: list[bytes | None]) -> PGresult:
        """The result of a statement, which has one row. Raises NotRead."""
        name = self._names.get(text) or await self._prepared(text)
        result = await self._sent(lambda: self._pq.send_query_prepared(name, values))
        if result is None or result.ntuples != 1:
            raise NotRead("there is no row" if result is None else _told(result))
        return result

    async def _prepared(self, text: str) -> bytes:
        from psycopg.pq import ExecStatus

        if len(self._names) >= _STATEMENTS:
            _, old = self._names.popitem(last=False)
            await self._sent(lambda: self._pq.send_query(b"DEALLOCATE " + old))
        self._count += 1
        name = b"read_%d" % self._count
        result = await self._sent(lambda: self._pq.send_prepare(name, text.encode()))
        if result is None or result.status != ExecStatus.COMMAND_OK:
            raise NotRead("not prepared" if result is None else _told(result))
        self._names[text] = name
        return name

    async def _sent(self, send: Callable[[], None]) -> PGresult | None:
        import psycopg

        self._result = None
        self._waiting = self._loop.create_future()
        try:
            send()
            if self._pq.flush():
                self._loop.add_writer(self._socket, self._writable)
            return await self._waiting
        except psycopg.Error as error:
            raise NotRead(str(error)) from error
        except asyncio.CancelledError:
            cancel = self._pq.get_cancel()
            self._loop.run_in_executor(None, _quietly, cancel.cancel)  # opens a connection of its own
            raise
        finally:
            self._waiting = None

    def _writable(self) -> None:
        try:
            left = self._pq.flush()
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is of no use any more
            self._failed(error)
            return
        if not left:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            self._pq.consume_input()
            while not self._pq.is_busy():
                result = self._pq.get_result()
                if result is None:
                    break
                self._result = result
            else:
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is of no use any more
            self._failed(error)
            return
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(self._result)

    def _failed(self, error: Exception) -> None:
        self.lost = self.cut = True
        self._unwatch()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(NotRead(str(error)))

    def _unwatch(self) -> None:
        with suppress(Exception):
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)

    def drop(self) -> None:
        """Close it."""
        self.lost = True
        self._unwatch()
        self._pq.finish()


def _text(value: Any) -> bytes | None:
    if value is None:
        return None
    kind = type(value)
    write = _TEXTS.get(kind) or next((each for base, each in _TEXTS.items() if issubclass(kind, base)), None)
    if write is None:
        raise NotRead(f"no text for {kind.__name__}")
    return write(value)


def _told(result: PGresult) -> str:
    return (result.error_message or b"no row").decode(errors="replace")


def _quietly(call: Callable[[], None]) -> None:
    with suppress(Exception):
        call()
