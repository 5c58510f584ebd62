"""What a subject may see is the same, however it is asked for: by statements kept for a standing, or anew."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlmodel import Session, col, select

from gateway.identity.tenant import Tenant
from gateway.kernel import noun
from gateway.kernel.access import CLOUD, NOBODY, Role, Subject
from gateway.kernel.noun import BY_PREFIX, Noun
from gateway.kernel.prepared import rows_of
from gateway.kernel.typical import Typical
from tests.world import World

PERSONAL = {"keypair", "session", "apikey", "user"}


def subjects(tenant: int) -> list[Subject]:
    other = tenant + 1000
    return [
        CLOUD, NOBODY, Subject(user_id=7), Subject(user_id=7, roles={tenant: Role.READER}),
        Subject(user_id=8, roles={other: Role.MANAGER}),
        Subject(user_id=8, roles={tenant: Role.MEMBER, other: Role.READER}),
    ]  # fmt: skip


def test_statements_are_kept_for_what_does_not_depend_on_the_person() -> None:
    noun.load_all()
    kept = {prefix for prefix in BY_PREFIX if noun._visible(prefix, "id", (True, False, frozenset()), 1) is not None}
    assert PERSONAL.isdisjoint(kept), "the statement of one person must never be another's"
    assert {"server", "flavor", "image", "job", "network", "port", "tenant", "volume"} <= kept


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 65])
def test_what_is_kept_finds_what_a_new_statement_finds(world: World, count: int) -> None:
    """Every noun, by key and by uid, for every standing; rows made in one tenant."""
    noun.load_all()
    make_some(world, count + 1)
    with world.db.read() as session:
        tenant = session.exec(select(Tenant.id).order_by(col(Tenant.id))).first()
        assert tenant is not None
        for kind in BY_PREFIX.values():
            rows = rows_of(kind.table).where(session, sa.true(), order_by=col(kind.table.id))[:count]
            for subject in subjects(tenant):
                check(session, kind, subject, rows, count)


def check(session: Session, kind: Noun, subject: Subject, rows: list, count: int) -> None:  # type: ignore[type-arg]  # any noun
    keys = [row.id for row in rows] or [10_000 + at for at in range(count)]
    seen = kind.scope(subject)
    expected = rows_of(kind.table).where(session, col(kind.table.id).in_(keys), seen, order_by=col(kind.table.id))
    for _ in range(2):  # made, and kept
        assert kind.by_key(session, subject, "id", keys) == expected
        assert kind.find(session, subject, [row.uid for row in rows]) == {row.uid: row for row in expected if rows}


def make_some(world: World, count: int) -> None:
    from gateway.volume.volume import Volume

    def make(session: Session) -> None:
        tenant = Tenant(name="one")
        session.add(tenant)
        session.flush()
        session.add_all(Tenant(name=f"t{at}") for at in range(count))
        session.add_all(Volume(tenant_id=tenant.id, name=f"v{at}", size_gib=1) for at in range(count))

    world.db.run(make)


def test_a_typical_subject_is_asked_who_it_is_each_time() -> None:
    """Also when the statement of its standing was kept before: else one person's rows were shown to others."""
    noun.load_all()
    for prefix in PERSONAL:
        for _ in range(2):
            somebody = Typical(user_id=3, roles={})
            BY_PREFIX[prefix].scope(somebody)
            assert somebody.asked
