"""Signing in and out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from gateway.identity import authentication, bootstrap
from gateway.identity import session as sessions
from gateway.identity.policy import Policy
from gateway.kernel.errors import Unauthenticated
from gateway.kernel.settings import Settings
from tests.identity.conftest import PASSWORD, Person, from_address, sign_in, with_token
from tests.world import START, World

People = Callable[..., Person]
Places = Callable[..., str]


def test_signing_in_gives_a_token_that_says_who_asks(world: World, person: People, place: Places) -> None:
    ada = person("Ada", fullName="Ada L", email="ada@example.org")
    lab = place("lab", {"ada": "MEMBER"})
    payload = from_address(world, "198.51.100.7", "curl/8").do(
        "sessionCreate", "token expiresAt user { id name fullName } session { address userAgent }",
        username="ADA", password=PASSWORD,
    )  # fmt: skip
    assert payload["user"] == {"id": ada.id, "name": "ada", "fullName": "Ada L"}
    assert payload["session"] == {"address": "198.51.100.7", "userAgent": "curl/8"}
    assert payload["expiresAt"] == (START + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    told = with_token(world, payload["token"]).ok(
        "{ viewer { admin expiresAt apiKey { id } user { name } session { address } "
        "memberships { role tenant { id name } } sessions { userAgent } apiKeys { id } } }"
    )
    assert told["viewer"] == {
        "admin": False,
        "expiresAt": payload["expiresAt"],
        "apiKey": None,
        "user": {"name": "ada"},
        "session": {"address": "198.51.100.7"},
        "memberships": [{"role": "MEMBER", "tenant": {"id": lab, "name": "lab"}}],
        "sessions": [{"userAgent": "curl/8"}],
        "apiKeys": [],
    }


def test_nobody_has_no_viewer(world: World) -> None:
    assert world.nobody.ok("{ viewer { user { name } } }") == {"viewer": None}


def test_a_token_ends_to_the_second(world: World, person: People) -> None:
    token = person("ada").sign_in()
    world.clock.advance(seconds=3590)
    assert authentication.authenticate(world.db, token).subject.user_name == "ada"
    world.clock.advance(seconds=10)
    with pytest.raises(Unauthenticated, match="expired"):
        authentication.authenticate(world.db, token)


def test_people_end_their_sessions_and_see_which_are_left(world: World, person: People) -> None:
    ada = person("ada")
    first = with_token(world, ada.sign_in())
    second = from_address(world, "198.51.100.9", "phone")
    second.do("sessionCreate", "token", username="ada", password=PASSWORD)
    listed = first.ok("{ viewer { session { id } sessions { id userAgent } } }")["viewer"]
    (phone,) = [each["id"] for each in listed["sessions"] if each["userAgent"] == "phone"]
    ended = first.do("sessionRevoke", "sessions { id }", sessionId=phone)
    assert ended["sessions"] == [{"id": phone}]
    left = first.ok("{ viewer { sessions { id } } }")["viewer"]["sessions"]
    assert left == [listed["session"]]
    assert first.do("sessionRevoke", "sessions { id }")["sessions"] == [listed["session"]]


def test_ending_a_session_twice_changes_nothing(world: World, person: People) -> None:
    ada = person("ada")
    client = ada.client()
    own = client.ok("{ viewer { session { id } } }")["viewer"]["session"]["id"]
    first = world.admin.do("sessionRevoke", "sessions { revokedAt }", sessionId=own)
    assert world.admin.do("sessionRevoke", "sessions { revokedAt }", sessionId=own) == first


def test_nobody_ends_or_sees_anybody_elses_session(world: World, person: People, place: Places) -> None:
    ada, bob = person("ada"), person("bob")
    place("lab", {"ada": "MEMBER", "bob": "MANAGER"})
    token = ada.sign_in()
    own = with_token(world, token).ok("{ viewer { session { id } } }")["viewer"]["session"]["id"]
    client = bob.client()
    assert client.refused("sessionRevoke", sessionId=own) == [("NOT_FOUND", ["sessionId"])]
    assert client.refused("sessionRevoke", allOfUser=ada.id) == [("FORBIDDEN", None)]
    assert person("eve").client().refused("sessionRevoke", allOfUser=ada.id) == [("NOT_FOUND", ["allOfUser"])]
    both = client.refused("sessionRevoke", sessionId=own, allOfUser=bob.id)
    assert both == [("INVALID", ["allOfUser"])]
    assert [each["id"] for each in client.ok("{ viewer { sessions { id } } }")["viewer"]["sessions"]] != [own]
    assert authentication.authenticate(world.db, token).subject.user_name == "ada"


def test_an_operator_ends_all_sessions_of_a_user(world: World, person: People) -> None:
    ada = person("ada")
    tokens = [ada.sign_in(), ada.sign_in()]
    bob = person("bob").sign_in()
    ended = world.admin.do("sessionRevoke", "sessions { user { name } }", allOfUser=ada.id)
    assert ended["sessions"] == [{"user": {"name": "ada"}}] * 2
    for token in tokens:
        with pytest.raises(Unauthenticated):
            authentication.authenticate(world.db, token)
    assert authentication.authenticate(world.db, bob).subject.user_name == "bob"


def test_signing_in_needs_no_role_and_signing_out_needs_a_session(world: World) -> None:
    assert world.nobody.run("mutation { sessionRevoke(input: {}) { __typename } }").codes == ["UNAUTHENTICATED"]
    assert world.admin.refused("sessionRevoke") == [("INVALID", ["sessionId"])], "made by the test, without a session"


def test_bad_input_is_no_try(world: World, person: People) -> None:
    person("ada")
    for _ in range(6):
        assert world.nobody.refused("sessionCreate", username="ada", password="") == [("INVALID", ["password"])]
        long = world.nobody.refused("sessionCreate", username="ada", password="x" * 1025)
        assert long == [("INVALID", ["password"])]
    assert sign_in(world, "ada", PASSWORD)


def test_the_last_use_is_noted_to_the_minute(world: World, person: People) -> None:
    ada = person("ada")
    token = ada.sign_in()
    used = "{ viewer { session { lastUsedAt } } }"
    made = with_token(world, token).ok(used)
    world.clock.advance(seconds=30)
    assert with_token(world, token).ok(used) == made
    world.clock.advance(seconds=31)
    world.db.run(lambda session: session.info["recognised"].empty())
    assert with_token(world, token).ok(used) != made


def test_old_sessions_are_forgotten_after_a_month(world: World, person: People) -> None:
    ada = person("ada")
    ada.sign_in()
    world.clock.advance(days=29)
    ada.sign_in()
    assert world.db.run(sessions.prune) == 0
    world.clock.advance(days=2)
    assert world.db.run(sessions.prune) == 1
    assert world.db.run(sessions.prune) == 0


def test_the_lifetime_is_a_setting_and_never_longer_than_a_day(world: World, person: People) -> None:
    ada = person("ada")
    for given, lasts in ((60, 60), (10**9, 86_400)):
        world.db.provide("identity", Policy(session_ttl_s=given))
        payload = world.nobody.do("sessionCreate", "expiresAt session { createdAt }", username="ada", password=PASSWORD)
        ends = datetime.fromisoformat(payload["expiresAt"])
        assert abs((ends - datetime.fromisoformat(payload["session"]["createdAt"])).total_seconds() - lasts) <= 1
    assert ada.id.startswith("user_")


def test_the_settings_say_how_long_a_session_lasts(world: World, person: People) -> None:
    person("ada")
    world.db.provide("settings", Settings(session_ttl_s=120))
    with world.db.read() as session:
        box, cheap = session.info["sealed"], session.info["passwords"]
    bootstrap.equip(world.db, box)
    world.db.provide("passwords", cheap)
    token = sign_in(world, "ada", PASSWORD)
    world.clock.advance(seconds=110)
    assert authentication.authenticate(world.db, token).subject.user_name == "ada"
    world.clock.advance(seconds=10)
    with pytest.raises(Unauthenticated):
        authentication.authenticate(world.db, token)
