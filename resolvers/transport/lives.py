"""What long-lived connections share: counting them, ending their tasks, and sending what can be sent without waiting.

Invariant: a slot that was taken is given back, and a task that was started is awaited, whatever ends the connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.types import Receive

from resolvers.transport.errors import ErrorCode, RequestRefused


class Tally:
    """How many connections each key holds, with one limit for all keys."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._held: Counter[str] = Counter()

    @contextmanager
    def slot(self, key: str) -> Iterator[None]:
        """One more for ``key`` while the block runs. Raises :class:`RequestRefused` when there are enough."""
        if self._held[key] >= self._limit:
            raise RequestRefused(
                ErrorCode.TOO_MANY_CONNECTIONS, f"Too many {self._what}: {self._limit} are allowed.", limit=self._limit
            )
        self._held[key] += 1
        try:
            yield
        finally:
            self._held[key] -= 1
            if self._held[key] <= 0:
                del self._held[key]

    def __len__(self) -> int:
        return self._held.total()


async def disconnected(receive: Receive) -> None:
    """Returns when the HTTP client has left; to be called once its body was read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancels these tasks and waits until each has cleaned up, even when we are cancelled meanwhile."""
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.shield(asyncio.gather(*pending, return_exceptions=True))
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # seen: asyncio must not report it as never retrieved


def at_once(sending: Awaitable[None]) -> bool:
    """Sends, if that can be done without waiting; whether it was. What would wait is given up before it has sent
    anything, and a connection that failed is for the next who waits for it to tell.
    """
    step = sending.__await__()
    try:
        next(step)
    except StopIteration:
        return True
    except Exception:  # noqa: BLE001 - whoever sends the next in the ordinary way meets it again
        return False
    step.close()
    return False
