"""A cloud's database as each of its processes opens it. No API is loaded for it: a worker on its own holds none."""

from __future__ import annotations

from gateway import migrations
from gateway.identity import bootstrap
from gateway.kernel import noun, secretbox
from gateway.kernel.db import Database
from gateway.kernel.settings import Settings


def open_database(settings: Settings) -> Database:
    """The database at its newest revision, with all that sessions are provided with."""
    noun.load_all()
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = Database(settings.database)
    migrations.upgrade(db)
    box = secretbox.load(settings.state_dir)
    db.provide("sealed", box)
    db.provide("settings", settings)
    bootstrap.equip(db, box)
    return db
