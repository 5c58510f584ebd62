"""Idempotency keys: a mutation sent twice is carried out once.

The key belongs to its user. It is reserved in the mutation's own transaction, so of two that race one waits, is run
again by :meth:`Database.run`, and finds the other's answer. A refused mutation keeps nothing: its key stays free.
Answers are kept as ids (secrets never) and forgotten after 24 hours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Field, Session, col, select

from gateway.kernel import clock, ids, noun
from gateway.kernel.access import Subject
from gateway.kernel.errors import IdempotencyKeyMismatch
from gateway.kernel.row import Json, Key, Record, Row

KEPT = timedelta(hours=24)


class IdempotencyKey(Record, table=True):
    """A key that was used. ``digest`` is the SHA-256 of the operation's name and input."""

    __tablename__ = "idempotency_key"

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    user_id: int = Field(sa_type=sa.BigInteger)
    key: str = Field(max_length=255)
    digest: str = Field(max_length=64)
    answer: dict[str, Any] = Field(default_factory=dict, sa_type=Json)
    at: datetime = Field(index=True)

    __table_args__ = (sa.UniqueConstraint("user_id", "key"),)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client sent under a key."""

    operation: str
    key: str
    digest: str


def answer(session: Session, subject: Subject, asked: Asked) -> dict[str, Any] | None:
    """The answer kept for this key, None when it is new. Raises IdempotencyKeyMismatch for other arguments."""
    kept = _get(session, subject, asked)
    if kept is None or kept.at < clock.now(session) - KEPT:
        return None
    if kept.digest != asked.digest:
        raise IdempotencyKeyMismatch("This idempotency key was used with other arguments.", path=("idempotencyKey",))
    return {name: _restore(session, subject, value) for name, value in kept.answer.items()}


def reserve(session: Session, subject: Subject, asked: Asked) -> None:
    """Take the key, in this unit of work, after :func:`answer` had none. On PostgreSQL another may have committed its
    answer between the two: then the unit of work is run again, and finds it.
    """
    old = _get(session, subject, asked)
    if old is not None:
        if old.at >= clock.now(session) - KEPT:
            raise StaleDataError("the key was used at the same time")
        session.delete(old)
        session.flush()
    session.add(IdempotencyKey(user_id=subject.user_id, key=asked.key, digest=asked.digest, at=clock.now(session)))
    session.flush()


def keep(session: Session, subject: Subject, asked: Asked, outcome: Mapping[str, Any]) -> None:
    """Keep what was answered."""
    kept = _get(session, subject, asked)
    if kept is None:
        raise AssertionError("a key is kept that was not reserved")
    kept.answer = {name: _reduce(value) for name, value in outcome.items()}


def prune(session: Session) -> int:
    """Forget old keys; how many."""
    gone = session.execute(sa.delete(IdempotencyKey).where(col(IdempotencyKey.at) < clock.now(session) - KEPT))
    return int(getattr(gone, "rowcount", 0))


def _get(session: Session, subject: Subject, asked: Asked) -> IdempotencyKey | None:
    return session.exec(
        select(IdempotencyKey).where(IdempotencyKey.user_id == subject.user_id, IdempotencyKey.key == asked.key)
    ).first()


def _reduce(value: Any) -> Any:
    if isinstance(value, Row):
        return {"node": noun.public(value)}
    if isinstance(value, list):
        return [_reduce(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else None


def _restore(session: Session, subject: Subject, value: Any) -> Any:
    if isinstance(value, list):
        return [each for each in (_restore(session, subject, one) for one in value) if each is not None]
    if isinstance(value, dict):
        prefix, uid = ids.decode(value["node"])
        return noun.BY_PREFIX[prefix].find(session, subject, [uid]).get(uid)
    return value
