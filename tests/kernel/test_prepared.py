"""Prepared statements tell and answer what SQLAlchemy's ordinary way does, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from gateway.compute.flavor import Flavor
from gateway.compute.host import Host, HostStatus, Hypervisor
from gateway.jobs.event import Event
from gateway.kernel.prepared import Inserted, Prepared, Rows, get
from tests.world import World

SEEN = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
COLUMNS = [each.key for each in sa.inspect(Host).column_attrs]
NAMED = Rows(Host, lambda rows: rows.where(col(Host.name) == sa.bindparam("name")))
FRESH = Rows(Host, lambda rows: rows.where(col(Host.name) == sa.bindparam("name")), fresh=True)
RENAME = Prepared(sa.update(Flavor).where(col(Flavor.id) == sa.bindparam("key")).values(name=sa.bindparam("called")))


def host(session: Session) -> None:
    session.add(
        Host(
            name="h", hypervisor=Hypervisor.SIM, endpoint="sim://h", options={"a": "b"}, status=HostStatus.ONLINE,
            seen_at=SEEN, facts={"deep": [1, None, {"x": 2.5}]}, capabilities=["MACHINES"], vcpu_ratio=1.25,
        )
    )  # fmt: skip


def test_rows_have_what_the_orm_reads(world: World) -> None:
    """Every type of column: keys, uids, enums, JSON, floats, moments, nothing."""
    world.db.run(host)
    with world.db.read() as session:
        ours = NAMED.first(session, name="h")
        assert ours is not None
        found = {name: getattr(ours, name) for name in COLUMNS}
        assert get(session, Host, ours.id) is ours
    with world.db.read() as session:
        theirs = session.exec(select(Host)).one()
        assert found == {name: getattr(theirs, name) for name in COLUMNS}
        assert NAMED.first(session, name="h") is theirs
        assert NAMED.first(session, name="nobody") is None
        assert get(session, Host, theirs.id + 1) is None


def test_rows_are_the_units_own_and_fresh_ones_become_what_is_read(world: World) -> None:
    world.db.run(host)

    def work(session: Session) -> None:
        mine = session.exec(select(Host)).one()
        world_sees = Prepared(sa.update(Host).values(endpoint="sim://moved"))
        assert world_sees.run(session) == 1
        known = NAMED.first(session, name="h")
        assert known is mine
        assert mine.endpoint == "sim://h"
        assert FRESH.first(session, name="h") is mine
        assert mine.endpoint == "sim://moved"
        mine.name = "renamed"  # what is pending is flushed before rows are looked for
        assert NAMED.all(session, name="renamed") == [mine]
        mine.seen_at = SEEN + timedelta(days=1)

    world.db.run(work)
    with world.db.read() as session:
        kept = session.exec(select(Host)).one()
        assert (kept.name, kept.endpoint, kept.seen_at) == ("renamed", "sim://moved", SEEN + timedelta(days=1))


def test_statements_are_part_of_the_unit_of_work(world: World) -> None:
    """Its values are bound and never text, a rollback takes it back, a fault is SQLAlchemy's own, listeners hear it."""
    world.db.run(lambda session: session.add_all(Flavor(name=n, vcpus=1, ram_mib=1, disk_gib=1) for n in ("a", "b")))
    heard: list[str] = []

    def rename(session: Session, key: int, called: str) -> None:
        RENAME.run(session, key=key, called=called)

    def hear(*given: object) -> None:
        heard.append(str(given[2]))

    with world.db.read() as session:
        keys = {each.name: each.id for each in session.exec(select(Flavor))}
    world.db.rehearse(lambda session: rename(session, keys["a"], "taken back"))
    with pytest.raises(IntegrityError):
        world.db.run(lambda session: rename(session, keys["a"], "b"))
    sa.event.listen(world.db.engine, "before_cursor_execute", hear)
    world.db.run(lambda session: rename(session, keys["a"], "'; drop table flavor; --"))
    sa.event.remove(world.db.engine, "before_cursor_execute", hear)
    assert sum("UPDATE flavor" in each for each in heard) == 1
    with world.db.read() as session:
        assert {each.name for each in session.exec(select(Flavor))} == {"'; drop table flavor; --", "b"}
    with pytest.raises(KeyError):
        world.db.run(lambda session: RENAME.run(session, key=1))


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 30])
def test_rows_are_inserted_in_their_order_whether_by_one_statement_or_many(world: World, count: int) -> None:
    names = ("at", "kind", "noun", "object_uid", "tenant_id", "version", "changed")
    insert = Inserted(Event, names)
    given = [
        {"at": SEEN + timedelta(seconds=at), "kind": "flavor.changed", "noun": "flavor", "object_uid": UUID(int=at),
         "tenant_id": None, "version": at, "changed": ["name", "é"]} for at in range(count)
    ]  # fmt: skip
    world.db.run(lambda session: insert.each(session, given))
    with world.db.read() as session:
        ours = sa.and_(col(Event.at) >= SEEN, col(Event.at) < SEEN + timedelta(minutes=1))
        found = session.exec(select(Event).where(ours).order_by(col(Event.id))).all()
        assert [{name: getattr(each, name) for name in names} for each in found] == given
