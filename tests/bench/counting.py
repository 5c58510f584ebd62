"""Counts what this process sends to a database: statements, and transactions that wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from gateway.kernel.db import Database


@dataclass(slots=True)
class Count:
    """What was sent. ``texts`` counts each statement, for those who look for waste."""

    statements: int = 0
    commits: int = 0
    reads: int = 0
    texts: Counter[str] = field(default_factory=Counter)


@contextmanager
def counted(db: Database) -> Iterator[Count]:
    """Count while the block runs, on all threads. ``reads`` are sessions that only read."""
    count = Count()

    def executed(*given: Any) -> None:
        if not given[2].startswith("BEGIN"):  # SQLAlchemy sends PostgreSQL's itself, unseen
            count.statements += 1
            count.texts[given[2]] += 1

    def committed(_connection: Any) -> None:
        count.commits += 1

    def ended(_connection: Any) -> None:
        count.reads += 1

    listeners = [(db.engine, "before_cursor_execute", executed), (db.engine, "commit", committed)]
    listeners.append((db._read, "rollback", ended))
    if db._read is not db.engine and db.sqlite:
        listeners.append((db._read, "before_cursor_execute", executed))
    for target, name, call in listeners:
        sa.event.listen(target, name, call)
    try:
        yield count
    finally:
        for target, name, call in listeners:
            sa.event.remove(target, name, call)
