"""Giving and taking roles."""

from __future__ import annotations

from collections.abc import Callable

from tests.identity.conftest import Person
from tests.world import World

People = Callable[..., Person]
Places = Callable[..., str]
MEMBERS = "query($id: ID!) { tenant(id: $id) { members { user { name } role } } }"


def _members(world: World, lab: str) -> dict[str, str]:
    found = world.admin.ok(MEMBERS, id=lab)["tenant"]["members"]
    return {each["user"]["name"]: each["role"] for each in found}


def test_a_manager_gives_changes_and_takes_roles(world: World, person: People, place: Places) -> None:
    ada, bob = person("ada"), person("bob")
    lab = place("lab", {"ada": "MANAGER"})
    client = ada.client()
    made = client.do(
        "memberAdd",
        "membership { user { name } tenant { id } role }",
        tenantId=lab,
        user={"name": "BOB"},
        role="READER",
    )
    assert made["membership"] == {"user": {"name": "bob"}, "tenant": {"id": lab}, "role": "READER"}
    client.do("memberAdd", "membership { role }", tenantId=lab, user={"id": bob.id}, role="MANAGER")
    assert _members(world, lab) == {"ada": "MANAGER", "bob": "MANAGER"}
    client.do("memberRemove", "tenant { id } user { id }", tenantId=lab, userId=bob.id)
    assert _members(world, lab) == {"ada": "MANAGER"}
    assert client.refused("memberRemove", tenantId=lab, userId=bob.id) == [("NOT_FOUND", ["userId"])]


def test_members_and_readers_give_nothing(world: World, person: People, place: Places) -> None:
    person("ada")
    bob, cem = person("bob"), person("cem")
    lab = place("lab", {"ada": "MANAGER", "bob": "MEMBER", "cem": "READER"})
    before = _members(world, lab)
    for each in (bob, cem):
        client = each.client()
        given = {"tenantId": lab, "user": {"name": each.name}, "role": "MANAGER"}
        assert client.refused("memberAdd", **given) == [("FORBIDDEN", None)]
        other = bob if each is cem else cem
        assert client.refused("memberRemove", tenantId=lab, userId=other.id) == [("FORBIDDEN", None)]
    assert _members(world, lab) == before


def test_a_manager_of_one_tenant_is_nobody_in_another(world: World, person: People, place: Places) -> None:
    eve, ada = person("eve"), person("ada")
    place("other", {"eve": "MANAGER"})
    lab = place("lab", {"ada": "MEMBER"})
    client = eve.client()
    given = {"tenantId": lab, "user": {"name": "eve"}, "role": "READER"}
    assert client.refused("memberAdd", **given) == [("NOT_FOUND", ["tenantId"])]
    assert client.refused("memberRemove", tenantId=lab, userId=ada.id) == [("NOT_FOUND", ["tenantId"])]
    assert client.ok(MEMBERS, id=lab)["tenant"] is None
    assert _members(world, lab) == {"ada": "MEMBER"}


def test_anybody_may_leave(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "READER"})
    client = ada.client()
    left = client.do("memberRemove", "user { name }", tenantId=lab, userId=ada.id)
    assert left["user"] == {"name": "ada"}
    assert _members(world, lab) == {}


def test_a_user_is_named_in_exactly_one_way(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab")
    both = {"tenantId": lab, "user": {"name": "ada", "id": ada.id}, "role": "READER"}
    document = "mutation($i: MemberAddInput!) { memberAdd(input: $i) { userErrors { code path } } }"
    assert world.admin.run(document, i=both).errors != []
    assert world.admin.run(document, i={**both, "user": {}}).errors != []
    refused = world.admin.refused("memberAdd", tenantId=lab, user={"name": "nobody"}, role="READER")
    assert refused == [("NOT_FOUND", ["user", "name"])]
    assert _members(world, lab) == {}
