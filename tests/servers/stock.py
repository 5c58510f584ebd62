"""PostgreSQL databases that tests have one after the other: emptied in between, which takes milliseconds.

A copy of the template and its removal cost a third of a second, most of it checkpoints and a thousand small files. So a
worker keeps what it copied. What a test gets is as a fresh copy: no rows but the template's own, every sequence at its
start, nobody connected. A database whose tables, columns or indexes are no longer the template's is dropped instead of
kept, and so is one that was used ``TURNS`` times, since deleted rows stay in its files (no vacuum runs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from tests.servers.postgres import PostgresServer

TURNS = 50
SHAPE = """
SELECT c.relname, c.relkind::text, c.relchecks, a.attname, a.atttypid::bigint, a.attnotnull, a.atthasdef
FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg\\_%' OR nspname = 'information_schema')
ORDER BY c.relname, a.attnum
"""
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
ALONE = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
REWIND = """
SELECT setval(format('%I.%I', schemaname, sequencename), start_value, false)
FROM pg_sequences WHERE last_value IS NOT NULL
"""


@dataclass(slots=True)
class Kept:
    """One database, and a connection that empties it."""

    url: str
    connection: psycopg.Connection[tuple[object, ...]]
    shape: list[tuple[object, ...]]
    own: dict[str, list[tuple[object, ...]]]
    """The template's own rows by table."""
    tables: list[str]
    turns: int = 0

    @classmethod
    def opened(cls, url: str) -> Kept:
        """A copy of the template that nobody has used."""
        connection = psycopg.connect(
            url.replace("+psycopg", ""), autocommit=True, row_factory=tuple_row, prepare_threshold=0
        )
        made = cls(url, connection, connection.execute(SHAPE).fetchall(), {}, [])
        made.tables = [str(each[0]) for each in connection.execute(TABLES)]
        made.own = {name: made._rows(name) for name in made.filled()}
        connection.execute("SET session_replication_role = replica")  # rows go in any order, whoever refers to them
        return made

    def filled(self) -> list[str]:
        """The tables that have rows."""
        each = sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})")
        asked = [each.format(sql.Literal(name), sql.Identifier(name)) for name in self.tables]
        return [str(found[0]) for found in self.connection.execute(sql.SQL(" UNION ALL ").join(asked))] if asked else []

    def empty(self) -> bool:
        """Make it as it was; whether that could be done."""
        self.connection.execute(ALONE)
        if self.connection.execute(SHAPE).fetchall() != self.shape:
            return False
        gone = [name for name in self.filled() if name not in self.own]
        with self.connection.transaction():
            for name in gone:
                self.connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
            self.connection.execute(REWIND)
        return {name: self._rows(name) for name in self.filled()} == self.own

    def _rows(self, name: str) -> list[tuple[object, ...]]:
        return self.connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))).fetchall()


@dataclass(slots=True)
class Stock:
    """The databases of one worker, all copies of one template."""

    server: PostgresServer
    name: str
    prepare: Callable[[str], None]
    free: list[Kept] = field(default_factory=list)
    lent: dict[str, Kept] = field(default_factory=dict)

    def take(self) -> str:
        """The address of a database as the template is."""
        if not self.free:
            template = self.server.template(self.name, self.prepare)
            self.free.append(Kept.opened(self.server.create_database(template=template)))
        taken = self.free.pop()
        taken.turns += 1
        self.lent[taken.url] = taken
        return taken.url

    def give_back(self, url: str) -> None:
        """Empty it for the next, or drop it."""
        kept = self.lent.pop(url)
        if kept.turns < TURNS and kept.empty():
            self.free.append(kept)
            return
        self.drop(kept)

    def drop(self, kept: Kept) -> None:
        """Have one less."""
        kept.connection.close()
        self.server.drop_database(kept.url)
