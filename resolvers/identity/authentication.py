"""The transport's Identity from the cloud's recognition of a token: the adapter between the two, and nothing else.

The composition root gives ``Recogniser(db).authenticate`` to the transport, and makes each operation's context with
``await identity.current(caller)``: a socket that stays open for an hour asks with the roles of this moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from gateway.identity import authentication
from gateway.identity.authentication import Recognition
from gateway.kernel.access import Subject
from gateway.kernel.db import Database
from gateway.kernel.errors import Unauthenticated
from resolvers.kernel.context import on_thread
from resolvers.transport.caller import Caller


async def _recognised(db: Database, token: str) -> Recognition:
    """Whose token this is; a thread is only needed when it was not used within the last quarter second."""
    known = authentication.remembered(db, token)
    return known if known is not None else await on_thread(lambda: authentication.authenticate(db, token))


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
    token: str
    db: Database

    async def valid(self) -> bool:
        """Whether the token still is recognised; a quarter second behind at most."""
        try:
            await _recognised(self.db, self.token)
        except Unauthenticated:
            return False
        return True

    async def current(self, caller: Caller, request_id: str | None = None) -> Subject:
        """The subject with the roles of this moment. Raises Unauthenticated when the token was revoked meanwhile."""
        found = await _recognised(self.db, self.token)
        return authentication.told(
            found,
            address=caller.ip or "",
            request_id=request_id or caller.request_id,
            user_agent=caller.user_agent or "",
        )


class Recogniser:
    """Recognises callers against one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def authenticate(self, caller: Caller) -> Anonymous | Known:
        """The caller's identity. Raises Unauthenticated for a token that is worth nothing: it never counts as none."""
        token = caller.token
        if token is None:
            return Anonymous(f"address {caller.ip}")
        found = await _recognised(self._db, token)
        return Known(found.key, found.expires_at, token, self._db)
