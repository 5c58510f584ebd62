"""Where a simulated host keeps its records: the interface, and the store in memory.

A store gives transactions: all that happens in one either stays or is undone, writers come one after the other, and a
reader never sees half of a write. Beside records it keeps *holds* (who uses what, so that "is it in use?" costs the
same on a host with ten things as with a hundred thousand) and a bounded log of machine changes for the watchers. It
knows no rule of the simulated world. ``sqlite_store.py`` is the one that survives its process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import RLock
from types import TracebackType
from typing import Protocol, cast

from drivers.api import Deadline, Transient
from drivers.sim.records import MachineRecord, R, Record

CHANGES_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the log: what a machine was just after, None when it was gone."""

    number: int
    machine_id: str
    machine: MachineRecord | None


class Transaction(Protocol):
    """A view of one host. Records given out are values: change one by putting another."""

    def get(self, kind: type[R], key: str) -> R | None:
        """The record of that kind and id."""

    def put(self, record: Record) -> None:
        """Write the record, in place of an earlier one of its id."""

    def delete(self, kind: type[Record], key: str) -> None:
        """Forget the record; nothing happens when there is none."""

    def all(self, kind: type[R]) -> list[R]:
        """Every record of that kind, in no promised order."""

    def hold(self, target: str, holder: str) -> None:
        """Note that holder uses target."""

    def release(self, target: str, holder: str) -> None:
        """Note that holder uses target no longer."""

    def holders(self, target: str) -> list[str]:
        """Who uses target, sorted, so that both stores name the same one first."""

    def tell(self, machine_id: str, machine: MachineRecord | None) -> None:
        """Append to the log of machine changes."""


class Store(Protocol):
    """The memory of one host."""

    shared: bool  # whether other processes may write, so that watchers have to look by themselves
    on_commit: Callable[[], None]  # called after a commit that told of a change

    def read(self, deadline: Deadline) -> AbstractContextManager[Transaction]:
        """A consistent view. Raises Transient when none can be had in time."""

    def write(self, deadline: Deadline) -> AbstractContextManager[Transaction]:
        """The one writer. Commits at the end, undoes everything on any error."""

    def newest_change(self, deadline: Deadline) -> int:
        """The number of the newest change, 0 before the first."""

    def changes_after(self, number: int, deadline: Deadline) -> list[Change] | None:
        """All changes after that one, oldest first; None when some of them were dropped from the log."""

    def clear(self, deadline: Deadline) -> None:
        """Forget everything."""


class MemoryStore:
    """A host that lives as long as its process. Thread-safe; a verb costs some ten microseconds."""

    shared = False

    def __init__(self) -> None:
        self._lock = RLock()
        self._records: dict[str, dict[str, Record]] = {}
        self._holds: dict[str, dict[str, Record | None]] = {}
        self._changes: deque[Change] = deque(maxlen=CHANGES_KEPT)
        self._number = 0
        self.on_commit: Callable[[], None] = lambda: None

    def read(self, deadline: Deadline) -> AbstractContextManager[Transaction]:
        """See :class:`Store`."""
        return _MemoryTransaction(self, deadline)

    write = read

    def newest_change(self, deadline: Deadline) -> int:
        """See :class:`Store`."""
        del deadline
        return self._number

    def changes_after(self, number: int, deadline: Deadline) -> list[Change] | None:
        """See :class:`Store`."""
        with self.read(deadline):
            if self._number - number > len(self._changes):
                return None
            # Newest first, so that a watcher who is nearly up to date looks at few.
            fresh: list[Change] = []
            for each in reversed(self._changes):
                if each.number <= number:
                    break
                fresh.append(each)
            return fresh[::-1]

    def clear(self, deadline: Deadline) -> None:
        """See :class:`Store`. The change numbers go on, so that no watcher mistakes a new change for an old one."""
        with self.read(deadline):
            self._records.clear()
            self._holds.clear()


class _MemoryTransaction:
    """Writes at once and keeps a journal to undo it; the store's lock is held from begin to end."""

    def __init__(self, store: MemoryStore, deadline: Deadline) -> None:
        self._store = store
        self._deadline = deadline
        self._journal: list[tuple[dict[str, Record] | dict[str, Record | None], str, Record | None, bool]] = []
        self._told: list[tuple[str, MachineRecord | None]] = []
        self._released: list[str] = []

    def __enter__(self) -> Transaction:
        if not self._store._lock.acquire(timeout=self._deadline.remaining):  # noqa: SLF001 - two halves of one thing
            raise Transient("another call holds the simulated host")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        store = self._store
        try:
            if kind is not None:
                self._undo()
            else:
                for target in self._released:
                    if not store._holds.get(target, True):  # noqa: SLF001 - as above
                        del store._holds[target]  # noqa: SLF001 - as above
                for machine_id, machine in self._told:
                    store._number += 1  # noqa: SLF001 - as above
                    store._changes.append(Change(store._number, machine_id, machine))  # noqa: SLF001 - as above
        finally:
            store._lock.release()  # noqa: SLF001 - as above
        if kind is None and self._told:
            store.on_commit()

    def _undo(self) -> None:
        for table, key, old, was_there in reversed(self._journal):
            if was_there:
                cast("dict[str, Record | None]", table)[key] = old
            else:
                table.pop(key, None)

    def _table(self, kind: type[Record]) -> dict[str, Record]:
        return self._store._records.setdefault(kind.__name__, {})  # noqa: SLF001 - as above

    def get(self, kind: type[R], key: str) -> R | None:
        return cast("R | None", self._table(kind).get(key))

    def put(self, record: Record) -> None:
        table = self._table(type(record))
        self._journal.append((table, record.id, table.get(record.id), record.id in table))
        table[record.id] = record

    def delete(self, kind: type[Record], key: str) -> None:
        table = self._table(kind)
        if key in table:
            self._journal.append((table, key, table.pop(key), True))

    def all(self, kind: type[R]) -> list[R]:
        return cast("list[R]", list(self._table(kind).values()))

    def hold(self, target: str, holder: str) -> None:
        table = self._store._holds.setdefault(target, {})  # noqa: SLF001 - as above
        self._journal.append((table, holder, None, holder in table))
        table[holder] = None

    def release(self, target: str, holder: str) -> None:
        table = self._store._holds.get(target, {})  # noqa: SLF001 - as above
        if holder in table:
            self._journal.append((table, holder, table.pop(holder), True))
            self._released.append(target)

    def holders(self, target: str) -> list[str]:
        return sorted(self._store._holds.get(target, ()))  # noqa: SLF001 - as above

    def tell(self, machine_id: str, machine: MachineRecord | None) -> None:
        self._told.append((machine_id, machine))
