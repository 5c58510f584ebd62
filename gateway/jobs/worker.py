"""The workers that are alive, and which of them visits a host.

Each worker process keeps one row with the moment until which it counts as alive, and moves that on while it lives. Who
visits what follows from the names of the living alone (rendezvous hashing), so nothing is handed over or negotiated:
all who read the same rows come to the same answer, and one that comes or goes changes the owner of its own share only.

Invariant: among the living, each key has exactly one owner. A worker whose own row has run out owns nothing until it
has shown itself again. Two may visit a host at once for a moment, while one has read the rows and the other changed
them; what visits do is harmless when done twice.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b

import sqlalchemy as sa
from sqlmodel import Field, Session, SQLModel, col, select

from gateway.jobs.turn import Turn
from gateway.kernel import clock

LASTS = timedelta(seconds=15)
"""How long a sign of life counts: so late at most, and one turn more, a dead worker's hosts are visited by others."""
NAME_CHARS = 56
"""A name is that long at most."""


class Worker(SQLModel, table=True):
    """One worker process."""

    __tablename__ = "worker"

    name: str = Field(primary_key=True, max_length=NAME_CHARS)
    alive_until: datetime


def show(session: Session, name: str) -> None:
    """A sign of life; forgets those whose last one is over."""
    now = clock.now(session)
    forget(session, session.exec(select(Worker.name).where(col(Worker.alive_until) <= now, Worker.name != name)).all())
    moved = session.execute(sa.update(Worker).where(col(Worker.name) == name).values(alive_until=now + LASTS))
    if not getattr(moved, "rowcount", 0):
        session.add(Worker(name=name, alive_until=now + LASTS))


def forget(session: Session, names: Iterable[str]) -> None:
    """These are gone, and their turns with them."""
    gone = list(names)
    if gone:
        session.execute(sa.delete(Worker).where(col(Worker.name).in_(gone)))
        session.execute(sa.delete(Turn).where(col(Turn.name).in_([turn("samples", name) for name in gone])))


def turn(work: str, name: str) -> str:
    """What a worker's own turn at some work is called."""
    return f"{work} {name}"


def known(session: Session) -> list[str]:
    """All that have a row, alive or not."""
    return list(session.exec(select(Worker.name)))


def alive(session: Session) -> tuple[str, ...]:
    """The names of the living, sorted."""
    return tuple(session.exec(select(Worker.name).where(Worker.alive_until > clock.now(session)).order_by(Worker.name)))


@lru_cache(maxsize=1 << 16)
def owner(names: tuple[str, ...], key: int) -> str | None:
    """Which of these workers visits the host of that key; None when there are none."""
    return max(names, key=lambda name: (blake2b(f"{name} {key}".encode(), digest_size=8).digest(), name), default=None)
