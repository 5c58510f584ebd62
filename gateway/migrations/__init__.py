"""Migrations: the database's structure, by Alembic, alike on SQLite and PostgreSQL.

``upgrade`` brings a database to the newest revision; processes that start together take turns. A new revision is made
by gateway.migrations.revise from the difference to the models, read by a person, and tested on both databases.

A database that is up to date is told by two looks of our own, so that a start in ordinary times does not load Alembic
(a tenth of all that a start loads).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from gateway.kernel.db import Database

if TYPE_CHECKING:
    from alembic.config import Config

_LINES = re.compile(r"""^(revision|down_revision)\b[^=]*= *['"]?(\w+)""", re.MULTILINE)
"""What a revision's file says of itself, as written by Alembic's template."""
_LOCK = 0x57A7_06_4A
"""An arbitrary key of PostgreSQL's advisory locks: one upgrade at a time."""


def config() -> Config:
    """Alembic's configuration."""
    from alembic.config import Config

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
            from alembic import command

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
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def head() -> str | None:
    """The newest revision there is: the one that no other comes after."""
    found: list[dict[str, str]] = [
        dict(_LINES.findall(path.read_text())) for path in Path(__file__).parent.glob("versions/*.py")
    ]
    newest = {each["revision"] for each in found} - {each["down_revision"] for each in found}
    if len(newest) != 1:
        raise AssertionError(f"there is not one newest revision but {sorted(newest)}")
    return newest.pop()
