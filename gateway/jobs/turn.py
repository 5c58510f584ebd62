"""Turns: work that one process of many does now and then. A turn is taken by one conditional update, so however many
workers look at the same time, one does it.
"""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, SQLModel, col

from gateway.kernel import clock


class Turn(SQLModel, table=True):
    """When a kind of work may next be done."""

    __tablename__ = "turn"

    name: str = Field(primary_key=True, max_length=64)
    next_at: datetime


def take(session: Session, name: str, every: timedelta) -> bool:
    """Whether the caller may do it now; the next may be taken ``every`` later."""
    now = clock.now(session)
    taken = session.execute(
        sa.update(Turn).where(col(Turn.name) == name, col(Turn.next_at) <= now).values(next_at=now + every)
    )
    if getattr(taken, "rowcount", 0):
        return True
    if session.get(Turn, name) is not None:
        return False
    try:
        with session.begin_nested():
            session.add(Turn(name=name, next_at=now + every))
            session.flush()
    except IntegrityError:
        return False
    return True
