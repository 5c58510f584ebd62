"""News between processes: on PostgreSQL, whoever commits events has the others told, so nobody has to keep looking.

A :class:`Teller` sends a NOTIFY **after** the commit, on a thread of its own: one that is part of the transaction would
make all commits of the server wait for each other (PostgreSQL holds a lock over them until each is on the disk). While
one is under way, further commits wait for the next and are told together. An :class:`Ear` holds a connection that
listens. Invariant: news are only a reason to look. One that is lost (a process died between commit and telling, a
pooler in between swallows them) costs the time until the next look, never an event; an ear counts as hearing only once
it has heard a probe that went through the pool.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
import structlog

from gateway.kernel.db import Database
from gateway.kernel.errors import Unavailable
from gateway.kernel.prepared import Prepared

CHANNEL = "stratograph_events"
AGAIN_S = 1.0
"""How long an ear that lost its connection waits before it opens another."""
_NOTIFY = Prepared(sa.select(sa.func.pg_notify(sa.literal_column(f"'{CHANNEL}'"), sa.bindparam("who", type_=sa.Text))))

log = structlog.get_logger(__name__)


def tell(db: Database) -> None:
    """Tell every ear on this database, signed with who tells. Raises Unavailable."""
    db.value(_NOTIFY, {"who": db.token})


class Teller:
    """Tells others of what is committed through this object's database. Does nothing on SQLite."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._due = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        if self._db.sqlite:
            return
        self._db.announced.append(self._due.set)
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Tell what is still to be told, and end."""
        with suppress(ValueError):
            self._db.announced.remove(self._due.set)
        self._stopping = True
        self._due.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._due.wait()
            self._due.clear()
            stopping = self._stopping
            try:
                tell(self._db)
            except Unavailable:
                log.debug("others were not told of a commit; they look for themselves")
            except Exception:
                log.exception("others could not be told of a commit")


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
