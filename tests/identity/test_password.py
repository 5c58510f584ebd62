"""Passwords: their rules, their memory, and how they are kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlmodel import Session, select

from gateway.identity import authentication
from gateway.identity.password import PasswordHistory, Passwords
from gateway.identity.user import User
from gateway.kernel.access import NOBODY
from gateway.kernel.errors import Unauthenticated
from tests.identity.conftest import CHEAP, PASSWORD, Person, sign_in, with_token
from tests.world import Client, World

People = Callable[..., Person]


def _kept(world: World, name: str) -> str:
    with world.db.read() as session:
        return session.exec(select(User.password).where(User.name == name)).one()


@pytest.mark.parametrize(
    "password",
    [
        "elevenchars",
        "x" * 1025,
        "aaaaaaaaaaaa",
        "abababababab",
        "abcdefghijklm",
        "abcdefabcdefabcdef",
        "margarethe-hamilton",
        "MARGARETHE-hamilton",
        "",
    ],
)  # fmt: skip
def test_weak_passwords_are_refused_and_make_nobody(world: World, password: str) -> None:
    before = world.admin.ok("{ users { totalCount } }")
    refused = world.admin.refused("userCreate", name="margarethe", password=password)
    assert refused == [("INVALID", ["password"])]
    assert world.admin.ok("{ users { totalCount } }") == before


@pytest.mark.parametrize("password", ["twelve-chars", "пароль-надёжный", "x y z 1 2 3 4 5", "p" + "ab1-xy" * 170 + "z"])
def test_other_passwords_are_taken(world: World, password: str) -> None:
    world.admin.do("userCreate", "user { id }", name="margarethe", password=password)
    assert sign_in(world, "margarethe", password)


def test_only_an_argon2id_hash_is_kept(world: World, person: People) -> None:
    person("ada")
    assert _kept(world, "ada").startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert PASSWORD not in _kept(world, "ada")


def test_the_real_parameters_take_64_mib() -> None:
    assert Passwords().hash("x").startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_people_change_their_own_password(world: World, person: People) -> None:
    ada = person("ada")
    here, elsewhere = ada.sign_in(), ada.sign_in()
    done = with_token(world, here).do(
        "userPasswordSet", "user { id passwordChangedAt }", currentPassword=PASSWORD, newPassword="another-good-1"
    )
    assert done["user"]["id"] == ada.id
    assert _fails(world, "ada", PASSWORD)
    assert sign_in(world, "ada", "another-good-1")
    told = with_token(world, here).ok("{ viewer { sessions { id } } }")["viewer"]["sessions"]
    assert len(told) == 2, "this session, and the one just made"
    with pytest.raises(Unauthenticated):
        authentication.authenticate(world.db, elsewhere)


def test_the_current_password_must_be_told_and_right(world: World, person: People) -> None:
    ada = person("ada")
    client, kept = ada.client(), _kept(world, "ada")
    assert client.refused("userPasswordSet", newPassword="another-good-1") == [("INVALID", ["currentPassword"])]
    for _ in range(5):
        refused = client.refused("userPasswordSet", currentPassword="wrong", newPassword="another-good-1")
        assert refused == [("FORBIDDEN", ["currentPassword"])]
    guessed = client.refused("userPasswordSet", currentPassword=PASSWORD, newPassword="another-good-1")
    assert guessed == [("LOCKED_OUT", None)], "a stolen token is no way to guess the password"
    assert _kept(world, "ada") == kept


def test_an_operator_sets_anybodys_password_and_nobody_else_does(
    world: World, person: People, place: Callable[..., str]
) -> None:
    ada, bob, root = person("ada"), person("bob"), person("chief", admin=True)
    place("lab", {"ada": "MEMBER", "bob": "MANAGER"})
    kept = _kept(world, "ada")
    assert bob.client().refused("userPasswordSet", userId=ada.id, newPassword="another-good-1") == [("FORBIDDEN", None)]
    assert person("eve").client().refused("userPasswordSet", userId=ada.id, newPassword="another-good-1") == [
        ("NOT_FOUND", ["userId"])
    ]
    assert _kept(world, "ada") == kept
    root.client().do("userPasswordSet", "user { id }", userId=ada.id, newPassword="another-good-1")
    assert sign_in(world, "ada", "another-good-1")
    own = root.client().refused("userPasswordSet", userId=root.id, newPassword="another-good-1")
    assert own == [("INVALID", ["currentPassword"])], "one's own needs the current one, operator or not"


def test_the_last_five_passwords_do_not_come_again(world: World, person: People) -> None:
    ada = person("ada")
    client, present = ada.client(), PASSWORD
    for number in range(1, 5):
        following = f"another-good-{number}"
        client.do("userPasswordSet", "user { id }", currentPassword=present, newPassword=following)
        present = following
    again = client.refused("userPasswordSet", currentPassword=present, newPassword=PASSWORD)
    assert again == [("INVALID", ["newPassword"])]
    same = client.refused("userPasswordSet", currentPassword=present, newPassword=present)
    assert same == [("INVALID", ["newPassword"])]
    client.do("userPasswordSet", "user { id }", currentPassword=present, newPassword="another-good-5")
    client.do("userPasswordSet", "user { id }", currentPassword="another-good-5", newPassword=PASSWORD)
    with world.db.read() as session:
        owner = session.exec(select(User.id).where(User.name == "ada")).one()
        assert len(session.exec(select(PasswordHistory).where(PasswordHistory.user_id == owner)).all()) == 5


def test_a_hash_of_older_parameters_is_renewed_at_sign_in(world: World, person: People) -> None:
    person("ada")
    assert "t=1,p=1" in _kept(world, "ada")
    world.db.provide("passwords", Passwords(**{**CHEAP, "time_cost": 2}))
    assert _fails(world, "ada", "wrong")
    assert "t=1,p=1" in _kept(world, "ada")
    assert sign_in(world, "ada", PASSWORD)
    assert "t=2,p=1" in _kept(world, "ada")
    assert sign_in(world, "ada", PASSWORD)


def test_a_damaged_hash_lets_nobody_in(world: World, person: People) -> None:
    person("ada")

    def damage(session: Session) -> None:
        session.exec(select(User).where(User.name == "ada")).one().password = "!"

    world.db.run(damage)
    assert _fails(world, "ada", PASSWORD)
    assert _fails(world, "ada", "!")


def _fails(world: World, name: str, password: str) -> bool:
    refused = Client(world, NOBODY).refused("sessionCreate", username=name, password=password)
    return refused == [("UNAUTHENTICATED", None)]
