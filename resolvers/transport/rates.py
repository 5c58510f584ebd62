"""What a caller may spend: a budget of cost units in a moving window, per identity.

Invariant: an operation is paid for before it runs, at its static cost and at least one unit; a text that is new to the
process pays for its validation before that, one unit and one more for each hundred characters.

It deliberately shares nothing between processes: with several API processes the application hands in its own
:class:`RateLimiter` (the ``limits`` library speaks Redis), the default counts per process.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol


class Budget(NamedTuple):
    """A caller's budget now: ``remaining`` of ``limit`` units in ``window_seconds``, full again at ``resets_at_s`` (by
    the clock of the system, since 1970).
    """

    allowed: bool
    limit: int
    remaining: int
    resets_at_s: float
    window_seconds: int

    @property
    def reset_at(self) -> datetime:
        """When it is full again."""
        return datetime.fromtimestamp(self.resets_at_s, UTC)


class RateLimiter(Protocol):
    """Takes ``cost`` units from the budget of ``key``, or nothing if they are not there (``allowed`` is False)."""

    async def spend(self, key: str, cost: int) -> Budget:
        """The budget afterwards. Must not block the event loop."""


@dataclass(slots=True)
class _Spent:
    """What a caller spent in a window and in the one before it."""

    window: int
    now: int = 0
    before: int = 0


@dataclass(slots=True)
class MemoryRateLimiter:
    """A moving window in this process's memory: the weighted counter of two adjacent windows, which takes constant
    memory for each caller.

    It stands in the way of every request, so it is a dict and some sums: the counter of ``limits`` takes locks and
    starts a timer thread every few requests (measured: a third of the CPU of reading one server).
    """

    limit: int
    window_seconds: int
    _callers: dict[str, _Spent] = field(default_factory=dict)
    _swept: int = 0

    async def spend(self, key: str, cost: int) -> Budget:
        """Takes ``cost`` units of ``key``'s budget."""
        moment = time.time()
        window, share = divmod(moment / self.window_seconds, 1)
        spent = self._spent(key, int(window))
        used = spent.now + int(spent.before * (1 - share))
        allowed = used + cost <= self.limit
        if allowed:
            spent.now += cost
            used += cost
        return Budget(
            allowed=allowed,
            limit=self.limit,
            remaining=max(0, self.limit - used),
            resets_at_s=(window + 1 + (spent.now > 0)) * self.window_seconds,
            window_seconds=self.window_seconds,
        )

    def _spent(self, key: str, window: int) -> _Spent:
        if window != self._swept:
            self._swept = window
            self._callers = {name: each for name, each in self._callers.items() if each.window >= window - 1}
        found = self._callers.get(key)
        if found is None:
            found = self._callers[key] = _Spent(window)
        elif found.window != window:
            found.before = found.now if found.window == window - 1 else 0
            found.window, found.now = window, 0
        return found
