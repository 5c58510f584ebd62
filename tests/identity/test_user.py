"""Users: who makes, changes, sees and ends them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.identity import authentication
from gateway.kernel.access import NOBODY
from gateway.kernel.errors import Unauthenticated
from resolvers.schema import schema
from tests.identity.conftest import PASSWORD, Person, sign_in
from tests.world import Client, World

People = Callable[..., Person]
Places = Callable[..., str]
FIELDS = "user { id name fullName email admin enabled version }"
SEEN = "query($id: ID!) { user(id: $id) { name } }"


def test_an_operator_makes_a_user(world: World) -> None:
    made = world.admin.do(
        "userCreate", FIELDS, name=" Ada.L@example ", password=PASSWORD, fullName="Ada", email="ada@example.org"
    )["user"]
    assert made.pop("id").startswith("user_")
    assert made == {
        "name": "ada.l@example", "fullName": "Ada", "email": "ada@example.org", "admin": False, "enabled": True,
        "version": 1,
    }  # fmt: skip


def test_wrong_input_makes_nobody(world: World, person: People) -> None:
    person("ada")
    before = world.admin.ok("{ users { totalCount } }")
    assert world.admin.refused("userCreate", name="ADA", password=PASSWORD) == [("CONFLICT", ["name"])]
    for name in ("", "a b", "-a", "a/b", "ä", "x" * 129, "a\x00"):
        assert world.admin.refused("userCreate", name=name, password=PASSWORD) == [("INVALID", ["name"])], name
    for email in ("ada", "a@b@c", "a b@c"):
        refused = world.admin.refused("userCreate", name="x", password=PASSWORD, email=email)
        assert refused == [("INVALID", ["email"])], email
    assert world.admin.ok("{ users { totalCount } }") == before


def test_a_retried_create_makes_one(world: World) -> None:
    given = {"name": "ada", "password": PASSWORD, "idempotencyKey": "k"}
    first = world.admin.do("userCreate", FIELDS, **given)
    assert world.admin.do("userCreate", FIELDS, **given) == first
    other = world.admin.refused("userCreate", **{**given, "password": "another-good-1"})
    assert other == [("IDEMPOTENCY_KEY_MISMATCH", ["idempotencyKey"])]


def test_only_operators_make_change_and_end_users(world: World, person: People, place: Places) -> None:
    ada, bob = person("ada"), person("bob")
    place("lab", {"ada": "MANAGER", "bob": "MEMBER"})
    before = world.admin.ok("{ users { nodes { id name enabled admin version } } }")
    for client, code in ((ada.client(), "FORBIDDEN"), (bob.client(), "FORBIDDEN")):
        assert client.refused("userCreate", name="eve", password=PASSWORD) == [(code, None)]
        assert client.refused("userUpdate", id=bob.id, admin=True) == [(code, None)]
        assert client.refused("userDelete", id=bob.id) == [(code, None)]
    for name in ("userCreate", "userUpdate", "userDelete"):
        given = {"name": "eve", "password": PASSWORD} if name == "userCreate" else {"id": bob.id}
        document = f"mutation($i: {name[0].upper()}{name[1:]}Input!) {{ {name}(input: $i) {{ __typename }} }}"
        assert world.nobody.run(document, i=given).codes == ["UNAUTHENTICATED"]
    assert world.admin.ok("{ users { nodes { id name enabled admin version } } }") == before


def test_people_see_themselves_and_whom_they_share_a_tenant_with(world: World, person: People, place: Places) -> None:
    ada, bob, eve = person("ada"), person("bob"), person("eve")
    place("lab", {"ada": "READER", "bob": "MANAGER"})
    place("other", {"eve": "MANAGER"})
    names = "{ users(orderBy: {field: NAME}) { totalCount nodes { name } } }"
    assert ada.client().ok(names)["users"] == {"totalCount": 2, "nodes": [{"name": "ada"}, {"name": "bob"}]}
    assert eve.client().ok(names)["users"] == {"totalCount": 1, "nodes": [{"name": "eve"}]}
    assert ada.client().ok(SEEN, id=bob.id)["user"] == {"name": "bob"}
    assert eve.client().ok(SEEN, id=bob.id)["user"] is None
    assert world.admin.ok(SEEN, id=bob.id)["user"] == {"name": "bob"}
    assert world.nobody.run(SEEN, id=bob.id).codes == ["UNAUTHENTICATED"]


def test_the_list_filters(world: World, person: People) -> None:
    for name in ("ada", "adam", "bob"):
        person(name, admin=name == "bob", enabled=name != "adam")
    listed = "query($f: UserFilter) { users(filter: $f, orderBy: {field: NAME}) { nodes { name } } }"

    def found(**wanted: object) -> list[str]:
        return [each["name"] for each in world.admin.ok(listed, f=wanted)["users"]["nodes"]]

    assert found(nameContains="AD") == ["ada", "adam"]
    assert found(name="Ada") == ["ada"]
    assert found(nameContains="%") == []
    assert found(admin=True) == ["bob", "root"]
    assert found(enabled=False) == ["adam"]


def test_an_update_changes_what_is_named_and_clears_what_is_null(world: World, person: People) -> None:
    ada = person("ada", fullName="Ada", email="ada@example.org")
    world.admin.do("userUpdate", FIELDS, id=ada.id, name="Lady.Ada", email=None, expectedVersion=1)
    seen = world.admin.ok("query($id: ID!) { user(id: $id) { name fullName email version } }", id=ada.id)["user"]
    assert seen == {"name": "lady.ada", "fullName": "Ada", "email": "", "version": 2}
    assert world.admin.refused("userUpdate", id=ada.id, fullName="x", expectedVersion=1) == [
        ("STALE_VERSION", ["expectedVersion"])
    ]
    person("bob")
    assert world.admin.refused("userUpdate", id=ada.id, name="bob") == [("CONFLICT", ["name"])]
    assert sign_in(world, "lady.ada", PASSWORD)


def test_a_disabled_user_is_out_until_enabled_again(world: World, person: People) -> None:
    ada = person("ada")
    token = ada.sign_in()
    world.admin.do("userUpdate", FIELDS, id=ada.id, enabled=False)
    refused = Client(world, NOBODY).refused("sessionCreate", username="ada", password=PASSWORD)
    assert refused == [("UNAUTHENTICATED", None)]
    world.admin.do("userUpdate", FIELDS, id=ada.id, enabled=True)
    assert sign_in(world, "ada", PASSWORD)
    with pytest.raises(Unauthenticated):
        authentication.authenticate(world.db, token)  # the old session does not come back


def test_a_deleted_user_leaves_nothing_that_works_and_frees_the_name(
    world: World, person: People, place: Places
) -> None:
    ada = person("ada", fullName="Ada", email="ada@example.org")
    lab = place("lab", {"ada": "MEMBER"})
    ended = world.admin.do("userDelete", FIELDS, id=ada.id)["user"]
    assert (ended["fullName"], ended["email"], ended["enabled"]) == ("", "", False)
    refused = Client(world, NOBODY).refused("sessionCreate", username="ada", password=PASSWORD)
    assert refused == [("UNAUTHENTICATED", None)]
    assert world.admin.ok(SEEN, id=ada.id)["user"] is None
    members = world.admin.ok("query($id: ID!) { tenant(id: $id) { members { user { name } } } }", id=lab)
    assert members["tenant"]["members"] == []
    assert world.admin.refused("userDelete", id=ada.id) == [("NOT_FOUND", ["id"])]
    again = person("ada")
    assert again.id != ada.id
    assert again.client().ok("{ viewer { memberships { id } } }")["viewer"]["memberships"] == []


def test_the_last_operator_stays(world: World, person: People) -> None:
    root = world.admin.ok('{ users(filter: {name: "root"}) { nodes { id } } }')["users"]["nodes"][0]["id"]
    for wish in ({"admin": False}, {"enabled": False}):
        assert world.admin.refused("userUpdate", id=root, **wish) == [("CONFLICT", ["id"])]
    assert world.admin.refused("userDelete", id=root) == [("CONFLICT", ["id"])]
    off = person("off", admin=True)
    world.admin.do("userUpdate", FIELDS, id=off.id, enabled=False)
    assert world.admin.refused("userDelete", id=root) == [("CONFLICT", ["id"])], "one who may not sign in is none"
    second = person("second", admin=True)
    world.admin.do("userUpdate", FIELDS, id=second.id, admin=False)
    person("third", admin=True)
    world.admin.do("userDelete", FIELDS, id=root)


def test_no_type_shows_what_is_kept_of_a_secret() -> None:
    shown = schema()._schema.type_map
    for name in ("User", "Session", "ApiKey", "Tenant", "AuditRecord", "Viewer"):
        fields = set(getattr(shown[name], "fields", {}))
        assert fields & {"password", "digest", "givenPassword", "sealedSecret", "token", "secret"} == set(), name
        assert "id" in fields or name == "Viewer"
