"""Statements over libpq: as psycopg's cursors would carry them out, over rollbacks and lost connections too."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlmodel import Session

from gateway.kernel import straight
from gateway.kernel.db import Database
from gateway.kernel.errors import Unavailable
from gateway.kernel.prepared import Prepared

META = sa.MetaData()
THING = sa.Table(
    "thing", META,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("uid", sa.Uuid), sa.Column("at", sa.DateTime(timezone=True)), sa.Column("told", JSONB),
    sa.Column("name", sa.String), sa.Column("whole", sa.Boolean), sa.Column("share", sa.Float),
    sa.Column("raw", sa.LargeBinary),
)  # fmt: skip
NAMES = [each.name for each in THING.columns]
ADD = Prepared(sa.insert(THING).values({name: sa.bindparam(name) for name in NAMES}))
READ = Prepared(sa.select(THING).where(THING.c.id == sa.bindparam("key")))
KEYS = Prepared(sa.select(THING.c.id).order_by(THING.c.id))
RENAME = Prepared(sa.update(THING).where(THING.c.id >= sa.bindparam("least")).values(name=sa.bindparam("to")))
PID = sa.text("SELECT pg_backend_pid()")
ODD: dict[str, Any] = {
    "id": 2**40, "uid": UUID(int=7), "at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "told": {"a": [1, 2.5, None, "é\\\"'%s:x"], "b": {}}, "name": "%(x)s :y $1 \\ '\" ü\n", "whole": True,
    "share": 0.1, "raw": b"\x00\xff'\\",
}  # fmt: skip


@pytest.fixture
def db(postgres_url: str) -> Iterator[Database]:
    found = Database(postgres_url)
    META.create_all(found.engine)
    yield found
    found.close()


def add(db: Database, key: int, **more: Any) -> None:
    db.run(lambda session: ADD.run(session, **{**dict.fromkeys(NAMES), **more, "id": key}))


def keys(db: Database) -> list[int]:
    with db.read() as session:
        return [key for (key,) in KEYS.all(session)]


def test_values_come_back_as_an_ordinary_statement_reads_them(db: Database) -> None:
    db.run(lambda session: ADD.run(session, **ODD))
    add(db, 1)
    with db.read() as session:
        for key in (ODD["id"], 1, 3):
            assert READ.first(session, key=key) == session.execute(sa.select(THING).where(THING.c.id == key)).first()
        assert dict(zip(NAMES, READ.first(session, key=ODD["id"]), strict=True)) == ODD
        assert READ.all(session, key=3) == []


def test_changes_are_counted(db: Database) -> None:
    for key in range(5):
        add(db, key)
    assert db.run(lambda session: RENAME.run(session, least=2, to="x")) == 3
    assert db.run(lambda session: RENAME.run(session, least=9, to="x")) == 0


@pytest.mark.parametrize("count", [1, 3, 50])
def test_many_are_written_together_or_not_at_all(db: Database, count: int) -> None:
    rows = [{**dict.fromkeys(NAMES), "id": key} for key in range(count)]
    db.run(lambda session: ADD.each(session, rows))
    assert keys(db) == list(range(count))
    with pytest.raises(IntegrityError):
        db.run(lambda session: ADD.each(session, [{**rows[0], "id": count}, *rows]))
    assert keys(db) == list(range(count))


def test_it_is_part_of_the_transaction(db: Database) -> None:
    """Also when it is the first statement of it, and with what went before it taken back to a savepoint."""
    db.rehearse(lambda session: ADD.run(session, **{**dict.fromkeys(NAMES), "id": 1}))
    assert keys(db) == []
    with db.write() as session:
        ADD.run(session, **{**dict.fromkeys(NAMES), "id": 1})
        with pytest.raises(IntegrityError), session.begin_nested():
            ADD.each(session, [{**dict.fromkeys(NAMES), "id": 2}] * 2)
        ADD.run(session, **{**dict.fromkeys(NAMES), "id": 3})
    assert keys(db) == [1, 3]


def test_statements_outlive_rollbacks(db: Database) -> None:
    """After a rollback psycopg has the server forget every statement, once it has prepared one of its own."""
    add(db, 1)
    with db.read() as session:
        pid = session.execute(PID).scalar_one()
    for _ in range(10):
        with db.read() as session:
            session.execute(sa.select(THING.c.name)).all()
    for _ in range(3):
        db.rehearse(
            lambda session: (session.execute(sa.select(THING.c.name)).all(), RENAME.run(session, least=0, to=""))
        )
        with db.write() as session, pytest.raises(ProgrammingError), session.begin_nested():
            session.execute(sa.text("SELECT nothing"))
        assert keys(db) == [1]
    with db.read() as session:
        assert session.execute(PID).scalar_one() == pid


def test_old_statements_give_way(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(straight, "_STATEMENTS", 3)
    different = [Prepared(sa.select(sa.literal_column(str(number)))) for number in range(7)]
    with db.write() as session:
        for _ in range(2):
            assert [each.value(session) for each in different] == list(range(7))
        held = session.execute(sa.text("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'straight%'"))
        assert held.scalar_one() == 3


def test_a_table_may_change_under_a_statement(db: Database) -> None:
    add(db, 1)
    assert keys(db) == [1]
    with db.engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE thing"))
    META.create_all(db.engine)
    assert keys(db) == []


def test_a_connection_that_was_cut_is_replaced(db: Database) -> None:
    add(db, 1)
    cut = sa.text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
                  " AND pid <> pg_backend_pid()")  # fmt: skip
    other = sa.create_engine(db.url, poolclass=sa.NullPool)
    with other.connect() as connection:
        connection.execute(cut)
    assert db.look(lambda session: READ.first(session, key=1))[0] == 1
    with other.connect() as connection:
        connection.execute(cut)
    with db.engine.connect() as connection, pytest.raises(OperationalError) as caught:
        KEYS.all(connection)
    assert caught.value.connection_invalidated
    other.dispose()


@pytest.mark.parametrize("way", [RENAME.run, RENAME.later], ids=["at once", "owed"])
def test_others_go_on_while_one_waits(db: Database, way: Callable[..., object]) -> None:
    """The interpreter is let go: what waits for a lock does not keep from working whoever holds it."""
    add(db, 1)
    done = threading.Event()

    def change() -> None:
        db.run(lambda session: way(session, least=1, to="second"))
        done.set()

    with db.write() as session:
        RENAME.run(session, least=1, to="first")
        thread = threading.Thread(target=change)
        thread.start()
        waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                          " AND datname = current_database()")  # fmt: skip
        while not session.execute(waiting).scalar_one():
            session.execute(sa.text("SELECT pg_stat_clear_snapshot()"))
        assert not done.is_set()
    thread.join(60)
    with db.read() as session:
        assert READ.first(session, key=1)[NAMES.index("name")] == "second"


# ---------------------------------------------------------------------------------------------- what is owed

STRICT = Prepared(
    sa.select(sa.literal_column("1", sa.Integer) // sa.func.count()).select_from(
        sa.update(THING).where(THING.c.id == sa.bindparam("key"), THING.c.name == sa.bindparam("was"))
        .values(name=sa.bindparam("to")).returning(THING.c.id).cte("changed")
    ),
    strict=True,
)  # fmt: skip


def owe(session: Session, key: int, **more: Any) -> None:
    ADD.later(session, **{**dict.fromkeys(NAMES), **more, "id": key})


@pytest.mark.parametrize("ending", ["nothing", "a statement", "a cursor", "a savepoint"])
def test_what_is_owed_comes_before_whatever_is_sent_next(db: Database, ending: str) -> None:
    with db.write() as session:
        owe(session, 1, name="first")
        RENAME.later(session, least=1, to="second")
        owe(session, 2)
        if ending == "a statement":
            assert [key for (key,) in KEYS.all(session)] == [1, 2]
        elif ending == "a cursor":
            assert session.execute(sa.select(THING.c.name).order_by(THING.c.id)).scalars().all() == ["second", None]
        elif ending == "a savepoint":
            with session.begin_nested() as savepoint:
                owe(session, 3)
                savepoint.rollback()
    assert keys(db) == [1, 2]
    with db.read() as session:
        assert READ.first(session, key=1)[NAMES.index("name")] == "second"


def test_what_is_owed_is_dropped_with_its_transaction(db: Database) -> None:
    def fails(session: Session) -> None:
        owe(session, 2)
        raise LookupError

    db.rehearse(lambda session: owe(session, 1))
    with pytest.raises(LookupError):
        db.run(fails)
    add(db, 3)
    assert keys(db) == [3]


@pytest.mark.parametrize("ending", ["commit", "statement", "cursor"])
def test_what_fails_of_it_fails_the_transaction(db: Database, ending: str) -> None:
    """Nothing of it is done, and the connection is as good as before."""
    add(db, 1)
    with db.read() as session:
        pid = session.execute(PID).scalar_one()

    def work(session: Session) -> None:
        owe(session, 2)
        owe(session, 1)
        owe(session, 3)
        if ending == "statement":
            KEYS.all(session)
        elif ending == "cursor":
            session.execute(PID)

    with pytest.raises(IntegrityError):
        db.run(work)
    assert keys(db) == [1]
    with db.read() as session:
        assert session.execute(PID).scalar_one() == pid


def test_a_row_that_others_changed_has_the_transaction_done_again(db: Database) -> None:
    add(db, 1, name="a")
    tried: list[str] = []

    def work(session: Session) -> None:
        was = READ.first(session, key=1)[NAMES.index("name")]
        if not tried:
            db.run(lambda other: RENAME.run(other, least=1, to="b"))
        tried.append(was)
        STRICT.later(session, key=1, was=was, to=was + "!")
        owe(session, 1 + len(tried))

    db.run(work)
    assert tried == ["a", "b"]
    assert keys(db) == [1, 3]
    with db.read() as session:
        assert READ.first(session, key=1)[NAMES.index("name")] == "b!"


def test_what_follows_a_commit_follows_nothing_else(db: Database) -> None:
    add(db, 9)
    after = Prepared(sa.select(sa.func.pg_advisory_lock(sa.bindparam("number", type_=sa.BigInteger))))
    held = sa.text(
        "SELECT objid FROM pg_locks JOIN pg_database ON pg_database.oid = database"  # other tests lock in theirs
        " WHERE locktype = 'advisory' AND datname = current_database() ORDER BY objid"
    )
    db.rehearse(lambda session: after.afterwards(session, number=1))

    def refused(session: Session) -> None:
        after.afterwards(session, number=2)
        owe(session, 9)

    with pytest.raises(IntegrityError):
        db.run(refused)
    fails = Prepared(sa.select(sa.bindparam("number", type_=sa.Integer) / sa.literal_column("0")))
    with db.write() as session:
        fails.afterwards(session, number=3)
        owe(session, 1)
    with db.write() as session:
        after.afterwards(session, number=4)
        KEYS.all(session)
        assert session.execute(held).scalars().all() == []
    with db.read() as session:
        assert session.execute(held).scalars().all() == [4]
    assert keys(db) == [1, 9]


@pytest.fixture
def many_files() -> Iterator[None]:
    """So many open files that those to come have numbers which select(2) does not take."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    yield
    for each in files:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@pytest.mark.usefixtures("many_files")
def test_much_may_be_owed(db: Database) -> None:
    """More than the socket takes at once, in both directions."""
    db.engine.dispose()
    echo = Prepared(sa.select(sa.bindparam("said", type_=sa.Text)))
    with db.write() as session:
        for key in range(30):
            owe(session, key, raw=bytes(500_000))
            echo.later(session, said="x" * 500_000)
    assert keys(db) == list(range(30))
    with db.engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        assert driver.fileno() > 1_024


def test_a_cut_connection_is_told_of_and_replaced(db: Database) -> None:
    add(db, 1)
    cut = sa.text("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database()"
                  " AND pid <> pg_backend_pid()")  # fmt: skip
    other = sa.create_engine(db.url, poolclass=sa.NullPool)

    def work(session: Session) -> None:
        owe(session, 2)
        with other.connect() as connection:
            connection.execute(cut)

    with pytest.raises(Unavailable) as caught:
        db.run(work)
    cause = caught.value.__cause__
    assert isinstance(cause, OperationalError)
    assert cause.connection_invalidated
    other.dispose()
    assert keys(db) == [1]
