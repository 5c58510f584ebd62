"""API keys: less than their user, in one tenant, until they end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlmodel import select

from gateway.identity import authentication
from gateway.identity.api_key import ApiKey
from gateway.kernel.access import Role
from gateway.kernel.errors import Unauthenticated
from tests.identity.conftest import PASSWORD, Person, with_token
from tests.world import Client, World

People = Callable[..., Person]
Places = Callable[..., str]


def _make(client: Client, lab: str, role: str = "MEMBER", **given: object) -> tuple[str, str]:
    """The id and token of a new key."""
    made = client.do("apiKeyCreate", "apiKey { id } token", name="ci", tenantId=lab, role=role, **given)
    return made["apiKey"]["id"], made["token"]


def _refused(world: World, token: str) -> bool:
    try:
        authentication.authenticate(world.db, token)
    except Unauthenticated:
        return True
    return False


def test_a_key_is_its_user_in_one_tenant_with_at_most_its_role(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MANAGER"})
    place("other", {"ada": "MANAGER"})
    key, token = _make(ada.client(), lab, "READER", expiresAt="2026-02-01T00:00:00Z")
    assert token.startswith(f"sgk_{key}_")
    client = with_token(world, token)
    told = client.ok(
        "{ viewer { admin expiresAt session { id } user { name } apiKey { name role } sessions { id } "
        "memberships { tenant { name } } } tenants { nodes { name } } }"
    )
    assert told["viewer"] == {
        "admin": False,
        "expiresAt": "2026-02-01T00:00:00.000000Z",
        "session": None,
        "user": {"name": "ada"},
        "apiKey": {"name": "ci", "role": "READER"},
        "sessions": [],
        "memberships": [{"tenant": {"name": "lab"}}],
    }
    assert told["tenants"]["nodes"] == [{"name": "lab"}]
    assert list(client.subject.roles.values()) == [Role.READER]
    given = {"tenantId": lab, "user": {"name": "ada"}, "role": "READER"}
    assert client.refused("memberAdd", **given) == [("FORBIDDEN", None)]


def test_an_operators_key_operates_nothing(world: World, person: People, place: Places) -> None:
    chief = person("chief", admin=True)
    lab = place("lab")
    _, token = _make(chief.client(), lab, "MANAGER")
    client = with_token(world, token)
    assert client.refused("tenantCreate", name="x") == [("FORBIDDEN", None)]
    assert client.ok("{ tenants { nodes { id } } }")["tenants"]["nodes"] == [{"id": lab}]


def test_the_secret_is_told_once_and_kept_nowhere(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MANAGER"})
    client = ada.client()
    given = {"name": "ci", "tenantId": lab, "role": "READER", "idempotencyKey": "k"}
    first = client.do("apiKeyCreate", "apiKey { id } token", **given)
    again = client.do("apiKeyCreate", "apiKey { id } token", **given)
    assert again == {"apiKey": first["apiKey"], "token": None, "userErrors": []}
    secret = first["token"].removeprefix(f"sgk_{first['apiKey']['id']}_")  # it may have an underscore itself
    assert len(secret) > 40
    with world.db.read() as session:
        for table in ("api_key", "audit_record", "idempotency_key", "event"):
            for row in session.connection().exec_driver_sql(f"SELECT * FROM {table}").all():  # noqa: S608 - our names
                assert first["token"] not in str(row)
                assert secret not in str(row)
        assert len(session.exec(select(ApiKey)).one().digest) == 64


def test_nobody_makes_a_key_above_their_role_or_elsewhere(world: World, person: People, place: Places) -> None:
    ada, eve = person("ada"), person("eve")
    lab = place("lab", {"ada": "MEMBER"})
    client = ada.client()
    given = {"name": "ci", "tenantId": lab}
    assert client.refused("apiKeyCreate", **given, role="MANAGER") == [("FORBIDDEN", None)]
    assert eve.client().refused("apiKeyCreate", **given, role="READER") == [("NOT_FOUND", ["tenantId"])]
    past = client.refused("apiKeyCreate", **given, role="READER", expiresAt="2025-12-31T00:00:00Z")
    assert past == [("INVALID", ["expiresAt"])]
    with world.db.read() as session:
        assert session.exec(select(ApiKey)).all() == []


def test_a_key_makes_no_sessions_keys_or_passwords(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MANAGER"})
    key, token = _make(ada.client(), lab, "MANAGER")
    client = with_token(world, token)
    forbidden = [("FORBIDDEN", None)]
    assert client.refused("sessionCreate", username="ada", password=PASSWORD) == forbidden
    assert client.refused("apiKeyCreate", name="x", tenantId=lab, role="READER") == forbidden
    assert client.refused("apiKeyRevoke", id=key) == forbidden
    assert client.refused("sessionRevoke", allOfUser=ada.id) == forbidden
    changed = client.refused("userPasswordSet", currentPassword=PASSWORD, newPassword="another-good-1")
    assert changed == forbidden
    assert client.refused("memberRemove", tenantId=lab, userId=ada.id) == forbidden
    assert ada.sign_in()


def test_a_key_ends_when_it_says(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MANAGER"})
    _, token = _make(ada.client(), lab, expiresAt="2026-01-01T01:00:00+01:00".replace("01:00:00+", "02:00:00+"))
    world.clock.advance(minutes=59)
    assert not _refused(world, token)
    world.clock.advance(minutes=1)
    assert _refused(world, token)


@pytest.mark.parametrize("how", ["revoke", "manager", "remove", "disable", "delete", "tenant"])
def test_what_ends_a_key(world: World, person: People, place: Places, how: str) -> None:
    ada = person("ada")
    person("mia")
    lab = place("lab", {"ada": "MEMBER", "mia": "MANAGER"})
    key, token = _make(ada.client(), lab)
    assert not _refused(world, token)
    match how:
        case "revoke":
            ended = ada.client().do("apiKeyRevoke", "apiKey { revokedAt }", id=key)
            assert ended["apiKey"]["revokedAt"] is not None
        case "manager":
            mia = Person(world, "", "mia")
            mia.client().do("apiKeyRevoke", "apiKey { id }", id=key)
        case "remove":
            world.admin.do("memberRemove", "__typename", tenantId=lab, userId=ada.id)
            world.admin.do(
                "memberAdd", "__typename", tenantId=lab, user={"name": "ada"}, role="MEMBER"
            )  # coming back does not bring the key back
        case "disable":
            world.admin.do("userUpdate", "__typename", id=ada.id, enabled=False)
        case "delete":
            world.admin.do("userDelete", "__typename", id=ada.id)
        case "tenant":
            world.admin.do("tenantDelete", "__typename", id=lab)
    assert _refused(world, token)


def test_a_key_weakens_with_its_user(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MANAGER"})
    _, token = _make(ada.client(), lab, "MANAGER")
    world.admin.do("memberAdd", "__typename", tenantId=lab, user={"name": "ada"}, role="READER")
    assert list(with_token(world, token).subject.roles.values()) == [Role.READER]


def test_who_sees_which_keys(person: People, place: Places) -> None:
    ada, bob, mia, eve = person("ada"), person("bob"), person("mia"), person("eve")
    lab = place("lab", {"ada": "MEMBER", "bob": "MEMBER", "mia": "MANAGER"})
    place("other", {"eve": "MANAGER"})
    key, _ = _make(ada.client(), lab)
    seen = "query($id: ID!) { tenant(id: $id) { apiKeys { id user { name } } } viewer { apiKeys { id } } }"
    listed = [{"id": key, "user": {"name": "ada"}}]
    assert ada.client().ok(seen, id=lab) == {"tenant": {"apiKeys": listed}, "viewer": {"apiKeys": [{"id": key}]}}
    assert mia.client().ok(seen, id=lab) == {"tenant": {"apiKeys": listed}, "viewer": {"apiKeys": []}}
    assert bob.client().ok(seen, id=lab) == {"tenant": {"apiKeys": []}, "viewer": {"apiKeys": []}}
    for each in (bob, eve):
        assert each.client().refused("apiKeyRevoke", id=key) == [("NOT_FOUND", ["id"])]
    assert eve.client().ok(seen, id=lab)["tenant"] is None


def test_made_up_keys_are_refused(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MANAGER"})
    key, token = _make(ada.client(), lab)
    other_key, other = _make(ada.client(), lab)
    secret = token[-43:]
    wrong = [
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        f"sgk_{other_key}_{secret}",
        f"sgk_{key}_{'A' * 43}",
        f"sgk_{key}_",
        f"sgk_{key}",
        f"sgk_apikey_{'7' * 26}_{secret}",
        token.upper(),
        token + "A",
        f" {token}",
    ]
    assert [each for each in wrong if not _refused(world, each)] == []
    assert not _refused(world, token)
    assert not _refused(world, other)


def test_the_last_use_is_noted_to_the_minute(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MANAGER"})
    _, token = _make(ada.client(), lab)

    def used() -> object:
        with world.db.read() as session:
            return session.exec(select(ApiKey.last_used_at)).one()

    assert used() is None
    authentication.authenticate(world.db, token)
    first = used()
    assert first is not None
    world.db.run(lambda session: session.info["recognised"].empty())
    authentication.authenticate(world.db, token)
    assert used() == first
    world.clock.advance(seconds=61)
    world.db.run(lambda session: session.info["recognised"].empty())
    authentication.authenticate(world.db, token)
    assert used() != first
