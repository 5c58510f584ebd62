"""Rows that are written past the unit of work end as the unit of work would have left them."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import Session, col, select

from gateway.compute.flavor import Flavor
from gateway.identity.tenant import Tenant
from gateway.integration.webhook import Webhook
from gateway.jobs.event import Event
from gateway.jobs.job import Job, Status
from gateway.kernel import noun, saving
from gateway.kernel.row import Row
from tests.world import World


def flavor(name: str) -> Flavor:
    return Flavor(name=name, vcpus=1, ram_mib=1, disk_gib=1)


def written(world: World) -> list[tuple[str, int, list[str]]]:
    with world.db.read() as session:
        return [(each.kind, each.version, each.changed) for each in session.exec(select(Event).order_by(Event.id))]  # type: ignore[arg-type]  # a column


def test_what_is_left_to_the_unit_of_work() -> None:
    """Only tables whose rows are not plain: a host's revision is an expression, audit records refuse to be changed."""
    noun.load_all()
    rows = {each.class_ for each in Row._sa_registry.mappers if issubclass(each.class_, Row)}
    left = {each.__name__ for each in rows if not saving._plain(sa.inspect(each))}
    assert left == {"Host", "AuditRecord"}
    assert len(rows) > 20


def test_a_row_is_inserted_changed_and_told_of(world: World) -> None:
    """Values of each kind come back, the version counts, events say what changed, and what did not is not written."""
    before = len(written(world))

    def make(session: Session) -> int:
        row = Job(
            kind="k",
            status=Status.QUEUED,
            target="t",
            arguments={"deep": [1, None, {"x": 2.5}]},
            due_at=world.db.clock(),
        )
        session.add(row)
        session.flush()
        assert (row.version, sa.inspect(row).persistent) == (1, True)
        return row.id

    key = world.db.run(make)

    def change(session: Session) -> None:
        row = session.get_one(Job, key)
        assert (row.arguments, row.status, row.error) == ({"deep": [1, None, {"x": 2.5}]}, Status.QUEUED, None)
        row.status, row.kind, row.memory = Status.RUNNING, "k", {"host": 1}
        session.flush()
        assert row.version == 2
        row.status = Status.RUNNING  # nothing new: no further version

    world.db.run(change)
    with world.db.read() as session:
        row = session.get_one(Job, key)
        assert (row.version, row.status, row.memory) == (2, Status.RUNNING, {"host": 1})
        assert row.updated_at >= row.created_at
    assert written(world)[before:] == [("job.created", 1, []), ("job.changed", 2, ["memory", "status"])]


def test_a_row_that_somebody_else_changed_is_not_written(world: World) -> None:
    world.db.run(lambda session: session.add(flavor("a")))

    def late(session: Session) -> None:
        row = session.exec(select(Flavor).where(Flavor.name == "a")).one()
        session.execute(
            sa.update(Flavor).values(version=Flavor.version + 1).execution_options(synchronize_session=False)
        )
        row.name = "b"
        session.flush()

    def late_and_looks(session: Session) -> None:
        late(session)
        session.exec(select(Flavor.id)).all()

    for work in (late, late_and_looks):  # PostgreSQL is told, and tells, with the next statement or the commit
        with pytest.raises((StaleDataError, OperationalError)) as caught:
            world.db.run(work)
        assert getattr(getattr(caught.value, "orig", None), "sqlstate", "40001") == "40001"
        with world.db.read() as session:
            assert session.exec(select(Flavor.name, Flavor.version)).all() == [("a", 1)]


def test_a_unit_of_work_that_somebody_else_was_in_the_way_of_is_done_again(world: World) -> None:
    world.db.run(lambda session: session.add(flavor("a")))
    tries: list[int] = []

    def work(session: Session) -> None:
        row = session.exec(select(Flavor).where(Flavor.name == "a")).one()
        if not tries:
            session.execute(
                sa.update(Flavor).values(version=Flavor.version + 1).execution_options(synchronize_session=False)
            )
        tries.append(row.version)
        row.ram_mib = 7
        session.add(flavor("b"))

    world.db.run(work)
    assert tries == [1, 1]
    with world.db.read() as session:
        assert session.exec(select(Flavor.name, Flavor.ram_mib, Flavor.version).order_by(Flavor.name)).all() == [
            ("a", 7, 2), ("b", 1, 1)
        ]  # fmt: skip


def test_a_savepoint_that_is_rolled_back_takes_rows_back(world: World) -> None:
    """Also from the session: a new row may be added again, a changed one is as it was."""
    world.db.run(lambda session: session.add(flavor("a")))

    def work(session: Session) -> None:
        old = session.exec(select(Flavor).where(Flavor.name == "a")).one()
        new, twin = flavor("b"), flavor("a")
        savepoint = session.begin_nested()
        old.ram_mib = 7
        session.add(new)
        session.flush()
        assert sa.inspect(new).persistent
        session.add(twin)
        with pytest.raises(IntegrityError):
            session.flush()
        savepoint.rollback()
        assert (old.ram_mib, old.version) == (1, 1)
        assert not sa.inspect(new).persistent
        assert session.exec(select(sa.func.count()).select_from(Flavor)).one() == 1
        old.disk_gib = 9

    world.db.run(work)
    with world.db.read() as session:
        found = session.exec(select(Flavor)).one()
        assert (found.name, found.ram_mib, found.disk_gib, found.version) == ("a", 1, 9, 2)


def test_expressions_and_defaults_are_the_unit_of_works(world: World) -> None:
    world.db.run(lambda session: session.add(flavor("a")))

    def work(session: Session) -> None:
        row = session.exec(select(Flavor)).one()
        row.ram_mib = col(Flavor.ram_mib) + 41  # type: ignore[assignment]  # SQLAlchemy takes an expression
        session.flush()
        assert (row.ram_mib, row.version) == (42, 2)
        row.description = "x"

    world.db.run(work)
    with world.db.read() as session:
        found = session.exec(select(Flavor)).one()
        assert (found.ram_mib, found.description, found.version) == (42, "x", 3)


def test_rows_that_hang_together_are_written_in_one_go(world: World) -> None:
    """Parents before children, whatever their order in the session."""

    def work(session: Session) -> None:
        tenant = Tenant(name="t")
        session.add(tenant)
        session.flush()
        tenant.description = "changed in the same unit of work"
        now = world.db.clock()
        session.add(
            Webhook(
                tenant_id=tenant.id,
                name="w",
                url="https://example.org",
                sealed_secret="s",
                due_at=now,
                cursor_transaction=0,
                cursor_id=0,
            )
        )

    world.db.run(work)
    with world.db.read() as session:
        found = session.exec(select(Webhook, Tenant).join(Tenant, col(Tenant.id) == col(Webhook.tenant_id))).one()
        assert (found[0].name, found[1].description, found[1].version) == ("w", "changed in the same unit of work", 2)
