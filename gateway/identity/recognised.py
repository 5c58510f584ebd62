"""The short memory of recognised tokens: a quarter second, so that a busy client costs four look-ups a second and a
revocation acts within one second on every process; in the process that revoked, at once.

Nothing is decided here; :mod:`gateway.identity.authentication` fills it and :func:`forget` empties it after commit.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from sqlmodel import Session

from gateway.kernel.db import after_commit

KEPT_S = 0.25
_MOST = 10_000


class Recognised:
    """Values by key for a quarter second. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}
        self._emptied = 0

    def get(self, key: str) -> Any:
        """The value, or None."""
        with self._lock:
            found = self._kept.get(key)
        return found[1] if found is not None and found[0] > time.monotonic() else None

    def begin(self) -> int:
        """To be asked before the database is read, and given to :meth:`put`."""
        with self._lock:
            return self._emptied

    def put(self, key: str, value: Any, began: int) -> None:
        """Keep a value, unless the memory was emptied since ``began``: it might be older than what emptied it."""
        with self._lock:
            if began != self._emptied:
                return
            if len(self._kept) >= _MOST:
                self._kept.clear()
            self._kept[key] = (time.monotonic() + KEPT_S, value)

    def empty(self) -> None:
        """Forget everything."""
        with self._lock:
            self._emptied += 1
            self._kept.clear()


def forget(session: Session) -> None:
    """Have this process recognise everybody anew once this unit of work is committed."""
    memory: Recognised | None = session.info.get("recognised")
    if memory is not None:
        after_commit(session, memory.empty)
