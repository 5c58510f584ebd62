"""One processor core for the threads of one interpreter.

Python runs one thread of a process at a time. Where its threads are on several cores, each look into SQLite lets
another core's thread wake up for the interpreter's lock, mostly in vain: a created server cost 340 context switches
instead of 55, and twice the CPU (decision 0038 says how that was counted). So a process whose work is many short steps
on many threads keeps them on one core, and goes to another when somebody else needs that one.

Invariant: what runs long without the interpreter (a hash, a copy) and every process that is started is :func:`apart`,
on all cores that this process was given. Where the system knows no affinity, or gave one core, nothing happens.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import structlog

LOOK_S: Final = 2.0
"""How often is looked whether somebody else needs the core."""
_TAKEN: Final = 0.3
"""A core is left when others use more than this share of it ..."""
_BETTER: Final = 0.2
"""... and another is so much freer."""

log = structlog.get_logger(__name__)


class Core:
    """The core of this process. ``begin`` binds all its threads, and with them those they start later."""

    def __init__(self) -> None:
        self._given = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset[int]()
        self._bound: int | None = None
        self._apart: set[int] = set()
        self._change = threading.Lock()

    @property
    def bound(self) -> int | None:
        """The core that the threads are on; None while they are where the system puts them."""
        return self._bound

    def begin(self) -> None:
        """Bind, and go on looking for a better core."""
        if len(self._given) < 2 or not Path("/proc/stat").exists():  # noqa: PLR2004 - one core leaves no choice
            return
        self._go(_here())
        threading.Thread(target=self._run, name="core", daemon=True).start()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Have this thread, and processes it starts, on all cores for a while. Nothing to do while it is not bound."""
        if self._bound is None:
            yield
            return
        thread = threading.get_native_id()
        with self._change:
            nested = thread in self._apart
            self._apart.add(thread)
        os.sched_setaffinity(0, self._given)
        try:
            yield
        finally:
            if not nested:
                with self._change:
                    self._apart.discard(thread)
                    os.sched_setaffinity(0, {self._bound})

    def look(self, busy: Mapping[int, float], own: float) -> None:
        """Move if the shares of the cores that were in use, and of one core that was used by this process, say so."""
        if self._bound is None:
            return
        best = freer(self._bound, {core: share for core, share in busy.items() if core in self._given}, own)
        if best != self._bound:
            log.debug("another core", left=self._bound, taken=best)
            self._go(best)

    def _go(self, core: int) -> None:
        with self._change:
            self._bound = core
            for _ in range(2):  # a thread that one not yet moved is just starting is not listed at first
                for thread in [int(each.name) for each in Path("/proc/self/task").iterdir()]:
                    if thread not in self._apart:
                        with suppress(OSError):  # it ended
                            os.sched_setaffinity(thread, {core})

    def _run(self) -> None:
        before, since = _used(), (time.monotonic(), time.process_time())
        while True:
            time.sleep(LOOK_S * random.uniform(0.75, 1.25))  # noqa: S311 - so that two gateways do not move in step
            now, at = _used(), (time.monotonic(), time.process_time())
            ticks = (at[0] - since[0]) * os.sysconf("SC_CLK_TCK")
            busy = {core: min((used - before.get(core, used)) / ticks, 1.0) for core, used in now.items()}
            self.look(busy, (at[1] - since[1]) / (at[0] - since[0]))
            before, since = now, at


def freer(bound: int, busy: Mapping[int, float], own: float) -> int:
    """The core to be on, by the share of each that was in use and the process's ``own`` use of the one it is on."""
    others = busy.get(bound, 1.0) - own
    best = min(busy, key=lambda core: (busy[core], core), default=bound)
    return best if others > _TAKEN and busy.get(best, 1.0) < others - _BETTER else bound


def _here() -> int:
    """The core that this thread runs on (proc(5), field 39 of stat; what follows the name in brackets begins at 3)."""
    return int(Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()[36])


def _used() -> dict[int, int]:
    """Ticks that each core was in use (proc(5): idle and iowait are the fourth and fifth figure)."""
    used = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *figures = line.split()
        if name.startswith("cpu") and name != "cpu":
            told = [int(each) for each in figures[:8]]
            used[int(name[3:])] = sum(told) - told[3] - told[4]
    return used


CORE: Final = Core()
"""This process's."""
