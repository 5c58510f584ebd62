from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlmodel import Session, col, select

from gateway.compute.flavor import Flavor
from gateway.kernel.db import Database, after_commit
from gateway.kernel.errors import Unavailable
from tests.servers.postgres import PostgresServer
from tests.world import World


def flavor(name: str = "f") -> Flavor:
    return Flavor(name=name, vcpus=0, ram_mib=1, disk_gib=1)


def test_parallel_updates_lose_nothing(world: World) -> None:
    world.db.run(lambda session: session.add(flavor()))

    def add_one(session: Session) -> None:
        found = session.exec(select(Flavor)).one()
        found.vcpus += 1

    def many() -> None:
        for _ in range(25):
            world.db.run(add_one)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with world.db.read() as session:
        assert session.exec(select(col(Flavor.vcpus))).one() == 100


def test_bells_ring_after_commit_and_never_without_one(world: World) -> None:
    rung: list[str] = []

    def good(session: Session) -> None:
        after_commit(session, lambda: rung.append("good"))
        assert rung == []

    def bad(session: Session) -> None:
        after_commit(session, lambda: rung.append("bad"))
        raise KeyError

    world.db.run(good)
    with pytest.raises(KeyError):
        world.db.run(bad)
    world.db.rehearse(lambda session: after_commit(session, lambda: rung.append("rehearsed")))
    assert rung == ["good"]


def test_a_rehearsal_leaves_nothing(world: World) -> None:
    def work(session: Session) -> int:
        session.add(flavor())
        session.flush()
        return len(session.exec(select(Flavor)).all())

    assert world.db.rehearse(work) == 1
    with world.db.read() as session:
        assert session.exec(select(Flavor)).all() == []


def test_reading_sessions_cannot_write(tmp_path: Path) -> None:
    world = World.open(f"sqlite:///{tmp_path / 'w.db'}", tmp_path)
    with pytest.raises(Unavailable), world.db.read() as session:
        session.exec(insert(Flavor).values(name="f"))
    world.close()


def test_a_full_disk_is_told_as_unavailable_and_changes_nothing(tmp_path: Path) -> None:
    world = World.open(f"sqlite:///{tmp_path / 'w.db'}", tmp_path)
    world.db.engine.dispose()
    with world.db.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        connection.rollback()
    with pytest.raises(Unavailable):
        world.db.run(lambda session: session.add_all(flavor(str(number)) for number in range(10_000)))
    with world.db.read() as session:
        assert session.exec(select(Flavor)).all() == []
    world.close()


def test_a_database_that_is_gone_is_told_and_comes_back(private_postgres: PostgresServer) -> None:
    url = private_postgres.create_database()
    db = Database(url)
    with db.read() as session:
        session.exec(select(1)).one()
    private_postgres.kill()
    with pytest.raises(Unavailable), db.read() as session:
        session.exec(select(1)).one()
    with pytest.raises(Unavailable):
        db.run(lambda session: session.exec(select(1)).one())
    private_postgres.restart()
    with db.read() as session:
        assert session.exec(select(1)).one() == 1
    db.close()
