"""Migrations: the database's structure, by Alembic, alike on SQLite and PostgreSQL.

``upgrade`` brings a database to the newest revision; processes that start together take turns. A new revision is made
by gateway.migrations.revise from the difference to the models, read by a person, and tested on both databases.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from gateway.kernel.db import Database

_LOCK = 0x57A7_06_4A
"""An arbitrary key of PostgreSQL's advisory locks: one upgrade at a time."""


def config() -> Config:
    """Alembic's configuration."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    return made


def upgrade(db: Database) -> bool:
    """Bring the database to the newest revision; whether anything was to do."""
    with db.engine.connect() as connection:
        if not db.sqlite:
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            connection.commit()
        try:
            if current(connection) == head():
                return False
            connection.rollback()
            settings = config()
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
            connection.commit()
            return True
        finally:
            if not db.sqlite:
                connection.rollback()
                connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
                connection.commit()


def current(connection: sa.Connection) -> str | None:
    """The revision the database is at."""
    return MigrationContext.configure(connection).get_current_revision()


def head() -> str | None:
    """The newest revision there is."""
    return ScriptDirectory.from_config(config()).get_current_head()
