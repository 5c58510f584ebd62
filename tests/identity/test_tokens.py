"""Tokens that are not ours, not any more, or not by our rules."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from joserfc import jwt
from joserfc.jwk import OctKey
from sqlmodel import select

from gateway.identity import authentication
from gateway.identity.keys import Keyring, SigningKey
from gateway.identity.recognised import TRUSTED_S, IdentityMark
from gateway.kernel.db import Database
from gateway.kernel.errors import Unauthenticated
from gateway.kernel.secretbox import Sealed
from resolvers.identity.authentication import Door
from tests.identity.conftest import Person, second_process, with_token
from tests.statements import counted
from tests.world import World

People = Callable[..., Person]


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _opened(part: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def _secret(world: World) -> bytes:
    """The key's bytes, as whoever holds database and state directory can read them."""
    with world.db.read() as session:
        kept = session.exec(select(SigningKey)).one()
        return bytes.fromhex(session.info["sealed"].open(kept.sealed_secret))


def _refused(world: World, token: str) -> bool:
    try:
        authentication.authenticate(world.db, token)
    except Unauthenticated:
        return True
    return False


def test_a_token_says_only_what_it_must(person: People) -> None:
    header, claims, _ = person("ada").sign_in().split(".")
    assert _opened(header) == {"alg": "HS256", "kid": "first", "typ": "JWT"}
    assert sorted(_opened(claims)) == ["exp", "iat", "iss", "sid", "sub"]


def test_forged_tokens_are_refused(world: World, person: People) -> None:
    good = person("ada").sign_in()
    header, claims, signature = good.split(".")
    said = _opened(claims)
    later = {**said, "exp": int(datetime(2030, 1, 1, tzinfo=UTC).timestamp())}
    other = OctKey.import_key(b"x" * 32)
    key = OctKey.import_key(_secret(world))
    named = {"alg": "HS256", "kid": "first"}
    without = {name: value for name, value in said.items() if name != "exp"}
    forged = {
        "alg none, no signature": f"{_part({'alg': 'none', 'kid': 'first', 'typ': 'JWT'})}.{claims}.",
        "alg none, old signature": f"{_part({'alg': 'none', 'kid': 'first', 'typ': 'JWT'})}.{claims}.{signature}",
        "alg None": f"{_part({'alg': 'None', 'kid': 'first', 'typ': 'JWT'})}.{claims}.",
        "later end": f"{header}.{_part(later)}.{signature}",
        "no signature": f"{header}.{claims}.",
        "cut signature": good[:-2],
        "other key, our kid": jwt.encode(named, dict(said), other, algorithms=["HS256"]),
        "our key, unknown kid": jwt.encode({**named, "kid": "second"}, dict(said), key, algorithms=["HS256"]),
        "our key, no kid": jwt.encode({"alg": "HS256"}, dict(said), key, algorithms=["HS256"]),
        "kid of another kind": f"{_part({'alg': 'HS256', 'kid': ['first'], 'typ': 'JWT'})}.{claims}.{signature}",
        "our key, HS512": jwt.encode({**named, "alg": "HS512"}, dict(said), key, algorithms=["HS512"]),
        "our key, other issuer": jwt.encode(named, {**said, "iss": "other"}, key, algorithms=["HS256"]),
        "our key, without end": jwt.encode(named, without, key, algorithms=["HS256"]),
        "our key, end in words": jwt.encode(named, {**said, "exp": "2030"}, key, algorithms=["HS256"]),
        "our key, endless": jwt.encode(named, {**said, "exp": 10**300}, key, algorithms=["HS256"]),
        "our key, session of nobody": jwt.encode(
            named, {**said, "sid": "session_01h455vb4pex5vsknk084sn02q"}, key, algorithms=["HS256"]
        ),
        "our key, user for session": jwt.encode(named, {**said, "sid": said["sub"]}, key, algorithms=["HS256"]),
        "our key, session of another kind": jwt.encode(named, {**said, "sid": {"a": 1}}, key, algorithms=["HS256"]),
        "our key, another type": jwt.encode({**named, "typ": "at+jwt"}, dict(said), key, algorithms=["HS256"]),
        "critical extension": jwt.encode({**named}, dict(said), key, algorithms=["HS256"]).replace(
            header, _part({**named, "typ": "JWT", "crit": ["b64"], "b64": False})
        ),
        "nothing": "",
        "dots": "..",
        "words": "correct horse",
        "not ascii": "ä.ö.ü",
        "deep": f"{header}.{_part_of_depth(5000)}.{signature}",
        "long": "a" * 8000,
    }
    accepted = [name for name, token in forged.items() if not _refused(world, token)]
    assert accepted == []
    assert authentication.authenticate(world.db, good).subject.user_name == "ada"
    control = jwt.encode(named, dict(said), key, algorithms=["HS256"])
    assert authentication.authenticate(world.db, control).subject.user_name == "ada", (
        "the forgeries differ in one thing"
    )


def _part_of_depth(depth: int) -> str:
    return base64.urlsafe_b64encode(b"[" * depth + b"]" * depth).decode().rstrip("=")


def test_a_token_of_another_cloud_is_refused(
    world: World, person: People, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ada = person("ada")
    other_folder = tmp_path_factory.mktemp("other")
    other = Database(f"sqlite:///{other_folder / 'other.db'}", now=world.clock)
    SigningKey.metadata.create_all(other.engine)
    ring = Keyring(other, Sealed([Fernet.generate_key()]))
    now = world.clock()
    token = ring.sign("session_01h455vb4pex5vsknk084sn02q", ada.id, now, now + timedelta(hours=1))
    other.close()
    assert _refused(world, token)


def test_a_replayed_token_of_a_revoked_session_is_refused(world: World, person: People) -> None:
    ada = person("ada")
    token = ada.sign_in()
    other = ada.sign_in()
    ended = with_token(world, token).do("sessionRevoke", "sessions { revokedAt }")
    assert len(ended["sessions"]) == 1
    assert ended["sessions"][0]["revokedAt"] is not None
    assert _refused(world, token)
    assert not _refused(world, other)


def test_a_new_key_signs_and_the_old_one_still_verifies_for_a_day(world: World, person: People) -> None:
    ada = person("ada")
    with world.db.read() as session:
        ring: Keyring = session.info["keyring"]
        elsewhere = Keyring(world.db, session.info["sealed"])
    old = ada.sign_in()
    kid = ring.rotate()
    assert kid != "first"
    new = ada.sign_in()
    assert _opened(new.split(".")[0])["kid"] == kid
    assert not _refused(world, old)
    assert not _refused(world, new)
    now = world.clock()
    deadline = time.monotonic() + 5
    while True:  # another process notices the key by itself, looking at most once a second
        try:
            assert elsewhere.read(new, now).user == ada.id
            break
        except Unauthenticated:
            assert time.monotonic() < deadline, "the other process never found the new key"
            time.sleep(0.05)
    world.clock.advance(hours=26)
    ring.rotate()
    with world.db.read() as session:
        kept = [each.kid for each in session.exec(select(SigningKey)).all()]
    assert "first" not in kept
    assert len(kept) == 2


def test_keys_are_sealed_and_survive_a_restart(world: World, person: People) -> None:
    token = person("ada").sign_in()
    with world.db.read() as session:
        box: Sealed = session.info["sealed"]
        sealed = session.exec(select(SigningKey.sealed_secret)).one()
    assert _secret(world).hex() not in sealed
    again = Keyring(world.db, box)
    assert again.read(token, world.clock()).session.startswith("session_")
    with pytest.raises(ValueError, match="no key of the state directory"):
        Keyring(world.db, Sealed([Fernet.generate_key()]))


def _within_a_second(world: World, token: str) -> float:
    """Seconds until another process refuses a token that it just accepted."""
    began = time.monotonic()
    while time.monotonic() - began < 5:
        if _refused(world, token):
            return time.monotonic() - began
        time.sleep(0.01)
    raise AssertionError("still accepted after five seconds")


@pytest.mark.parametrize("how", ["revoke", "all", "disable", "delete", "password"])
def test_what_ends_a_session_acts_within_a_second_on_every_process(world: World, person: People, how: str) -> None:
    ada = person("ada")
    token = ada.sign_in()
    elsewhere = second_process(world)
    assert authentication.authenticate(elsewhere.db, token).subject.user_name == "ada"
    match how:
        case "revoke":
            with_token(world, token).do("sessionRevoke", "__typename")
        case "all":
            world.admin.do("sessionRevoke", "__typename", allOfUser=ada.id)
        case "disable":
            world.admin.do("userUpdate", "__typename", id=ada.id, enabled=False)
        case "delete":
            world.admin.do("userDelete", "__typename", id=ada.id)
        case "password":
            world.admin.do("userPasswordSet", "__typename", userId=ada.id, newPassword="another-good-1")
    assert _refused(world, token), "in the process that did it, at once"
    assert _within_a_second(elsewhere, token) < 1.0
    elsewhere.db.close()


@pytest.mark.parametrize("how", ["key", "role", "tenant", "user"])
def test_what_ends_a_key_acts_within_a_second_on_every_process(
    world: World, person: People, place: Callable[..., str], how: str
) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MEMBER"})
    made = ada.client().do("apiKeyCreate", "apiKey { id } token", name="k", tenantId=lab, role="READER")
    token = made["token"]
    elsewhere = second_process(world)
    assert authentication.authenticate(elsewhere.db, token).subject.api_key_id is not None
    match how:
        case "key":
            ada.client().do("apiKeyRevoke", "__typename", id=made["apiKey"]["id"])
        case "role":
            world.admin.do("memberRemove", "__typename", tenantId=lab, userId=ada.id)
        case "tenant":
            world.admin.do("tenantDelete", "__typename", id=lab)
        case "user":
            world.admin.do("userUpdate", "__typename", id=ada.id, enabled=False)
    assert _refused(world, token), "in the process that did it, at once"
    assert _within_a_second(elsewhere, token) < 1.0
    elsewhere.db.close()


def test_what_changes_nobodys_standing_moves_no_mark(world: World, person: People) -> None:
    def mark() -> int:
        with world.db.read() as session:
            return session.exec(select(IdentityMark.number)).first() or 0

    ada = person("ada")
    ada.sign_in()
    before = mark()
    ada.sign_in()
    world.admin.do("flavorCreate", "__typename", name="f", vcpus=1, ramMib=128, diskGib=1)
    assert mark() == before
    world.admin.do("userUpdate", "__typename", id=ada.id, fullName="Ada")
    assert mark() == before + 1


def test_busy_tokens_are_read_by_one_statement_for_all(world: World, person: People) -> None:
    """Many tokens shown again and again cost readings of the mark, however many they are, and nothing else."""
    tokens = [person(f"p{number}").sign_in() for number in range(8)]
    door = Door(world.db)
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    async def act() -> None:
        for token in tokens:
            await door.recognised(token)
        asked.clear()
        end = time.monotonic() + 2 * TRUSTED_S
        while time.monotonic() < end:
            for token in tokens:
                await door.recognised(token)
            await asyncio.sleep(0.01)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        asyncio.run(act())
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    others = [each for each in asked if "identity_mark" not in each]
    assert asked
    assert others == []


def test_tokens_that_are_shown_together_are_read_together(
    world: World, person: People, place: Callable[..., str]
) -> None:
    """Each is told of its own, and one that is worth nothing keeps no other out; twelve cost what two do."""
    people = [person(f"p{number}") for number in range(12)]
    labs = [place(f"lab{number}", {f"p{number}": "MEMBER"}) for number in range(3)]
    tokens = [each.sign_in() for each in people]
    api_key = people[0].client().do("apiKeyCreate", "token", tenantId=labs[0], name="k", role="READER")["token"]
    authentication.authenticate_all(world.db, tokens)  # their use is noted
    door = Door(world.db)

    async def act(shown: list[str]) -> list[object]:
        world.db.provided("recognised").empty()
        return await asyncio.gather(*map(door.recognised, shown), return_exceptions=True)

    with counted(world.db) as few:
        asyncio.run(act(tokens[:2]))
    with counted(world.db) as many:
        found = asyncio.run(act(tokens))
    assert [each.subject.user_name for each in found] == [f"p{number}" for number in range(12)]  # type: ignore[attr-defined]  # none was refused
    assert [len(each.subject.roles) for each in found] == [1] * 3 + [0] * 9  # type: ignore[attr-defined]  # likewise
    assert sum("identity_mark" not in each for each in many) <= sum("identity_mark" not in each for each in few) + 3
    people[1].client().do("sessionRevoke", "__typename", sessionId=found[1].key)  # type: ignore[attr-defined]  # likewise
    first, revoked, forged, key = asyncio.run(act([tokens[0], tokens[1], tokens[2][:-2], api_key]))
    assert first.subject.user_name == key.subject.user_name == "p0"  # type: ignore[attr-defined]  # likewise
    assert isinstance(revoked, Unauthenticated)
    assert isinstance(forged, Unauthenticated)


def test_steadiness_is_told_of_as_long_as_nobodys_standing_changed(world: World, person: People) -> None:
    ada = person("ada")
    token = ada.sign_in()
    door = Door(world.db)
    flavor: dict[str, Any] = {"name": "f", "vcpus": 1, "ramMib": 128, "diskGib": 1}

    async def act() -> None:
        world.db.provided("recognised").empty()
        await door.recognised(token)
        before = door.steady()
        assert before is not None
        await asyncio.to_thread(partial(world.admin.do, "flavorCreate", "__typename", **flavor))
        assert door.steady() == before
        await asyncio.to_thread(partial(world.admin.do, "userUpdate", "__typename", id=ada.id, fullName="Ada"))
        assert door.steady() != before

    asyncio.run(act())


def test_a_lost_role_acts_within_a_second_on_every_process(
    world: World, person: People, place: Callable[..., str]
) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MEMBER"})
    token = ada.sign_in()
    elsewhere = second_process(world)
    assert len(authentication.authenticate(elsewhere.db, token).subject.roles) == 1
    world.admin.do("memberRemove", "__typename", tenantId=lab, userId=ada.id)
    assert dict(authentication.authenticate(world.db, token).subject.roles) == {}
    began = time.monotonic()
    while authentication.authenticate(elsewhere.db, token).subject.roles:
        assert time.monotonic() - began < 1.0
        time.sleep(0.01)
    elsewhere.db.close()
