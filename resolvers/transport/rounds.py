"""HTTP requests under way: each is given up at its deadline, and a query when its client leaves.

One timer goes round among all of them while there are any, every fiftieth of a second: a timer, a timeout and a watch
for each request would cost a tenth of reading one server, and most requests are answered before the first round.

Invariant: what follows a bounded phase is not cancelled by its deadline, and a task that was cancelled here counts as
not cancelled once the phase is over.
"""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress
from typing import Any, Final

from starlette.types import Receive

from resolvers.transport.lives import disconnected, ended

_EVERY_SECONDS: Final = 0.02


class Visit:
    """One request. ``until`` is its deadline (monotonic), ``watched`` whether it ends with its client; both may be set
    anew for each phase. Afterwards ``expired`` or ``gone`` say why its task was cancelled.
    """

    __slots__ = ("_receive", "_task", "_watching", "expired", "gone", "until", "watched")

    def __init__(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self.until = math.inf
        self.watched = self.gone = self.expired = False
        self._task = task
        self._receive = receive
        self._watching: asyncio.Task[None] | None = None

    def within(self, seconds: float, *, watched: bool = False) -> None:
        """What comes next may take so long."""
        self.until = time.monotonic() + seconds
        self.watched = watched

    def look(self, now: float) -> None:
        """One round: nothing for most."""
        if self.gone or self.expired:
            return
        if now >= self.until:
            self.expired = True
            self._task.cancel()
        elif self.watched and self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        await disconnected(self._receive)
        if self.watched and not self.expired:
            self.gone = True
            self._task.cancel()

    async def over(self) -> None:
        """To be awaited when what :meth:`within` bounded has ended, in any case: nothing is cancelled after it."""
        self.until, self.watched = math.inf, False
        if self._watching is not None or self.expired:
            await self._settle()

    async def _settle(self) -> None:
        if self.gone or self.expired:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # the work may have ended in the same turn: then the cancellation comes here
            self._task.uncancel()
        if self._watching is not None:
            await ended([self._watching])


class Rounds:
    """All requests under way on one event loop."""

    def __init__(self) -> None:
        self._open: set[Visit] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, receive: Receive) -> Visit:
        """The calling task's request; to be left when it is over."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("there is no task to cancel")
        visit = Visit(task, receive)
        self._open.add(visit)
        if self._timer is None or self._loop is not task.get_loop():
            self._loop = task.get_loop()
            self._timer = self._loop.call_later(_EVERY_SECONDS, self._round)
        return visit

    def leave(self, visit: Visit) -> None:
        """It is over."""
        self._open.discard(visit)

    def _round(self) -> None:
        self._timer = None
        now = time.monotonic()
        for each in tuple(self._open):
            each.look(now)
        if self._open and self._loop is not None:
            self._timer = self._loop.call_later(_EVERY_SECONDS, self._round)

    def __len__(self) -> int:
        return len(self._open)
