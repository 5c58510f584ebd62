"""Revisions: a number that says when a row was last changed, in an order in which changes can be read again.

On PostgreSQL it is the number of the transaction that changed the row: all that was committed since a snapshot was
taken has a number at or above the oldest that ran then. SQLite has one writer at a time, so a number above all others
(the time in microseconds, or one more than the highest) is in the order of commits; the time keeps the number of a
deleted row from being given again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class Revision(FunctionElement[int]):
    """The next revision of a row of this table: for a column's ``default`` and ``onupdate``."""

    inherit_cache = True
    type = sa.BigInteger()

    def __init__(self, table: str) -> None:
        super().__init__(sa.literal_column(f"(SELECT coalesce(max(revision), 0) + 1 FROM {table})"))  # noqa: S608 - the name of our table


@compiles(Revision, "postgresql")
def _postgresql(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "(pg_current_xact_id()::text::bigint)"


@compiles(Revision)
def _sqlite(element: Any, compiler: Any, **options: Any) -> str:
    above = compiler.process(element.clauses, **options)
    return f"max({above}, CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER))"


class Horizon(FunctionElement[int]):
    """The revision of a table behind which nothing may be missing: what to ask for the next time."""

    inherit_cache = True
    type = sa.BigInteger()

    def __init__(self, table: str) -> None:
        # Not the column itself: that would put the table among those that the statement selects from.
        super().__init__(sa.literal_column(f"(SELECT max(revision) FROM {table})"))  # noqa: S608 - the name of our table


@compiles(Horizon, "postgresql")
def _postgresql_horizon(_element: Any, _compiler: Any, **_options: Any) -> str:
    return "(pg_snapshot_xmin(pg_current_snapshot())::text::bigint)"


@compiles(Horizon)
def _sqlite_horizon(element: Any, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


def since(dialect: str, column: Any, horizon: Any) -> sa.ColumnElement[bool]:
    """Whether a row was changed behind a horizon. Numbers that PostgreSQL has not given out yet come from where the
    database was restored from, and are old.
    """
    if dialect != "postgresql":
        later: sa.ColumnElement[bool] = column > horizon
        return later
    given_out = sa.literal_column("pg_snapshot_xmax(pg_current_snapshot())::text::bigint", sa.BigInteger)
    return sa.and_(column >= horizon, column < given_out)
