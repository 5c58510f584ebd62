"""Counting SQL statements: a list must cost the same number of them for one row and for many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from gateway.kernel.db import Database


@contextmanager
def counted(db: Database) -> Iterator[list[str]]:
    """The statements that a database was sent meanwhile, reads and writes."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    engines = [db._read, db._write]
    for each in engines:
        sa.event.listen(each, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        for each in engines:
            sa.event.remove(each, "before_cursor_execute", note)
