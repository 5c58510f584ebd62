"""What many ask for in the same moment, made once.

Invariant: nobody gets what was made for another key, and nothing that was made is given out once it was begun longer
ago than it is kept (0 seconds share what is being made, and keep nothing). Whoever asks first leaving does not take it
away from the others; a failure is told to those who wait for it, and the next to ask begins anew.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

KEPT_SECONDS: Final = 1.0
_MOST: Final = 10_000


class Once(Generic[T]):
    """Things by key, for one event loop. Bounded in number and in age."""

    def __init__(self, seconds: float = KEPT_SECONDS, most: int = _MOST) -> None:
        self._seconds = seconds
        self._most = most
        self._making: dict[Hashable, asyncio.Task[T]] = {}
        self._made: dict[Hashable, tuple[float, asyncio.Task[T]]] = {}

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What is being made or was just made under this key, or what ``make`` makes."""
        made = self._made.get(key)
        if made is not None and made[0] > time.monotonic():
            return made[1].result()
        task = self._making.get(key)
        if task is None:
            until = time.monotonic() + self._seconds
            task = self._making[key] = asyncio.ensure_future(make())
            task.add_done_callback(lambda done: self._keep(key, done, until))
        return await asyncio.shield(task)

    def _keep(self, key: Hashable, task: asyncio.Task[T], until: float) -> None:
        del self._making[key]
        if task.cancelled() or task.exception() is not None or not self._seconds:
            return
        now = time.monotonic()
        self._made.pop(key, None)
        while self._made:
            oldest = next(iter(self._made))
            if self._made[oldest][0] > now and len(self._made) < self._most:
                break
            del self._made[oldest]
        self._made[key] = (until, task)
