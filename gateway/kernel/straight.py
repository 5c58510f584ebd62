"""A connection to PostgreSQL whose prepared statements go over libpq itself, several at a time where that is possible.

A cursor of psycopg sends a statement through generators that wait for the socket from Python; libpq's own call does
the same in one piece with the interpreter let go, for a third of the CPU and half of the time (measured, a read of one
row: 59 against 22 microseconds of CPU). Values are still adapted by psycopg's own code. Statements are prepared at
their first use and stay so; one that has not been used for long gives way. Errors are those that psycopg raises.

Every wait for the server costs both sides a change of process, more than most statements. So what nobody waits for is
**owed**: it is sent with the next statement, in order, or with the COMMIT (libpq's pipeline mode). A BEGIN goes along
with the first statement, what is to follow a commit along with the COMMIT. Invariant: whatever else is sent over this
connection, by a cursor too, comes after what is owed; a commit happens only when all of it succeeded; a rollback drops
it. An error of something owed is raised by whatever it went along with.

It deliberately does little: one result, of rows or a count; no names of columns, no server-side cursors, no COPY.
"""

from __future__ import annotations

import select
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from itertools import repeat
from typing import Any, NamedTuple

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


class _Statement(NamedTuple):
    """One to send. ``strict``: a division by zero says that the row was changed by somebody else."""

    name: bytes
    given: Sequence[Any]
    text: str
    strict: bool = False


class Straight(psycopg.Connection[Any]):
    """See the module. Like every connection of psycopg that is in use it is one thread's at a time."""

    def __init__(self, pgconn: Any, row_factory: Any = psycopg.rows.tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self._transformer: Any = None
        self._names: OrderedDict[str, bytes] = OrderedDict()
        self._count = 0
        self._owed: list[_Statement] = []
        self._after: _Statement | None = None
        self._poll = select.poll()
        # After each rollback psycopg would have the server forget all statements, ours too, in case a table was made
        # and taken back. PostgreSQL itself plans a statement anew when what it is about has changed.
        self._prepared.clear = _nothing  # type: ignore[method-assign]  # there is no public way

    # ------------------------------------------------------------------------------------------ statements

    def run(self, text: str, values: Sequence[Any]) -> Answer:
        """Carry a statement out. Raises psycopg.Error."""
        statement = self._statement(text, values)
        if self._owed or self._begins:
            return Answer(self._sent([statement])[-1], self._transformer)
        result = self.pgconn.exec_prepared(statement.name, statement.given)
        return Answer(self._good(result, statement), self._transformer)

    def owe(self, text: str, values: Sequence[Any]) -> None:
        """Have a statement carried out that nobody waits for."""
        self._owe(self._statement(text, values))

    def owe_strictly(self, text: str, values: Sequence[Any]) -> None:
        """Have a statement carried out that divides by zero when somebody else changed its row. That is raised as a
        failure to serialize: the transaction is to be tried again.
        """
        self._owe(self._statement(text, values)._replace(strict=True))

    def _owe(self, statement: _Statement) -> None:
        self._owed.append(statement)
        if self._autocommit:  # there is no transaction that it could be part of
            self._sent([])

    def follow(self, text: str, values: Sequence[Any]) -> None:
        """Have a statement carried out after this transaction's commit, on its own; nobody hears if it fails."""
        self._after = self._statement(text, values)

    def _statement(self, text: str, values: Sequence[Any]) -> _Statement:
        name = self._names.get(text)
        if name is None:
            name = self._prepare(text)
        else:
            self._names.move_to_end(text)
        given = self._transformer.dump_sequence(values, list(repeat(PyFormat.TEXT, len(values))))
        return _Statement(name, given, text)

    def _prepare(self, text: str) -> bytes:
        if self._transformer is None:  # what it converts is known when the connection is complete
            self._transformer = Transformer(self)
            self._poll.register(self.pgconn.socket, select.POLLIN)
        if len(self._names) >= _STATEMENTS and not self._owed and self._after is None:
            _, old = self._names.popitem(last=False)
            self._good(self.pgconn.exec_(b"DEALLOCATE " + old))
        self._count += 1
        name = b"straight_%d" % self._count
        self._good(self.pgconn.prepare(name, text.encode()))
        self._names[text] = name
        return name

    # ------------------------------------------------------------------------------------------ transactions

    @property
    def _begins(self) -> bool:
        """Whether a statement would be the first of a transaction."""
        return not self._autocommit and self.pgconn.transaction_status == TransactionStatus.IDLE

    def commit(self) -> None:
        """Carry out what is owed, and commit: one message to the server, with what is to follow the commit."""
        if not self._owed and self.pgconn.transaction_status == TransactionStatus.IDLE:
            self._after = None
        elif self._owed or self._after is not None:
            try:
                self._sent([], commit=True)
            except psycopg.Error:
                if self.pgconn.transaction_status == TransactionStatus.INERROR:
                    self.rollback()  # a COMMIT that fails has ended the transaction, and so must this
                raise
        else:
            self._good(self.pgconn.exec_(b"COMMIT"))

    def rollback(self) -> None:
        """Take everything back, and drop what is owed."""
        self._owed, self._after = [], None
        if self.pgconn.transaction_status != TransactionStatus.IDLE:
            super().rollback()

    def cursor(self, *args: Any, **options: Any) -> Any:
        """An ordinary cursor, behind what is owed."""
        if self._owed:
            self._sent([])
        return super().cursor(*args, **options)

    def _set_autocommit(self, value: bool) -> None:  # noqa: FBT001 - psycopg's signature
        """As psycopg does it, without its generators: SQLAlchemy asks for it twice with every read."""
        if self.pgconn.transaction_status != TransactionStatus.IDLE:
            super()._set_autocommit(value)
        self._autocommit = value

    def _set_isolation_level(self, value: Any) -> None:
        """As above. SQLAlchemy asks for none where it asks for AUTOCOMMIT, which has no use for one."""
        if value is not None and value != self._isolation_level:
            super()._set_isolation_level(value)

    # ------------------------------------------------------------------------------------------ pipelines

    def _sent(self, more: Sequence[_Statement], *, commit: bool = False) -> list[Any]:
        """Send what is owed and ``more`` in one go, with the BEGIN before it if need be; the results of all of these.
        Raises psycopg.Error: the first one's that failed, after which the server left out the rest.
        """
        libpq, statements, after = self.pgconn, [*self._owed, *more], self._after if commit else None
        begin = self._begins
        self._owed = []
        try:
            libpq.enter_pipeline_mode()
            if begin:
                libpq.send_query_params(self._get_tx_start_command(), None)
            for each in statements:
                libpq.send_query_prepared(each.name, each.given)
            if commit:
                libpq.send_query_params(b"COMMIT", None)
            libpq.pipeline_sync()
            if after is not None:
                libpq.send_query_prepared(after.name, after.given)
                libpq.pipeline_sync()
                self._after = None
            results = self._results()
            if after is not None:
                with suppress(psycopg.Error):  # the commit is done, whatever became of what follows it
                    self._results()
            if libpq.status != ConnStatus.BAD:
                libpq.exit_pipeline_mode()
        except BaseException:
            libpq.finish()  # nobody knows what would come next
            raise
        if begin:
            self._good(results.pop(0))
        for result, statement in zip(results, [*statements, None] if commit else statements, strict=True):
            self._good(result, statement)
        return results

    def _results(self) -> list[Any]:
        """What came of everything up to the next place where the server was asked to be done. The interpreter is let
        go while there is nothing yet: libpq's own waiting would keep it.
        """
        libpq = self.pgconn
        found: list[Any] = []
        while libpq.flush():  # more than the socket takes at once; what the server says meanwhile is to be taken, too
            self._poll.modify(libpq.socket, select.POLLIN | select.POLLOUT)
            self._poll.poll()
            self._poll.modify(libpq.socket, select.POLLIN)
            libpq.consume_input()
        while True:
            while libpq.is_busy():
                self._poll.poll()
                libpq.consume_input()
            result = libpq.get_result()
            if result is None:  # the end of one statement's results
                if libpq.status == ConnStatus.BAD:
                    raise psycopg.OperationalError(libpq.get_error_message())
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return found
            else:
                found.append(result)

    def _good(self, result: Any, statement: _Statement | None = None) -> Any:
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            return result
        if self.pgconn.status == ConnStatus.BAD:
            raise psycopg.OperationalError(result.get_error_message())
        error: psycopg.Error = errors.error_from_result(result)
        if statement is not None:
            if statement.strict and isinstance(error, errors.DivisionByZero):
                raise errors.SerializationFailure("a row was changed by somebody else")
            error.add_note(statement.text)
        raise error


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
