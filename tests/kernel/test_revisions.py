"""A start looks at revisions without loading Alembic; what it sees is what Alembic sees."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from alembic import command
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import select

from gateway import migrations
from gateway.compute.flavor import Flavor
from gateway.kernel import ids, noun
from gateway.kernel.db import Database
from gateway.metering.sample import SampleHour


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


def test_uids_kept_in_hexadecimal_are_found_by_their_digits_afterwards(tmp_path: Path) -> None:
    noun.load_all()
    db = Database(f"sqlite:///{tmp_path / 'old.db'}")
    uid, at = UUID("01a20a1a-7d8c-7107-8bc4-e09e8089ec2b"), datetime(2026, 3, 1, tzinfo=UTC)
    _moved(db, command.upgrade, "0018")
    with db.engine.connect() as connection:
        connection.exec_driver_sql(
            "INSERT INTO flavor (id, uid, version, created_at, updated_at, name, description, vcpus, ram_mib, "
            "disk_gib) VALUES (1, ?, 1, ?, ?, 'small', '', 1, 512, 10)", (uid.hex, f"{at:%F %T.%f}", f"{at:%F %T.%f}")
        )  # fmt: skip
        columns: dict[str, object] = {each["name"]: 0 for each in sa.inspect(connection).get_columns("sample_hour")}
        columns["server_uid"], columns["hour"] = uid.hex, f"{at:%F %T.%f}"
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(
            f"INSERT INTO sample_hour ({', '.join(columns)}) VALUES ({marks})", tuple(columns.values())  # noqa: S608 - our names
        )  # fmt: skip
        connection.commit()
    assert migrations.upgrade(db)
    with db.read() as session:
        flavor = session.exec(select(Flavor).where(Flavor.uid == uid)).one()
        assert (flavor.uid, flavor.name) == (uid, "small")
        assert session.exec(select(SampleHour.server_uid)).one() == uid
    assert _stored(db) == (ids.digits(uid), ids.digits(uid))
    _moved(db, command.downgrade, "0018")
    assert _stored(db) == (uid.hex, uid.hex)
    db.close()


def _moved(db: Database, move: Callable[..., None], to: str) -> None:
    settings = migrations.config()
    with db.engine.connect() as connection:
        settings.attributes["connection"] = connection
        move(settings, to)
        connection.commit()


def _stored(db: Database) -> tuple[str, str]:
    with db.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT flavor.uid, server_uid FROM flavor, sample_hour").one()
        return found[0], found[1]
