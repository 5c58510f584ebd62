"""Prepared statements on a connection of psycopg, over libpq itself.

A cursor of psycopg sends a statement through generators that wait for the socket from Python; libpq's own call does
the same in one piece with the interpreter let go, for a third of the CPU and half of the time (measured, a read of one
row: 59 against 22 microseconds of CPU). Values are still adapted by psycopg's own code. Statements are prepared at
their first use and stay so; one that has not been used for long gives way. What is sent is part of the connection's
transaction, which it begins like a cursor would, and errors are those that psycopg raises.

It deliberately does little: one result, of rows or a count; no names of columns, no server-side cursors, no COPY.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import psycopg
from psycopg import errors
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

_STATEMENTS = 256
_NUMBERED: Any = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy's


def numbered() -> Any:
    """SQLAlchemy's dialect with parameters as libpq numbers them."""
    return _NUMBERED


class Straight:
    """The statements of one connection."""

    def __init__(self, made: psycopg.Connection[Any]) -> None:
        self._made = made
        self._libpq = made.pgconn
        self._transformer: Any = Transformer(made)
        self._names: OrderedDict[str, bytes] = OrderedDict()
        self._count = 0
        # After each rollback psycopg would have the server forget all statements, ours too, in case a table was made
        # and taken back. PostgreSQL itself plans a statement anew when what it is about has changed.
        made._prepared.clear = _nothing  # type: ignore[method-assign]  # noqa: SLF001 - there is no public way

    @classmethod
    def of(cls, connection: Any) -> Straight:
        """That of a connection of SQLAlchemy's pool, for as long as it lives."""
        info = connection.info
        found: Straight | None = info.get("straight")
        if found is None:
            found = info["straight"] = cls(connection.driver_connection)
        return found

    def run(self, text: str, values: Sequence[Any]) -> Answer:
        """Carry a statement out. Raises psycopg.Error."""
        libpq = self._libpq
        if libpq.transaction_status == TransactionStatus.IDLE and not self._made.autocommit:
            self._good(libpq.exec_(self._made._get_tx_start_command()))  # noqa: SLF001 - as a cursor would begin
        name = self._names.get(text)
        if name is None:
            name = self._prepared(text)
        else:
            self._names.move_to_end(text)
        given = self._transformer.dump_sequence(values, list(repeat(PyFormat.TEXT, len(values))))
        return Answer(self._good(libpq.exec_prepared(name, given)), self._transformer)

    def _prepared(self, text: str) -> bytes:
        if len(self._names) >= _STATEMENTS:
            _, old = self._names.popitem(last=False)
            self._good(self._libpq.exec_(b"DEALLOCATE " + old))
        self._count += 1
        name = b"straight_%d" % self._count
        self._good(self._libpq.prepare(name, text.encode()))
        self._names[text] = name
        return name

    def _good(self, result: Any) -> Any:
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            return result
        if self._libpq.status == ConnStatus.BAD:
            raise psycopg.OperationalError(result.get_error_message())
        raise errors.error_from_result(result)


def _nothing() -> bool:
    """Nothing is forgotten."""
    return False


class Answer:
    """What came of a statement, with as much of a cursor as is needed; to be read before the connection's next one."""

    __slots__ = ("_result", "_transformer")

    def __init__(self, result: Any, transformer: Any) -> None:
        self._result = result
        self._transformer = transformer

    @property
    def rowcount(self) -> int:
        """How many rows were changed or found."""
        found: int | None = self._result.command_tuples
        return found or 0

    @property
    def description(self) -> list[tuple[None, int]]:
        """Of each column, what the database calls its type, in the second place."""
        return [(None, self._result.ftype(at)) for at in range(self._result.nfields)]

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row."""
        if not self._result.ntuples:
            return None
        self._transformer.set_pgresult(self._result)
        found: tuple[Any, ...] = self._transformer.load_row(0, tuple)
        return found

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows."""
        self._transformer.set_pgresult(self._result)
        found: list[tuple[Any, ...]] = self._transformer.load_rows(0, self._result.ntuples, tuple)
        return found
