"""A simulated host's memory in one SQLite file, shared by every process that addresses the host.

Write-ahead log, one ``BEGIN IMMEDIATE`` transaction a verb, one connection a thread. The file is the host: delete it
and the host is empty. A lock that is not had in time is Transient; a file that cannot be written is the host's fault.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import RLock, local

from drivers.api import Deadline, HostAtFault, Transient
from drivers.sim.records import MachineRecord, R, Record, from_json, to_json
from drivers.sim.store import CHANGES_KEPT, Change, Transaction

VERSION = 1
SCHEMA = f"""
CREATE TABLE record (kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE hold (target TEXT NOT NULL, holder TEXT NOT NULL, PRIMARY KEY (target, holder)) WITHOUT ROWID;
CREATE TABLE change (number INTEGER PRIMARY KEY AUTOINCREMENT, machine_id TEXT NOT NULL, body TEXT);
PRAGMA user_version = {VERSION};
"""


class SqliteStore:
    """A host in a file. See :class:`drivers.sim.store.Store` for the promises."""

    shared = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_commit: Callable[[], None] = lambda: None
        self._local = local()
        # Threads of one process queue here, in turn, instead of all sleeping in SQLite's busy handler.
        self._writer = RLock()

    def read(self, deadline: Deadline) -> AbstractContextManager[Transaction]:
        """See :class:`drivers.sim.store.Store`."""
        return self._transaction("BEGIN", deadline)

    @contextmanager
    def write(self, deadline: Deadline) -> Iterator[Transaction]:
        """See :class:`drivers.sim.store.Store`."""
        if not self._writer.acquire(timeout=deadline.remaining):
            raise Transient("another call holds the simulated host")
        try:
            with self._transaction("BEGIN IMMEDIATE", deadline) as transaction:
                yield transaction
        finally:
            self._writer.release()
        if transaction.told:
            self.on_commit()

    def newest_change(self, deadline: Deadline) -> int:
        """See :class:`drivers.sim.store.Store`."""
        with self._transaction("BEGIN", deadline) as transaction:
            return transaction.newest_change()

    def changes_after(self, number: int, deadline: Deadline) -> list[Change] | None:
        """See :class:`drivers.sim.store.Store`."""
        with self._transaction("BEGIN", deadline) as transaction:
            return transaction.changes_after(number)

    def clear(self, deadline: Deadline) -> None:
        """See :class:`drivers.sim.store.Store`."""
        with self._transaction("BEGIN IMMEDIATE", deadline) as transaction:
            transaction.clear()

    @contextmanager
    def _transaction(self, begin: str, deadline: Deadline) -> Iterator[_SqliteTransaction]:
        with _as_driver_errors(self.path):
            connection = self._connection(deadline)
            connection.execute(begin)
            try:
                transaction = _SqliteTransaction(connection)
                yield transaction
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _connection(self, deadline: Deadline) -> sqlite3.Connection:
        """This thread's connection; a child process never uses its parent's."""
        kept: tuple[int, sqlite3.Connection] | None = getattr(self._local, "kept", None)
        if kept is None or kept[0] != os.getpid():
            kept = (os.getpid(), self._open(deadline))
            self._local.kept = kept
        kept[1].execute(f"PRAGMA busy_timeout = {int(deadline.remaining * 1000)}")
        return kept[1]

    def _open(self, deadline: Deadline) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=deadline.remaining, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
        connection.execute("COMMIT")
        if found not in {0, VERSION}:
            connection.close()
            raise HostAtFault(f"the simulated host's file has layout {found}, this program knows {VERSION}")
        return connection


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self.told = False

    def get(self, kind: type[R], key: str) -> R | None:
        row = self._execute("SELECT body FROM record WHERE kind = ? AND id = ?", (kind.__name__, key)).fetchone()
        return None if row is None else from_json(kind, row[0])

    def put(self, record: Record) -> None:
        values = (type(record).__name__, record.id, to_json(record))
        self._execute("INSERT OR REPLACE INTO record (kind, id, body) VALUES (?, ?, ?)", values)

    def delete(self, kind: type[Record], key: str) -> None:
        self._execute("DELETE FROM record WHERE kind = ? AND id = ?", (kind.__name__, key))

    def all(self, kind: type[R]) -> list[R]:
        rows = self._execute("SELECT body FROM record WHERE kind = ?", (kind.__name__,))
        return [from_json(kind, body) for (body,) in rows]

    def hold(self, target: str, holder: str) -> None:
        self._execute("INSERT OR IGNORE INTO hold (target, holder) VALUES (?, ?)", (target, holder))

    def release(self, target: str, holder: str) -> None:
        self._execute("DELETE FROM hold WHERE target = ? AND holder = ?", (target, holder))

    def holders(self, target: str) -> list[str]:
        rows = self._execute("SELECT holder FROM hold WHERE target = ? ORDER BY holder", (target,))
        return [holder for (holder,) in rows]

    def tell(self, machine_id: str, machine: MachineRecord | None) -> None:
        self.told = True
        body = None if machine is None else to_json(machine)
        number = self._execute("INSERT INTO change (machine_id, body) VALUES (?, ?)", (machine_id, body)).lastrowid or 0
        if number % 1000 == 0:
            self._execute("DELETE FROM change WHERE number <= ?", (number - CHANGES_KEPT,))

    def newest_change(self) -> int:
        return int(self._execute("SELECT coalesce(max(number), 0) FROM change").fetchone()[0])

    def changes_after(self, number: int) -> list[Change] | None:
        oldest = self._execute("SELECT min(number) FROM change").fetchone()[0]
        if oldest is not None and number < oldest - 1:
            return None
        sql = "SELECT number, machine_id, body FROM change WHERE number > ? ORDER BY number"
        rows = self._execute(sql, (number,)).fetchall()
        return [Change(at, key, None if body is None else from_json(MachineRecord, body)) for at, key, body in rows]

    def clear(self) -> None:
        self._execute("DELETE FROM record")
        self._execute("DELETE FROM hold")


@contextmanager
def _as_driver_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        name = error.sqlite_errorname or "SQLITE_ERROR"
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise Transient("another process holds the simulated host", vendor_code=name) from error
        raise HostAtFault(f"the simulated host's file {path.name} cannot be used: {error}", vendor_code=name) from error
    except (sqlite3.DatabaseError, OSError) as error:
        raise HostAtFault(f"the simulated host's file {path.name} cannot be used: {error}") from error
