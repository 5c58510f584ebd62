"""The transport's Identity from the cloud's recognition of a token: the adapter between the two, and nothing else.

The composition root gives ``Recogniser(db).authenticate`` to the transport, and makes each operation's context with
``await identity.current(caller)``: a socket that stays open for an hour asks with the roles of this moment.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from gateway.identity import authentication
from gateway.identity.authentication import Recognition
from gateway.identity.recognised import READ_EVERY_S, Recognised, confirm
from gateway.kernel.access import Subject
from gateway.kernel.db import Database
from gateway.kernel.errors import Unauthenticated, Unavailable
from resolvers.kernel.context import on_thread
from resolvers.transport.caller import Caller, Steady

_READ_TOGETHER = 500
_QUIET_READINGS = 8
"""The mark is read so often after the last token was shown."""


class Door:
    """Where tokens are shown. A thread is only needed for one that is not remembered; those that are shown while it
    reads are read together next, however many they are: thousands of sockets ask when somebody's standing changed.
    While tokens are shown, the mark of :mod:`gateway.identity.recognised` is read in the background, so that nobody
    waits for it.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._asked: dict[str, asyncio.Future[Recognition | Unauthenticated]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def recognised(self, token: str) -> Recognition:
        """Whose token this is. Raises Unauthenticated."""
        known = authentication.remembered(self._db, token)
        if known is not None:
            return known
        asked = self._asked.get(token)
        if asked is None:
            asked = self._asked[token] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="door")
        self._keep_watching()
        found = await asyncio.shield(asked)
        if isinstance(found, Unauthenticated):
            raise Unauthenticated(found.message)
        return found

    async def _read(self) -> None:
        """Read what was asked for, until nothing is. What is asked for meanwhile is read after it was asked for."""
        try:
            while self._asked:
                some = {token: self._asked.pop(token) for token in list(self._asked)[:_READ_TOGETHER]}
                try:
                    found = await on_thread(partial(authentication.authenticate_all, self._db, list(some)))
                except Exception as error:  # noqa: BLE001 - it is told to those who asked
                    for future in some.values():
                        future.set_exception(error)
                        future.exception()  # nobody may be left who asked
                    continue
                for future, seen in zip(some.values(), found, strict=True):
                    future.set_result(seen)
        finally:
            self._reading = None

    def steady(self) -> int | None:
        """See :data:`resolvers.transport.caller.Steady`: what is remembered of tokens was all read since the last time
        that somebody's standing changed, on whichever process.
        """
        memory: Recognised | None = self._db.provided("recognised")
        if memory is None:
            return None
        memory.used = True
        self._keep_watching()
        return memory.emptied if memory.trusted else None

    def _keep_watching(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Keep what is remembered good, until no token was shown for a while."""
        memory: Recognised | None = self._db.provided("recognised")
        quiet = 0
        while memory is not None and quiet < _QUIET_READINGS:
            quiet = 0 if memory.used else quiet + 1
            memory.used = False
            await asyncio.sleep(READ_EVERY_S)
            with suppress(Unavailable):  # then nothing is relied on, and whoever comes is told
                await asyncio.to_thread(confirm, self._db)


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Somebody who showed no token. Counted by address."""

    key: str
    expires_at: datetime | None = None

    async def valid(self) -> bool:
        """Nothing was shown that could end."""
        return True

    async def current(self, caller: Caller, request_id: str | None = None) -> Subject:
        """Nobody, from that address."""
        return Subject(
            request_id=request_id or caller.request_id, address=caller.ip or "", user_agent=caller.user_agent or ""
        )


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody whose token was recognised. ``key`` is the TypeID of the session or API key."""

    key: str
    expires_at: datetime | None
    token: str = field(repr=False)
    door: Door = field(repr=False, compare=False)
    told: dict[str, tuple[Recognition, Subject]] = field(default_factory=dict, repr=False, compare=False)
    """The subject of the newest operation, as long as who it is was not looked up anew."""

    @property
    def steady(self) -> Steady:
        """The same for all who were recognised here."""
        return self.door.steady

    async def valid(self) -> bool:
        """Whether the token still is recognised; asks no database while tokens are shown."""
        try:
            await self.door.recognised(self.token)
        except Unauthenticated:
            return False
        return True

    async def current(self, caller: Caller, request_id: str | None = None) -> Subject:
        """The subject with the roles of this moment. Raises Unauthenticated when the token was revoked meanwhile."""
        found = await self.door.recognised(self.token)
        request_id = request_id or caller.request_id
        last = self.told.get(request_id)
        if last is not None and last[0] is found:
            return last[1]
        subject = authentication.told(
            found, address=caller.ip or "", request_id=request_id, user_agent=caller.user_agent or ""
        )
        self.told.clear()
        self.told[request_id] = (found, subject)
        return subject


class Recogniser:
    """Recognises callers against one database."""

    def __init__(self, db: Database) -> None:
        self._door = Door(db)

    async def authenticate(self, caller: Caller) -> Anonymous | Known:
        """The caller's identity. Raises Unauthenticated for a token that is worth nothing: it never counts as none."""
        token = caller.token
        if token is None:
            return Anonymous(f"address {caller.ip}")
        found = await self._door.recognised(token)
        return Known(found.key, found.expires_at, token, self._door)
