"""When garbage is collected, in a process that holds millions of objects for hours: in many short pauses.

Python's oldest generation is looked at as a whole, which stops everything for as long as telling thousands of
subscribers takes (400 ms for 500,000 objects). Here what has outlived two collections is put aside (``gc.freeze``) and
not looked at again; what dies is freed all the same, by its reference count. Only cycles among what was put aside wait:
for a look at everything that comes when as much was put aside as the last such look found alive, two million at least.

Invariant: a pause looks at ``_YOUNG`` * 3 objects at most, save for those looks at everything, which come the more
seldom the more they cost. So all cycles are found in the end, and waste is bounded by what is in use.
"""

from __future__ import annotations

import gc
import queue
import threading
from typing import Any, Final

import structlog

_YOUNG: Final = 25_000
_LEAST: Final = 2_000_000
_NEVER: Final = 1 << 30

log = structlog.get_logger(__name__)


class Aside:
    """What was put aside. ``least``: so many objects must have been before everything is looked at."""

    def __init__(self, least: int = _LEAST) -> None:
        self._least = least
        self._alive = 0
        self._since = 0
        # A queue whose put may interrupt itself: collections begin anywhere, also inside of locks.
        self._due: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def begin(self, young: int = _YOUNG) -> None:
        """Put everything aside that is there, and collect from now on. It is not looked at: what a start has built
        stays, and a look would take a tenth of the start to find two thousand objects. Nor is it counted, which takes
        30 ms: there are far fewer than two million.
        """
        gc.freeze()
        gc.callbacks.append(self._collected)
        gc.set_threshold(young, 1, _NEVER)
        threading.Thread(target=self._run, name="garbage", daemon=True).start()
        gc.enable()

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase != "stop" or info["generation"] != 1:
            return
        self._since += len(gc.get_objects(generation=2))  # nothing else is there: all older ones are aside
        gc.freeze()
        if self._since >= max(self._alive, self._least):
            self._since = 0
            self._due.put(True)

    def _run(self) -> None:
        while self._due.get():
            self._look()

    def _look(self) -> None:
        gc.unfreeze()
        found = gc.collect()
        gc.freeze()
        self._alive, self._since = gc.get_freeze_count(), 0
        log.debug("garbage_collected", found=found, alive=self._alive)
