"""Quotas: exact, whoever takes at the same moment."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlmodel import Session

from gateway.identity import quota, tenant
from gateway.identity.quota import DEFAULTS, Resource
from gateway.kernel.access import CLOUD, Role
from gateway.kernel.errors import QuotaExceeded
from tests.identity.conftest import together
from tests.image.cloud import until
from tests.world import World

SEEN = "query($id: ID!) { tenant(id: $id) { quotas { resource limit used } } }"
Places = Callable[..., str]


def _key(world: World, public_id: str) -> int:
    with world.db.read() as session:
        return tenant.NOUN.get(session, CLOUD, public_id).id


def _seen(world: World, public_id: str) -> dict[str, tuple[int, int]]:
    found = world.admin.ok(SEEN, id=public_id)["tenant"]["quotas"]
    return {each["resource"]: (each["limit"], each["used"]) for each in found}


def test_a_new_tenant_has_the_default_quotas(world: World, place: Places) -> None:
    used = {Resource.SECURITY_GROUPS: 1}  # its default one
    expected = {each.value: (limit, used.get(each, 0)) for each, limit in DEFAULTS.items()}
    assert _seen(world, place("lab")) == expected


def test_an_operator_sets_limits(world: World, place: Places) -> None:
    lab = place("lab")
    limits = [{"resource": "SERVERS", "limit": 3}, {"resource": "RAM_MIB", "limit": -1}]
    answer = world.admin.do("quotaSet", "quotas { resource limit used }", tenantId=lab, limits=limits)["quotas"]
    assert {each["resource"]: each["limit"] for each in answer} == {
        **{each.value: limit for each, limit in DEFAULTS.items()}, "SERVERS": 3, "RAM_MIB": -1,
    }  # fmt: skip
    assert _seen(world, lab)["SERVERS"] == (3, 0)


@pytest.mark.parametrize(
    ("limits", "path"),
    [
        ([], ["limits"]),
        ([{"resource": "SERVERS", "limit": -2}], ["limits", "0", "limit"]),
        ([{"resource": "SERVERS", "limit": 1}, {"resource": "SERVERS", "limit": 2}], ["limits"]),
    ],
)
def test_wrong_limits_change_nothing(world: World, place: Places, limits: list[object], path: list[str]) -> None:
    lab = place("lab")
    before = _seen(world, lab)
    assert world.admin.refused("quotaSet", tenantId=lab, limits=limits) == [("INVALID", path)]
    assert _seen(world, lab) == before


def test_members_see_quotas_and_strangers_do_not(world: World, place: Places) -> None:
    lab = place("lab")
    with world.db.read() as session:
        reader = world.member(tenant.NOUN.get(session, CLOUD, lab), Role.READER)
    assert len(reader.ok(SEEN, id=lab)["tenant"]["quotas"]) == len(DEFAULTS)
    assert world.member(world.tenant()).ok(SEEN, id=lab)["tenant"] is None


def test_what_is_taken_is_counted_and_what_is_given_back_too(world: World, place: Places) -> None:
    lab = place("lab")
    key = _key(world, lab)
    world.db.run(lambda session: quota.take(session, key, {Resource.SERVERS: 2, Resource.VCPUS: 8}))
    assert (_seen(world, lab)["SERVERS"], _seen(world, lab)["VCPUS"]) == ((20, 2), (40, 8))
    world.db.run(lambda session: quota.give(session, key, {Resource.SERVERS: 1, Resource.VCPUS: 4}))
    assert (_seen(world, lab)["SERVERS"], _seen(world, lab)["VCPUS"]) == ((20, 1), (40, 4))


def test_a_refusal_says_how_much_and_takes_nothing_at_all(world: World, place: Places) -> None:
    lab = place("lab")
    key = _key(world, lab)
    with pytest.raises(QuotaExceeded) as refused:
        world.db.run(lambda session: quota.take(session, key, {Resource.SERVERS: 1, Resource.VCPUS: 41}))
    assert refused.value.data == {"resource": "VCPUS", "limit": 40, "used": 0, "requested": 41}
    assert (_seen(world, lab)["SERVERS"], _seen(world, lab)["VCPUS"]) == ((20, 0), (40, 0))


def test_no_limit_is_no_limit(world: World, place: Places) -> None:
    lab = place("lab")
    world.admin.do("quotaSet", "quotas { id }", tenantId=lab, limits=[{"resource": "SERVERS", "limit": -1}])
    key = _key(world, lab)
    world.db.run(lambda session: quota.take(session, key, {Resource.SERVERS: 10_000}))
    assert _seen(world, lab)["SERVERS"] == (-1, 10_000)


def test_a_limit_below_the_use_takes_nothing_away_and_gives_nothing_more(world: World, place: Places) -> None:
    lab = place("lab")
    key = _key(world, lab)
    world.db.run(lambda session: quota.take(session, key, {Resource.SERVERS: 5}))
    world.admin.do("quotaSet", "quotas { id }", tenantId=lab, limits=[{"resource": "SERVERS", "limit": 3}])
    assert _seen(world, lab)["SERVERS"] == (3, 5)
    with pytest.raises(QuotaExceeded):
        world.db.run(lambda session: quota.take(session, key, {Resource.SERVERS: 1}))


def test_of_a_hundred_parallel_takes_against_ten_exactly_ten_get_one(both: World) -> None:
    lab = both.tenant()
    limits = [{"resource": "SERVERS", "limit": 10}]
    public = tenant.NOUN.public(lab)
    both.admin.do("quotaSet", "quotas { id }", tenantId=public, limits=limits)

    def take(_number: int) -> str:
        try:
            both.db.run(lambda session: quota.take(session, lab.id, {Resource.SERVERS: 1, Resource.VCPUS: 2}))
        except QuotaExceeded as refused:
            return str(refused.data["resource"])
        return "taken"

    assert Counter(together(100, take)) == {"taken": 10, "SERVERS": 90}
    assert (_seen(both, public)["SERVERS"], _seen(both, public)["VCPUS"]) == ((10, 10), (40, 20))


def test_parallel_takes_and_gives_end_where_they_began(both: World) -> None:
    lab = both.tenant()

    def turn(number: int) -> None:
        amounts = {Resource.SERVERS: 1, Resource.RAM_MIB: number + 1}

        def give(session: Session) -> None:
            quota.give(session, lab.id, amounts)

        both.db.run(lambda session: quota.take(session, lab.id, amounts))
        both.db.run(give)

    together(20, turn)
    seen = _seen(both, tenant.NOUN.public(lab))
    assert (seen["SERVERS"], seen["RAM_MIB"]) == ((20, 0), (65536, 0))


def test_takers_of_the_same_resources_in_any_order_never_wait_in_a_circle(both: World) -> None:
    lab = both.tenant()
    some = [Resource.RAM_MIB, Resource.SERVERS, Resource.VCPUS, Resource.VOLUMES, Resource.VOLUME_GIB]

    def turn(number: int) -> None:
        wanted = some[number % 2 :] if number % 4 < 2 else some[::-1][number % 2 :]
        amounts = dict.fromkeys(wanted, number + 1)
        for change in (quota.give, quota.take) if number % 3 else (quota.take, quota.give):
            with both.db.write() as session:  # not run again: a deadlock would be an error
                change(session, lab.id, amounts)

    with both.db.write() as session:
        limits = dict.fromkeys(some, 1_000)
        for resource, held in quota.left(session, lab.id).items():
            if resource in limits:
                held.limit, held.used = 2_000, limits[resource]
    for _ in range(3):
        together(16, turn)
    seen = _seen(both, tenant.NOUN.public(lab))
    assert {each: seen[each] for each in some} == dict.fromkeys(some, (2_000, 1_000))


def test_who_waited_for_room_that_was_given_back_gets_it(both: World) -> None:
    """Also where the statement began while there was none: PostgreSQL finds rows as they were then."""
    lab = both.tenant()
    amounts = {Resource.SERVERS: 20, Resource.VCPUS: 1}
    both.db.run(lambda session: quota.take(session, lab.id, amounts))
    given = threading.Event()

    def give(session: Session) -> None:
        quota.give(session, lab.id, amounts)
        given.set()
        if not both.db.sqlite:  # there the other waits before it can begin
            until(lambda: both.db.value(_WAITING, {}) == 1)

    def take() -> None:
        assert given.wait(timeout=60)
        both.db.run(lambda session: quota.take(session, lab.id, amounts))

    together(2, lambda number: take() if number else both.db.run(give))
    seen = _seen(both, tenant.NOUN.public(lab))
    assert (seen["SERVERS"], seen["VCPUS"]) == ((20, 20), (40, 1))


_WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


def test_a_tenant_older_than_a_quota_gets_it_when_it_is_first_asked_for(world: World, place: Places) -> None:
    lab = place("lab")
    key = _key(world, lab)
    world.db.run(lambda session: session.delete(quota.left(session, key)[Resource.IMAGES]))
    world.db.run(lambda session: quota.take(session, key, {Resource.IMAGES: 2}))
    assert _seen(world, lab)["IMAGES"] == (DEFAULTS[Resource.IMAGES], 2)
    with pytest.raises(QuotaExceeded):
        world.db.run(lambda session: quota.take(session, key, {Resource.IMAGES: DEFAULTS[Resource.IMAGES]}))
