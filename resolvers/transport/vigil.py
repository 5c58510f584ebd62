"""What all sockets of a process share, so that one more costs next to nothing: noticing that a token is no longer good,
that the server stops, and that a client is silent.

Invariant: each token that was shown is looked at once in each interval, however many sockets showed it, and each of
them ends at most that much after it ended. Where an identity can say that nobody's standing changed
(:data:`resolvers.transport.caller.Steady`), looking at thousands of tokens is one comparison; each is then
checked itself only now and then, not all in the same moment. A socket has no task of its own for any of this.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import structlog

from resolvers.transport.caller import Identity, Steady

log = structlog.get_logger("stratograph.transport")

Then = Callable[[], None]
"""What is called when it happens, at most once."""

_DOUBT_SECONDS: Final = 30.0
_CHECK_AT_LEAST_SECONDS: Final = 30.0
"""A token is checked itself so often at least, which is also how its last use is noted."""


@dataclass(slots=True, eq=False)
class _Watched:
    """A token. When it was last found good, at ``good_at``, its identity's ``steady`` said ``stamp``."""

    identity: Identity
    expires_at: datetime | None
    steady: Steady | None
    good_at: float
    check_at: float
    stamp: Hashable | None = None
    concerned: dict[object, Then] = field(default_factory=dict)
    check: asyncio.Task[None] | None = None


class Vigil:
    """Watches tokens, each once. For one event loop."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds
        self._watched: dict[Hashable, _Watched] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def over(self, identity: Identity) -> Iterator[asyncio.Future[None]]:
        """A future that is done when what the caller showed has expired or was revoked."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self.when_over(identity, lambda: _happened(ended)):
            yield ended
        ended.cancel()

    @contextmanager
    def when_over(self, identity: Identity, then: Then) -> Iterator[None]:
        """Calls ``then`` when what the caller showed expires or is revoked while the block runs."""
        key, mine = (identity.key, identity.expires_at), object()
        watched = self._watched.get(key)
        if watched is None:
            watched = self._watched[key] = self._begun(identity)
        watched.concerned[mine] = then
        try:
            yield
        finally:
            watched.concerned.pop(mine, None)
            if not watched.concerned and self._watched.get(key) is watched:
                self._forget(key)

    def __len__(self) -> int:
        return len(self._watched)

    def _begun(self, identity: Identity) -> _Watched:
        now = asyncio.get_running_loop().time()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="vigil")
        # It was good when it was shown; that is older than this moment's stamp, so the next round checks it.
        return _Watched(identity, identity.expires_at, getattr(identity, "steady", None), now, now)

    def _forget(self, key: Hashable) -> _Watched | None:
        watched = self._watched.pop(key, None)
        if watched is not None and watched.check is not None and watched.check is not asyncio.current_task():
            watched.check.cancel()
        if not self._watched and self._task is not None:
            if self._task is not asyncio.current_task():
                self._task.cancel()
            self._task = None
        return watched

    def _over(self, key: Hashable) -> None:
        watched = self._forget(key)
        for then in list(watched.concerned.values()) if watched is not None else ():
            then()

    async def _run(self) -> None:
        mine = asyncio.current_task()
        while self._task is mine:
            await asyncio.sleep(self._poll_seconds)
            self._round(asyncio.get_running_loop().time(), datetime.now(UTC))

    def _round(self, now: float, moment: datetime) -> None:
        stamps: dict[Steady | None, Hashable | None] = {None: None}
        unsure: set[Steady] = set()
        for key, watched in list(self._watched.items()):
            if watched.expires_at is not None and watched.expires_at <= moment:
                self._over(key)
                continue
            if watched.steady not in stamps and watched.steady is not None:
                stamps[watched.steady] = watched.steady()
            stamp = stamps[watched.steady]
            same = stamp is not None and stamp == watched.stamp
            if stamp is None and watched.steady is not None:
                same = watched.steady in unsure  # checking one renews what it goes by; all at once would take seconds
                unsure.add(watched.steady)
            if watched.check is None and not (same and now < watched.check_at):
                watched.check = asyncio.create_task(self._check(key, watched, stamp))

    async def _check(self, key: Hashable, watched: _Watched, stamp: Hashable | None) -> None:
        """A failing check (the database is away, say) is no revocation; after half a minute without an answer it is."""
        now = asyncio.get_running_loop().time()
        good = now - watched.good_at <= _DOUBT_SECONDS
        try:
            good = await watched.identity.valid()
            watched.good_at, watched.stamp = now, stamp
            watched.check_at = now + _CHECK_AT_LEAST_SECONDS * random.uniform(0.5, 1)  # noqa: S311 - keeps no secret
        except Exception as error:
            log.warning("identity_check_failed", exc_info=error)
        finally:
            watched.check = None
        if not good and self._watched.get(key) is watched:
            self._over(key)


def _happened(what: asyncio.Future[None]) -> None:
    if not what.done():
        what.set_result(None)


class Bells:
    """Tells many that an event happened, with one task for all who wait for it."""

    def __init__(self, event: asyncio.Event | None) -> None:
        self._event = event
        self._waiting: dict[object, Then] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def rung(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the event happens."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self.when_rung(lambda: _happened(future)):
            yield future
        future.cancel()

    @contextmanager
    def when_rung(self, then: Then) -> Iterator[None]:
        """Calls ``then`` when the event happens while the block runs."""
        mine = object()
        self._waiting[mine] = then
        if self._event is not None and self._task is None:
            self._task = asyncio.create_task(self._wait(self._event))
        try:
            yield
        finally:
            self._waiting.pop(mine, None)
            if not self._waiting and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _wait(self, event: asyncio.Event) -> None:
        await event.wait()
        for then in list(self._waiting.values()):
            then()


class Pulse:
    """Calls ``beat`` every so many seconds until it is stopped, by a timer and no task; for the first time after some
    part of them, so that the thousands who came together are not all called together ever after.
    """

    __slots__ = ("_beat", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float, beat: Then) -> None:
        self._seconds = seconds
        self._beat = beat
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(seconds * random.random(), self._turn)  # noqa: S311 - keeps no secret

    def stop(self) -> None:
        """Call no more."""
        self._timer.cancel()

    def _turn(self) -> None:
        self._timer = self._loop.call_later(self._seconds, self._turn)
        self._beat()
