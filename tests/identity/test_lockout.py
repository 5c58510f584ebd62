"""Guessing is slow, exact under parallel tries, and tells nothing about who exists."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import select

from gateway.identity import policy
from gateway.identity import session as sessions
from gateway.identity.lockout import WrongPassword
from gateway.identity.password import Passwords
from gateway.identity.session import SessionCreate
from gateway.kernel.access import NOBODY
from gateway.kernel.errors import LockedOut, Refusal, Unauthenticated
from tests.identity.conftest import CHEAP, PASSWORD, Person, from_address, sign_in, together
from tests.world import Client, World

People = Callable[..., Person]


def _try(world: World, name: str, password: str, address: str = "") -> dict[str, Any]:
    """The one refusal of a sign-in, without its time."""
    document = """mutation($input: SessionCreateInput!) { sessionCreate(input: $input) { token user { id }
      userErrors { __typename code message path ... on LockedOut { until } ... on RateLimited { retryAfterS } } } }"""
    payload = from_address(world, address).ok(document, input={"username": name, "password": password})["sessionCreate"]
    assert payload["token"] is None
    assert payload["user"] is None
    (refusal,) = payload["userErrors"]
    found: dict[str, Any] = refusal
    return found


def test_five_wrong_passwords_shut_a_name_out_for_five_minutes(world: World, person: People) -> None:
    person("ada")
    for _ in range(5):
        assert _try(world, "ada", "wrong")["code"] == "UNAUTHENTICATED"
    locked = _try(world, "ada", PASSWORD)
    assert (locked["__typename"], locked["code"]) == ("LockedOut", "LOCKED_OUT")
    world.clock.advance(seconds=299)
    assert _try(world, "ada", PASSWORD)["code"] == "LOCKED_OUT"
    world.clock.advance(seconds=1)
    assert sign_in(world, "ada", PASSWORD)


def test_being_shut_out_does_not_last_longer_by_trying_on(world: World, person: People) -> None:
    person("ada")
    for _ in range(5):
        _try(world, "ada", "wrong")
    until = _try(world, "ada", "wrong")["until"]
    world.clock.advance(seconds=200)
    assert _try(world, "ada", "wrong")["until"] == until


def test_a_right_password_starts_the_count_anew(world: World, person: People) -> None:
    person("ada")
    for _ in range(3):
        for _ in range(4):
            assert _try(world, "ada", "wrong")["code"] == "UNAUTHENTICATED"
        assert sign_in(world, "ada", PASSWORD)


def test_old_wrong_passwords_are_forgotten(world: World, person: People) -> None:
    person("ada")
    for _ in range(4):
        _try(world, "ada", "wrong")
    world.clock.advance(seconds=301)
    for _ in range(4):
        assert _try(world, "ada", "wrong")["code"] == "UNAUTHENTICATED"
    assert sign_in(world, "ada", PASSWORD)
    _try(world, "someone-else", "wrong")
    with world.db.read() as session:
        assert len(session.exec(select(WrongPassword)).all()) == 1


def test_an_operator_lets_somebody_in_again(world: World, person: People) -> None:
    ada, bob = person("ada"), person("bob")
    for _ in range(5):
        _try(world, "ada", "wrong")
    seen = "query($id: ID!) { user(id: $id) { lockedUntil } }"
    assert world.admin.ok(seen, id=ada.id)["user"]["lockedUntil"] is not None
    assert world.admin.ok(seen, id=bob.id)["user"]["lockedUntil"] is None
    assert bob.client().refused("userUnlock", id=ada.id) == [("FORBIDDEN", None)]
    assert _try(world, "ada", PASSWORD)["code"] == "LOCKED_OUT"
    world.admin.do("userUnlock", "user { name }", id=ada.id)
    assert sign_in(world, "ada", PASSWORD)


def test_the_answers_do_not_tell_who_exists(world: World, person: People) -> None:
    ada = person("ada")
    off = person("off")
    world.admin.do("userUpdate", "__typename", id=off.id, enabled=False)
    known = [_try(world, ada.name, "wrong") for _ in range(7)]
    unknown = [_try(world, "nobody-at-all", "wrong") for _ in range(7)]
    disabled = [_try(world, off.name, PASSWORD) for _ in range(7)]
    for each in (*known, *unknown, *disabled):
        each.pop("until", None)
    assert known == unknown == disabled
    assert [each["code"] for each in known] == ["UNAUTHENTICATED"] * 5 + ["LOCKED_OUT"] * 2


def test_who_exists_cannot_be_timed(world: World, person: People) -> None:
    """The quickest try of each kind comes to cost the same: what disturbs a measurement only ever adds to it."""
    world.db.provide("passwords", Passwords(time_cost=6, memory_kib=16_384, parallelism=1))
    world.db.provide("identity", policy.Policy(wrong_passwords=1000))
    person("ada")
    off = person("off")
    world.admin.do("userUpdate", "__typename", id=off.id, enabled=False)
    quickest = dict.fromkeys(("ada", "nobody-at-all", "off"), 60.0)
    for number in range(60):
        for name in quickest:
            began = time.perf_counter()
            _try(world, name, "wrong")
            quickest[name] = min(quickest[name], time.perf_counter() - began)
        if number >= 4 and max(quickest.values()) < 1.4 * min(quickest.values()):
            return
    raise AssertionError(quickest)


@pytest.mark.parametrize("name", ["ada", "nobody-at-all"])
def test_of_forty_parallel_guesses_exactly_five_learn_anything(both: World, name: str) -> None:
    both.admin.do("userCreate", "user { id }", name="ada", password=PASSWORD)
    found = together(40, lambda number: _try(both, name, f"wrong {number}")["code"])
    assert Counter(found) == {"UNAUTHENTICATED": 5, "LOCKED_OUT": 35}
    with both.db.read() as session:
        assert session.exec(select(WrongPassword)).one().count == 5


def test_a_right_guess_among_parallel_wrong_ones_counts_like_them(both: World) -> None:
    """However the race ends, no more than five outcomes were told before the name was shut out."""
    both.admin.do("userCreate", "user { id }", name="ada", password=PASSWORD)

    def act(number: int) -> str:
        said = {"username": "ada", "password": PASSWORD if number == 39 else "wrong"}
        payload = Client(both, NOBODY).ask("sessionCreate", "token", **said)
        return "IN" if payload["token"] else str(payload["userErrors"][0]["code"])

    found = Counter(together(40, act))
    assert found["IN"] <= 1
    assert found["UNAUTHENTICATED"] <= 5 + 4 * found["IN"]
    assert sum(found.values()) == 40
    assert set(found) <= {"IN", "UNAUTHENTICATED", "LOCKED_OUT"}


def test_many_right_sign_ins_at_once_all_get_in(both: World) -> None:
    both.admin.do("userCreate", "user { id }", name="ada", password=PASSWORD)
    tokens = together(20, lambda _: sign_in(both, "ada", PASSWORD))
    assert len(set(tokens)) == 20


def test_an_address_may_only_try_so_often(world: World, person: People) -> None:
    person("ada")
    world.db.provide("identity", policy.Policy(tries_per_minute=3, wrong_passwords=1000))
    codes = [_try(world, "ada", "wrong", "198.51.100.7")["code"] for _ in range(3)]
    assert codes == ["UNAUTHENTICATED"] * 3
    refused = _try(world, "ada", PASSWORD, "198.51.100.7")
    assert (refused["__typename"], refused["code"]) == ("RateLimited", "RATE_LIMITED")
    assert 1 <= refused["retryAfterS"] <= 60
    assert _try(world, "ada", "wrong", "198.51.100.8")["code"] == "UNAUTHENTICATED"


def test_one_household_of_ipv6_addresses_is_one_address(world: World) -> None:
    world.db.provide("identity", policy.Policy(tries_per_minute=2, wrong_passwords=1000))
    found = [_try(world, "ada", "wrong", f"2001:db8:0:1::{n}")["code"] for n in range(1, 4)]
    assert found == ["UNAUTHENTICATED", "UNAUTHENTICATED", "RATE_LIMITED"]
    assert _try(world, "ada", "wrong", "2001:db8:0:2::1")["code"] == "UNAUTHENTICATED"


def test_more_sign_ins_than_can_be_hashed_are_refused_at_once(world: World, person: People) -> None:
    person("ada")
    few = Passwords(**CHEAP, at_once=2, waiting=0)
    world.db.provide("passwords", few)
    with few._turn(), few._turn():
        refused = _try(world, "ada", PASSWORD)
        assert (refused["code"], refused["retryAfterS"]) == ("RATE_LIMITED", 1)
    assert sign_in(world, "ada", PASSWORD)


@pytest.mark.parametrize(
    ("meanwhile", "refusal"), [("guessed", LockedOut), ("disabled", Unauthenticated), ("changed", Unauthenticated)]
)
def test_a_proven_password_counts_for_nothing_when_things_changed_meanwhile(
    world: World, person: People, meanwhile: str, refusal: type[Refusal]
) -> None:
    ada = person("ada")
    command = SessionCreate(username="ada", password=PASSWORD)
    proven = sessions.prove(world.db, NOBODY, command)
    match meanwhile:
        case "guessed":
            for _ in range(5):
                _try(world, "ada", "wrong")
        case "disabled":
            world.admin.do("userUpdate", "__typename", id=ada.id, enabled=False)
        case "changed":
            world.admin.do("userPasswordSet", "__typename", userId=ada.id, newPassword="another-good-1")
    with pytest.raises(refusal):
        world.db.run(lambda unit: sessions.create(unit, NOBODY, command, proven))
    with world.db.read() as session:
        assert session.exec(select(sessions.Session)).all() == []
