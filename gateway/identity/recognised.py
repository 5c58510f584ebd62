"""The memory of recognised tokens: what was read of a token holds until somebody's standing changes, on any process.

Whatever takes something from a token (a session or key revoked, a user disabled, a role given or taken, a password set)
calls :func:`forget` in its unit of work. That empties the memory of this process at once and moves the **mark**, one
number in one row, when the work is committed. Every process reads the mark four times a second while tokens are shown
to it, whatever their number, and empties its memory when it moved.

Invariant: nothing is remembered on trust for longer than ``TRUSTED_S`` after a reading of the mark began, so that a
database that cannot be asked keeps nobody in. Nothing is decided here: :mod:`gateway.identity.authentication` fills it.
"""

import threading
import time
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, SQLModel, col

from gateway.kernel.db import Database, after_commit
from gateway.kernel.row import Key

TRUSTED_S = 0.6
"""How long a reading of the mark is relied on."""
READ_EVERY_S = 0.25
"""How often the mark is read while tokens are shown."""
KEPT_S = 30.0
"""How long a token is remembered at most: its last use is noted when it is looked up."""
_MOST = 10_000
_ONLY = 1
_MOVED = "standing_changed"


class IdentityMark(SQLModel, table=True):
    """One row: ``number`` rises with every change of somebody's standing."""

    __tablename__ = "identity_mark"

    id: int = Field(default=_ONLY, primary_key=True, sa_type=Key)
    number: int = Field(default=0, sa_type=Key)


_READ = sa.select(col(IdentityMark.number)).where(col(IdentityMark.id) == _ONLY)
_MOVE = (
    sa.update(IdentityMark)
    .where(col(IdentityMark.id) == _ONLY)
    .values(number=col(IdentityMark.number) + 1)
    .execution_options(synchronize_session=False)
)


class Recognised:
    """What was read of each token since the mark moved last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, Any]] = {}
        self._emptied = 0
        self._mark: int | None = None
        self._trusted_until = 0.0
        self.used = False
        """Whether anything was asked for since this was last set to False."""

    def get(self, key: str) -> Any:
        """The value; None when there is none, or when nothing may be relied on before the mark was read."""
        self.used = True
        found = self._kept.get(key)
        if found is None:
            return None
        now = time.monotonic()
        return found[1] if now < self._trusted_until and now < found[0] else None

    @property
    def trusted(self) -> bool:
        """Whether the mark was read lately."""
        return time.monotonic() < self._trusted_until

    @property
    def emptied(self) -> int:
        """How often it was: while this and ``trusted`` stay as they are, nobody's standing has changed."""
        return self._emptied

    def begin(self) -> int:
        """To be asked before the database is read, and given to :meth:`put`."""
        with self._lock:
            return self._emptied

    def put(self, key: str, value: Any, began: int) -> None:
        """Keep a value, unless the memory was emptied since ``began``: it might be older than what emptied it."""
        with self._lock:
            if began != self._emptied:
                return
            if len(self._kept) >= _MOST:
                self._kept = {}
            self._kept[key] = (time.monotonic() + KEPT_S, value)

    def empty(self) -> None:
        """Forget everything."""
        with self._lock:
            self._empty()

    def confirm(self, mark: int, began_at: float) -> None:
        """Rely on what is kept until ``TRUSTED_S`` after ``began_at``, when reading this mark began (monotonic)."""
        with self._lock:
            if mark != self._mark:
                self._mark = mark
                self._empty()
            self._trusted_until = max(self._trusted_until, began_at + TRUSTED_S)

    def _empty(self) -> None:
        self._emptied += 1
        self._kept = {}


def confirm(db: Database) -> None:
    """Read the mark and rely on the memory for a moment more. Blocks: one small statement."""
    memory: Recognised | None = db.provided("recognised")
    if memory is not None:
        began_at = time.monotonic()
        memory.confirm(db.value(_READ, {}) or 0, began_at)


def forget(session: Session) -> None:
    """Have every process recognise everybody anew once this unit of work is committed; this one at once."""
    if session.info.get(_MOVED) is not None:
        return
    session.info[_MOVED] = False
    sa.event.listen(session, "before_commit", _move)
    memory: Recognised | None = session.info.get("recognised")
    if memory is not None:
        after_commit(session, memory.empty)


def _move(session: Session) -> None:
    """Move the mark as the last thing, so that its row is held no longer than the commit takes."""
    if session.in_nested_transaction() or session.info[_MOVED]:
        return  # a savepoint's end is no commit
    session.info[_MOVED] = True
    session.flush()
    moved: Any = session.execute(_MOVE)
    if moved.rowcount == 0:
        session.execute(sa.insert(IdentityMark).values(id=_ONLY, number=1))
