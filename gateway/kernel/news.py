"""News between processes: on PostgreSQL, whoever commits events has the others told, so nobody has to keep looking.

A NOTIFY goes along with the COMMIT, in one message to the server, but as a transaction of its own **after** it: one
that is part of the transaction would make all commits of the server wait for each other (PostgreSQL holds a lock over
them until each is on the disk). It waits for no disk itself. An :class:`Ear` holds a connection that listens.
Invariant: news are only a reason to look. One that is lost (the server died between the two, a pooler in between
swallows them) costs the time until the next look, never an event; an ear counts as hearing only once it has heard a
probe that went through the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
import structlog

from gateway.kernel.db import Database
from gateway.kernel.prepared import Prepared

CHANNEL = "stratograph_events"
AGAIN_S = 1.0
"""How long an ear that lost its connection waits before it opens another."""
_NOTIFY = Prepared(
    sa.select(
        sa.func.set_config("synchronous_commit", "off", sa.true()),  # for this transaction: nothing of it is kept
        sa.func.pg_notify(sa.literal_column(f"'{CHANNEL}'"), sa.bindparam("who", type_=sa.Text)),
    )
)

log = structlog.get_logger(__name__)


def tell(db: Database) -> None:
    """Tell every ear on this database, signed with who tells. Raises Unavailable."""
    db.value(_NOTIFY, {"who": db.token})


def tell_of_commits(db: Database) -> None:
    """From now on tell every ear of what is committed through this object, when it has events."""
    if not db.sqlite:
        db.provide("tell", lambda session: _NOTIFY.afterwards(session, who=db.token))


class Ear:
    """Calls ``heard`` on the running loop whenever another process tells. ``hears`` says whether that can be relied on
    just now; where not, look often.
    """

    def __init__(self, db: Database, heard: Callable[[], None]) -> None:
        self._db = db
        self._heard = heard
        self.hears = False

    async def listen(self) -> None:
        """Listen until cancelled, over lost connections. Returns at once on SQLite, which has nobody to listen to."""
        if self._db.sqlite:
            return
        while True:
            try:
                await self._connected()
            except Exception as error:  # noqa: BLE001 - whatever ended it, another connection is the way on
                log.debug("the ear lost its connection", error=repr(error))
            self.hears = False
            self._heard()  # something may have been told in between
            await asyncio.sleep(AGAIN_S)

    async def _connected(self) -> None:
        """Listen on one connection until it breaks."""
        import psycopg  # only there where PostgreSQL is

        address = self._db.url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection: Any = await psycopg.AsyncConnection.connect(address, autocommit=True)
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        try:
            await connection.execute(f"LISTEN {CHANNEL}")
            libpq = connection.pgconn
            loop.add_reader(libpq.socket, news.set)
            try:
                await asyncio.to_thread(tell, self._db)
                while True:
                    libpq.consume_input()  # takes what has come, and never waits
                    while (told := libpq.notifies()) is not None:
                        self._told(told.extra.decode())
                    await news.wait()
                    news.clear()
            finally:
                loop.remove_reader(libpq.socket)
        finally:
            await connection.close()

    def _told(self, who: str) -> None:
        if not self.hears:
            log.debug("the ear hears")
        self.hears = True
        if who != self._db.token:  # of its own commits a process knows without
            self._heard()
