"""Writes a new revision from the difference between the models and the newest revision: ``python -m
gateway.migrations.revise "what changes"``. Read it before you commit it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command

from gateway.kernel import noun
from gateway.kernel.db import Database
from gateway.migrations import config, upgrade


def revise(message: str) -> None:
    """Autogenerate on an empty SQLite database at the newest revision."""
    noun.load_all()
    with tempfile.TemporaryDirectory() as folder:
        db = Database(f"sqlite:///{Path(folder) / 'empty.db'}")
        upgrade(db)
        settings = config()
        with db.engine.connect() as connection:
            settings.attributes["connection"] = connection
            versions = Path(__file__).parent / "versions"
            number = f"{len(list(versions.glob('[0-9]*.py'))) + 1:04d}"
            command.revision(settings, message=message, autogenerate=True, rev_id=number)
            connection.rollback()
        db.close()


if __name__ == "__main__":
    revise(" ".join(sys.argv[1:]) or "Change the tables")
