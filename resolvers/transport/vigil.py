"""What all sockets of a process share, so that one more costs next to nothing: noticing that a token is no longer good,
that the server stops, and that a client is silent.

Invariant: a token is looked at once in each interval, however many sockets showed it, and each of them ends at most
that much after it ended. A socket has no task of its own for any of this.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from resolvers.transport.caller import Identity
from resolvers.transport.lives import until_invalid


@dataclass(slots=True)
class _Watched:
    task: asyncio.Task[None]
    concerned: set[asyncio.Future[None]] = field(default_factory=set)


class Vigil:
    """Watches tokens, each once. For one event loop."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._watched: dict[object, _Watched] = {}

    @contextmanager
    def over(self, identity: Identity) -> Iterator[asyncio.Future[None]]:
        """A future that is done when what the caller showed has expired or was revoked."""
        key = (identity.key, identity.expires_at)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watched = self._watched.get(key)
        if watched is None:
            task = asyncio.create_task(until_invalid(identity, self._poll_seconds))
            watched = self._watched[key] = _Watched(task)
            task.add_done_callback(lambda done: self._told(key, done))
        watched.concerned.add(ended)
        try:
            yield ended
        finally:
            watched.concerned.discard(ended)
            ended.cancel()
            if not watched.concerned and self._watched.get(key) is watched:
                del self._watched[key]
                watched.task.cancel()

    def _told(self, key: object, done: asyncio.Task[None]) -> None:
        watched = self._watched.get(key)
        if watched is None or watched.task is not done:
            return  # it was cancelled when its last socket left, and another was begun for the next one since
        del self._watched[key]
        for each in watched.concerned:
            if not each.done():
                each.set_result(None)

    def __len__(self) -> int:
        return len(self._watched)


class Bells:
    """Sets futures when an event happens, with one task for all who wait for it."""

    def __init__(self, event: asyncio.Event | None) -> None:
        self._event = event
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def rung(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the event happens."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        if self._event is not None and self._task is None:
            self._task = asyncio.create_task(self._wait(self._event))
        try:
            yield future
        finally:
            self._waiting.discard(future)
            future.cancel()
            if not self._waiting and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _wait(self, event: asyncio.Event) -> None:
        await event.wait()
        for each in self._waiting:
            if not each.done():
                each.set_result(None)


@contextmanager
def pulse(seconds: float, beat: Callable[[], None]) -> Iterator[None]:
    """Calls ``beat`` every so many seconds while the block runs, by a timer and no task; for the first time after some
    part of them, so that the thousands who came together are not all called together ever after.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def turn() -> None:
        nonlocal timer
        timer = loop.call_later(seconds, turn)
        beat()

    timer = loop.call_later(seconds * random.random(), turn)  # noqa: S311 - spreads load, keeps no secret
    try:
        yield
    finally:
        timer.cancel()
