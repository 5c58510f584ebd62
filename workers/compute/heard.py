"""What hosts say of single machines by themselves, looked at a few at a time.

A hypervisor tells of each turn in a machine's life, and most of that is the echo of what our own jobs just did there.
So word that comes is kept, the last of each machine, and one thread of a worker asks the database by one statement
which of it is news: at once for the first, and then no oftener than every ``APART_S``. Nothing is lost by that, for
what is recorded in the end is what the host says when it is asked again. News is looked at once more a second later: a
job may have recorded, after it, what it had seen before it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import sqlalchemy as sa
import structlog
from sqlmodel import col

from drivers.api import DriverError, Machine, MachineChanged
from gateway.compute.server import Server
from gateway.compute.server_state import STANDING
from gateway.kernel.prepared import Prepared, later
from workers.compute.machine import observed
from workers.hypervisor import Address
from workers.sweep import Context

APART_S = 0.05
"""How long word of machines may wait for more of it."""
AGAIN_S = 1.0
"""How long after it was recorded news is looked at once more."""
HOSTS_AT_ONCE = 16
"""So many hosts at most are asked at a time."""
_AT_ONCE = 16
"""So many machines are looked at by one statement."""

log = structlog.get_logger(__name__)


class Word(NamedTuple):
    """What a host said of a machine; None when it is gone. ``again``: if it is news it is to be looked at once more."""

    where: Address
    uid: UUID
    machine: Machine | None
    again: bool = True


class Heard:
    """The word that waits to be looked at; ``record`` asks a host how a machine is by now, and records it. That is done
    for one machine of a host after the other, and for some hosts at a time: one that hangs holds up no other.
    """

    def __init__(self, context: Context, record: Callable[[Context, Address, UUID], None]) -> None:
        self._context = context
        self._record = record
        self._waiting: dict[tuple[int, UUID], Word] = {}
        self._later: deque[tuple[float, Word]] = deque()
        """What is to be looked at once more, and from when on, in this order."""
        self._under_way: dict[int, threading.Thread] = {}
        """The threads that ask, by host: daemons, for none may hold up the end of the process either."""
        self._change = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, where: Address, change: MachineChanged) -> None:
        """Keep word of a machine, in place of what the same host said of it before. Waits for nothing."""
        with self._change:
            self._waiting[where.host_id, change.machine_id] = Word(where, change.machine_id, change.machine)
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._run, name="heard", daemon=True)
                self._thread.start()
            self._change.notify()

    def close(self, seconds: float = 5.0) -> None:
        """Begin nothing more, and wait at most ``seconds`` for what is under way."""
        self._closing.set()
        with self._change:
            thread, self._thread = self._thread, None
            self._change.notify()
        until = time.monotonic() + seconds
        for each in [*([thread] if thread is not None else []), *self._under_way.values()]:
            each.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._change:
                while not (words := self._due()) and not self._closing.is_set():
                    self._change.wait(self._later[0][0] - time.monotonic() if self._later else None)
            try:
                self.look(words)
            except Exception:
                log.exception("word of machines could not be looked at; the next look at all machines finds them")
            self._closing.wait(APART_S)

    def _due(self) -> list[Word]:
        """What waits, and what is to be looked at once more by now, unless there is newer word of the same machine."""
        words, self._waiting = self._waiting, {}
        while self._later and self._later[0][0] <= time.monotonic():
            _, word = self._later.popleft()
            words.setdefault((word.where.host_id, word.uid), word)
        return list(words.values())

    def look(self, words: Sequence[Word]) -> None:
        """Have what is news recorded, on other threads; what comes from a host that is still being asked waits."""
        by_host: dict[int, list[Word]] = {}
        for word in news(self._context, words):
            by_host.setdefault(word.where.host_id, []).append(word)
        for host_id, some in by_host.items():
            self._under_way = {key: thread for key, thread in self._under_way.items() if thread.is_alive()}
            if host_id in self._under_way or len(self._under_way) >= HOSTS_AT_ONCE:
                with self._change:
                    self._waiting = {(host_id, word.uid): word for word in some} | self._waiting
            else:
                thread = threading.Thread(target=self._ask, args=(some,), name=f"heard-{host_id}", daemon=True)
                self._under_way[host_id] = thread
                thread.start()

    def _ask(self, words: Sequence[Word]) -> None:
        """Have these recorded. Word may be older than what is recorded already (a machine that was made off and started
        since, say), so its host is asked again.
        """
        for word in words:
            if self._closing.is_set():
                return
            try:
                self._record(self._context, word.where, word.uid)
            except DriverError as error:
                log.info("a machine that changed could not be looked at", host=word.where.name, reason=error.reason)
            except Exception:
                log.exception("a change of a machine could not be recorded", host=word.where.name)
            if word.again:
                with self._change:
                    self._later.append((time.monotonic() + AGAIN_S, word._replace(again=False)))
                    self._change.notify()


def news(context: Context, words: Sequence[Word]) -> list[Word]:
    """Those that say something else of a server that is made than is recorded, and come from its host."""
    found = []
    with context.db.read() as session:
        for start in range(0, len(words), _AT_ONCE):
            some = words[start : start + _AT_ONCE]
            known = {row[0]: row for row in _RECORDED.all(session, **_filled([word.uid for word in some]))}
            for word in some:
                _, host_id, recorded = known.get(word.uid, _UNKNOWN)
                if host_id == word.where.host_id and recorded is not observed(word.machine):
                    found.append(word)
    return found


_UNKNOWN = (None, None, None)
_UID = sa.inspect(Server).columns.uid.type
_RECORDED = Prepared(
    sa.select(*(sa.inspect(Server).columns[name] for name in ("uid", "host_id", "observed"))).where(
        col(Server.uid).in_([later(f"uid_{at}", _UID) for at in range(_AT_ONCE)]), col(Server.phase).in_(STANDING)
    )
)


def _filled(uids: list[UUID]) -> dict[str, UUID]:
    """So many parameters as the statement has; the last one fills it up."""
    return {f"uid_{at}": uids[min(at, len(uids) - 1)] for at in range(_AT_ONCE)}
