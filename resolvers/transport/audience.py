"""Subscribers who are told the same, told together: one source, one check, one rendering and one turn of the loop for
all of them, instead of a task, a queue and an execution for each.

A source that has given a subscriber all that was there yields a :class:`Tail`: "from here on I am the same for
everybody of this name". Whoever can be *offered* text without waiting then listens in an :class:`Audience`; a source
whose context is not ``together`` goes on by itself instead.

Invariant: nobody gets what was made for somebody else's sight. An audience is of one text, one set of variables and
one **standing**: all of a subject that its answers may depend on while they are shared. What is rendered is rendered
with a context that notices when anything more of the subject was looked at; then nothing is given out, and these
subscribers are from now on told with others of their very **viewer** only. Before each item every identity is asked
for its context anew, unless nobody's standing changed since (:data:`resolvers.transport.caller.Steady`): who stands
otherwise by now is sent its own way, and finds the audience of its new standing. So is, within a second, who was given
a role while nothing happened here: a source may leave out what this standing does not see.

Nobody is waited for and nothing is kept for anybody: a listener that cannot take an item now is sent its own way from
the place that it had reached, where it waits on its own connection and reads the log. So is everybody when an answer
has errors, for those carry the request id of each operation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from resolvers.transport.caller import Identity, Steady

log = structlog.get_logger("stratograph.transport")

Offer = Callable[[bytes], bool]
"""Sends a response if that can be done without waiting; whether it was sent."""

_TOLD_IN_A_TURN: Final = 100
"""Other requests get the loop after so many listeners."""
_ASKED_AT_ONCE: Final = 500
_LOOKED_AFTER_S: Final = 0.5


class Contexts(Protocol):
    """Gives a source the context to look with: of its audience, checked ``within_s`` seconds ago at most."""

    async def __call__(self, within_s: float = 0.0) -> Any:
        """The context."""


@dataclass(slots=True, eq=False)
class Tail:
    """Yielded by a source instead of an item. ``source`` gives the items behind ``place``, each with a ``place`` that
    is greater than the last one's. ``personal`` says that who may see them depends on more than the standing. When the
    source is asked for its next item, its subscriber was told meanwhile what came, as far as ``place``.
    """

    name: Hashable
    place: Any
    source: Callable[[Contexts], AsyncIterator[Any]]
    personal: bool = False


@dataclass(slots=True, eq=False)
class Listener:
    """One subscription in an audience. ``over`` tells whether the stream has ended, or it goes its own way. When its
    standing was asked for last, its identity's ``steady`` said ``stamp``.
    """

    view: View
    who: Identity
    built: Callable[[], Awaitable[Any]]
    offer: Offer
    place: Any
    over: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    stamp: Hashable | None = None

    @property
    def identity(self) -> Hashable:
        """Equal for all who showed the same."""
        return (self.who.key, self.who.expires_at)

    @property
    def steady(self) -> Steady | None:
        """What tells whether its identity's standing may have changed."""
        return getattr(self.who, "steady", None)

    async def context(self) -> Any:
        """Its context as of now."""
        steady = self.steady
        self.stamp = None if steady is None else steady()  # before it is asked for
        return await self.built()


class View(Protocol):
    """What is asked and how it is shown: equal ``shape``, equal questions. ``personal`` is set once an answer was found
    to depend on more than a standing.
    """

    personal: bool

    @property
    def shape(self) -> Hashable:
        """The question."""

    async def shown(self, item: Any, context: Any) -> bytes | None:
        """The response for all in whose name ``context`` looks; None when it cannot be the same for all."""


class _Deserted(Exception):  # noqa: N818 - a decision, not an error
    """Nobody is left."""


class Audience:
    """Listeners of one stream, one question and one sight. ``personal`` audiences are of one viewer, others of one
    standing.
    """

    def __init__(self, tail: Tail, view: View, sight: Hashable, over: Callable[[], None]) -> None:
        self._tail = tail
        self._view = view
        self._personal = tail.personal or view.personal
        self._sight = sight
        self._over = over
        self._place: Any = tail.place
        self._context: Any = None
        self._checked_at = 0.0
        self._stamps: dict[Steady, Hashable] | None = None
        self._expires_at: datetime | None = None
        self._came: set[tuple[Steady | None, Hashable | None]] = set()
        self._asking = asyncio.Lock()
        self._listeners: dict[Listener, None] = {}
        self._by_identity: dict[Hashable, dict[Listener, None]] = {}
        self._task: asyncio.Task[None] | None = None

    def join(self, listener: Listener) -> bool:
        """Take a listener in; False when it has missed what was given out already."""
        if self._place > listener.place:
            return False
        self._listeners[listener] = None
        self._by_identity.setdefault(listener.identity, {})[listener] = None
        self._expires_at = earlier(self._expires_at, listener.who.expires_at)
        self._came.add((listener.steady, listener.stamp))
        if listener.steady is None or (self._stamps or {}).get(listener.steady) != listener.stamp:
            self._stamps = None  # it was asked before something changed, or after
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="audience")
        return True

    def leave(self, listener: Listener) -> None:
        """A listener is gone; with the last one the audience ends."""
        self._forget(listener)
        if not self._listeners and self._task is not None:
            self._over()
            self._task.cancel()

    def __len__(self) -> int:
        return len(self._listeners)

    async def _run(self) -> None:
        ended = False
        try:
            source: Any = self._tail.source(self._checked)
            async with aclosing(source) as items:
                async for item in items:
                    await self._tell(item)
            ended = True
        except _Deserted:
            pass
        except Exception:
            log.exception("a shared stream broke; each of its subscribers goes on alone")
        finally:
            self._over()
            for listener in list(self._listeners):
                self._send_away(listener, ended=ended)

    async def look_after(self) -> None:
        """See that nobody stays whose standing has changed. Who cannot be asked now stays until there is something to
        tell.
        """
        async with self._asking:
            if not self._steady:
                await _context(next(iter(self._listeners), None))  # what ``steady`` goes by may just be old
            if not self._steady:
                await self._review(patient=True)

    async def _checked(self, within_s: float = 0.0) -> Any:
        """A context that all of us could have made in this moment; who could not is sent away."""
        if within_s and self._context is not None and self._now() - self._checked_at <= within_s:
            return self._context
        now = self._now()
        async with self._asking:
            # One is always asked: a context remembers what it has seen, and ``steady`` goes by what asking renews.
            found = await _context(next(iter(self._listeners), None))
            if found is None or not self._steady or sight(found, personal=self._personal) != self._sight:
                found = await self._review(patient=False)
        if found is None:
            raise _Deserted
        self._context, self._checked_at = found if self._personal else found.typical(), now
        return self._context

    @property
    def _steady(self) -> bool:
        """Whether all must stand as they did when they were asked."""
        if self._stamps is None or (self._expires_at is not None and datetime.now(UTC) >= self._expires_at):
            return False
        return all(steady() == stamp for steady, stamp in self._stamps.items())

    async def _review(self, *, patient: bool) -> Any:
        """Ask everybody for their context and send away who stands otherwise; one of those that agree, if any."""
        everybody = list(self._by_identity.values())
        asked = {next(iter(some)).steady for some in everybody}
        stamps = {each: None if each is None else each() for each in asked}
        self._stamps, self._came = None, set()
        found, sure = None, True
        self._expires_at = None
        for start in range(0, len(everybody), _ASKED_AT_ONCE):
            some = everybody[start : start + _ASKED_AT_ONCE]
            first = [next(iter(each), None) for each in some]  # None: they left while others were asked
            for each, one, context in zip(some, first, await asyncio.gather(*map(_context, first)), strict=True):
                if patient and context is None:
                    sure = False
                elif context is None or sight(context, personal=self._personal) != self._sight:
                    for listener in list(each):
                        self._send_away(listener)
                elif one is not None:
                    found, self._expires_at = context, earlier(self._expires_at, one.who.expires_at)
        if sure and None not in stamps.values() and all(stamps.get(each) == stamp for each, stamp in self._came):
            self._stamps = {each: stamp for each, stamp in stamps.items() if each is not None}
        return found

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _tell(self, item: Any) -> None:
        body = await self._view.shown(item, self._context)
        if body is None:
            for listener in list(self._listeners):
                listener.view.personal = self._view.personal
                self._send_away(listener)
            return
        place = self._place = item.place
        for number, listener in enumerate(list(self._listeners), 1):
            if listener not in self._listeners or not listener.place < place:
                continue  # it left while others were told, or had this already
            if listener.offer(body):
                listener.place = place
            else:
                self._send_away(listener)
            if number % _TOLD_IN_A_TURN == 0:
                await asyncio.sleep(0)

    def _send_away(self, listener: Listener, *, ended: bool = False) -> None:
        self._forget(listener)
        if not listener.over.done():
            listener.over.set_result(ended)

    def _forget(self, listener: Listener) -> None:
        self._listeners.pop(listener, None)
        some = self._by_identity.get(listener.identity)
        if some is not None:
            some.pop(listener, None)
            if not some:
                self._by_identity.pop(listener.identity, None)


class Audiences:
    """All audiences of one event loop."""

    def __init__(self) -> None:
        self._open: dict[Hashable, Audience] = {}
        self._task: asyncio.Task[None] | None = None

    async def follow(self, tail: Tail, listener: Listener) -> bool:
        """Listen where ``tail`` goes on. Whether the stream has ended; else its source goes on from ``tail.place``."""
        context, view = await listener.context(), listener.view
        personal = tail.personal or view.personal
        seen = sight(context, personal=personal)
        key = (tail.name, view.shape, personal, seen)
        audience = self._open.get(key)
        if audience is None:
            audience = self._open[key] = Audience(tail, view, seen, lambda: self._drop(key, audience))
        if not audience.join(listener):
            return False
        if self._task is None:
            self._task = asyncio.create_task(self._look_after(), name="audiences")
        try:
            return await listener.over
        finally:
            tail.place = listener.place
            audience.leave(listener)

    def _drop(self, key: Hashable, audience: Audience | None) -> None:
        if self._open.get(key) is audience:
            del self._open[key]
        if not self._open and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_LOOKED_AFTER_S)
            for audience in self.all:
                await audience.look_after()

    @property
    def all(self) -> list[Audience]:
        """Those that are open."""
        return list(self._open.values())


async def _context(listener: Listener | None) -> Any:
    if listener is None:
        return None
    try:
        return await listener.context()
    except Exception:  # noqa: BLE001 - whatever it is, their own way tells them
        return None


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """The first of two moments; None is never."""
    return min(one, other) if one is not None and other is not None else one or other


def sight(context: Any, *, personal: bool) -> Hashable:
    """What those have in common who may be told together."""
    found: Hashable = context.viewer if personal else context.standing
    return found
