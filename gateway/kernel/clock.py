"""The time, as a dependency. Domain code asks ``clock.now(session)``; only a composition root decides what that is.

Invariant: every moment in the database is UTC with a zone. Not here: monotonic time for deadlines, which belongs to
whoever waits.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

Clock = Callable[[], datetime]


class Informed(Protocol):
    """What knows a cloud's clock, settings and keys without asking its database: a session, or the database itself."""

    @property
    def info(self) -> dict[Any, Any]:
        """What the composition root provided, by name."""


def system() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def now(session: Informed) -> datetime:
    """The moment by the clock which the database was opened with."""
    clock: Clock = session.info["clock"]
    return clock()
