"""The time, as a dependency. Domain code asks ``clock.now(session)``; only a composition root decides what that is.

Invariant: every moment in the database is UTC with a zone. Not here: monotonic time for deadlines, which belongs to
whoever waits.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlmodel import Session

Clock = Callable[[], datetime]


def system() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def now(session: Session) -> datetime:
    """The moment by the clock which the session's database was opened with."""
    clock: Clock = session.info["clock"]
    return clock()
