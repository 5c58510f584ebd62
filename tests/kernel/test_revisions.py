"""A start looks at revisions without loading Alembic; what it sees is what Alembic sees."""

from __future__ import annotations

from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from gateway import migrations
from gateway.kernel import noun
from gateway.kernel.db import Database


def test_our_look_at_revisions_is_alembics(tmp_path: Path) -> None:
    noun.load_all()
    db = Database(f"sqlite:///{tmp_path / 'a.db'}")
    with db.engine.connect() as connection:
        assert migrations.current(connection) is None
    assert migrations.upgrade(db)
    with db.engine.connect() as connection:
        told = MigrationContext.configure(connection).get_current_revision()
        assert migrations.current(connection) == told
    assert migrations.head() == told == ScriptDirectory.from_config(migrations.config()).get_current_head()
    db.close()
