"""Signing in and out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from gateway.identity import authentication
from gateway.kernel.errors import Unauthenticated
from tests.identity.conftest import PASSWORD, Person, from_address, with_token
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
