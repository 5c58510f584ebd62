"""Tells watchers what happened to machines, from one thread for all simulated hosts of this process.

A host in memory, and one in a file as far as this process changes it, wakes the thread at once; what other processes
write to a file is found by looking at its log of changes ten times a second. A watcher hears each change once, in
order, with the state just after it. It ends by itself (``alive`` False) when it fell so far behind that changes were
dropped, or when the host is down; it is for the caller to list and watch anew.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Condition, RLock, Thread
from uuid import UUID

from drivers.api import Deadline, DriverError, MachineChanged
from drivers.sim.faults import conditions
from drivers.sim.records import seen
from drivers.sim.store import Store

LOOK_SECONDS = 0.1
LOG = logging.getLogger(__name__)


class SimWatch:
    """An open stream of one host's changes. See :class:`drivers.api.Watch`."""

    def __init__(self, store: Store, on_change: Callable[[MachineChanged], None], deadline: Deadline) -> None:
        self.store = store
        self._on_change = on_change
        self._number = store.newest_change(deadline)
        self._open = True
        # Held around every call-back: whoever closes from another thread waits for the one under way.
        self._lock = RLock()

    @property
    def alive(self) -> bool:
        """False once the stream ended."""
        return self._open

    def close(self) -> None:
        """End the stream; no call-back comes after this returned."""
        _forget(self)
        with self._lock:
            self._open = False

    def deliver(self) -> None:
        """Tell of everything new."""
        with self._lock:
            if not self._open:
                return
            try:
                with self.store.read(Deadline(1)) as transaction:
                    down = conditions(transaction).down
                changes = None if down else self.store.changes_after(self._number, Deadline(1))
            except DriverError as error:
                LOG.warning("a watch of a simulated host ended: %s", error)
                changes = None
            if changes is None:
                self._open = False
                _forget(self)
                return
            for change in changes:
                self._number = change.number
                machine = None if change.machine is None else seen(change.machine)
                try:
                    self._on_change(MachineChanged(UUID(change.machine_id), machine))
                except Exception:
                    LOG.exception("a watcher of a simulated host failed")
                if not self.alive:  # the call-back closed its own watch
                    return


def watch(store: Store, on_change: Callable[[MachineChanged], None], deadline: Deadline) -> SimWatch:
    """Start to tell of what happens from now on."""
    return _remember(SimWatch(store, on_change, deadline))


def wake(store: Store) -> None:
    """Something happened on that host."""
    if store not in _watches:  # the common case in a benchmark; a watch that begins just now starts after this change
        return
    with _news:
        _stirred.add(store)
        _news.notify_all()


# By host, so that a change on one of ten thousand watched hosts costs as much as on the only one.
_watches: dict[Store, list[SimWatch]] = {}
_files: set[Store] = set()
_stirred: set[Store] = set()
_news = Condition()
_courier: list[Thread] = []


def _remember(watch: SimWatch) -> SimWatch:
    with _news:
        _watches.setdefault(watch.store, []).append(watch)
        if watch.store.shared:
            _files.add(watch.store)
        if not _courier:
            _courier.append(Thread(target=_run, name="sim-watch", daemon=True))
            _courier[0].start()
        _stirred.add(watch.store)  # what happened while it was being made
        _news.notify_all()
    return watch


def _forget(watch: SimWatch) -> None:
    with _news:
        kept = [each for each in _watches.get(watch.store, ()) if each is not watch]
        if kept:
            _watches[watch.store] = kept
        else:
            _watches.pop(watch.store, None)
            _files.discard(watch.store)
        _news.notify_all()


def _run() -> None:
    """Carry news until nobody watches."""
    while True:
        with _news:
            if not _watches:
                _courier.clear()
                return
            if not _stirred:
                _news.wait(LOOK_SECONDS if _files else None)
            due = [each for store in _stirred | _files for each in _watches.get(store, ())]
            _stirred.clear()
        for each in due:
            each.deliver()
