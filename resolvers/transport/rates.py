"""What a caller may spend: a budget of cost units in a moving window, per identity.

Invariant: an operation is paid for before it runs, at its static cost and at least one unit; a text that is new to the
process pays for its validation before that, one unit and one more for each hundred characters.

It deliberately shares nothing between processes: with several API processes the application hands in its own
:class:`RateLimiter` (the ``limits`` library speaks Redis), the default counts per process.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter


@dataclass(frozen=True, slots=True)
class Budget:
    """A caller's budget now: ``remaining`` of ``limit`` units in ``window_seconds``, full again at ``reset_at``."""

    allowed: bool
    limit: int
    remaining: int
    reset_at: datetime
    window_seconds: int


class RateLimiter(Protocol):
    """Takes ``cost`` units from the budget of ``key``, or nothing if they are not there (``allowed`` is False)."""

    async def spend(self, key: str, cost: int) -> Budget:
        """The budget afterwards. Must not block the event loop."""


class MemoryRateLimiter:
    """A moving window in this process's memory.

    The window is the weighted counter of two adjacent windows: constant memory per caller, where the exact moving
    window of ``limits`` keeps one entry for each unit spent. The synchronous storage never waits for anything; the
    asynchronous one walks over all callers at each hit (measured: 0.9 ms with 10,000 callers, against 10 microseconds).
    """

    def __init__(self, limit: int, window_seconds: int) -> None:
        self._item = RateLimitItemPerSecond(limit, window_seconds)
        self._window_seconds = window_seconds
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def spend(self, key: str, cost: int) -> Budget:
        """Takes ``cost`` units of ``key``'s budget."""
        allowed = self._limiter.hit(self._item, key, cost=cost)
        state = self._limiter.get_window_stats(self._item, key)
        return Budget(
            allowed=allowed,
            limit=self._item.amount,
            remaining=max(0, state.remaining),
            reset_at=datetime.fromtimestamp(state.reset_time, UTC),
            window_seconds=self._window_seconds,
        )
