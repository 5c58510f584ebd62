"""Tenants: who makes, changes, sees and ends them, and that nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlmodel import Session, select

from gateway.identity import quota, tenant
from gateway.identity.quota import Quota, Resource
from gateway.identity.role import Membership
from gateway.identity.tenant import Tenant
from gateway.jobs.job import Job, Order, Status, settle, submit
from gateway.kernel.access import CLOUD
from gateway.kernel.errors import NotFound
from tests.identity.conftest import Person
from tests.world import World

People = Callable[..., Person]
Places = Callable[..., str]
FIELDS = "tenant { id name description version }"
SEEN = "query($id: ID!) { tenant(id: $id) { name } }"


def _row(world: World, public_id: str) -> Tenant:
    with world.db.read() as session:
        return tenant.NOUN.get(session, CLOUD, public_id)


def test_an_operator_makes_changes_and_ends_a_tenant(world: World) -> None:
    made = world.admin.do("tenantCreate", FIELDS, name="lab", description="x")["tenant"]
    assert {k: v for k, v in made.items() if k != "id"} == {"name": "lab", "description": "x", "version": 1}
    changed = world.admin.do("tenantUpdate", FIELDS, id=made["id"], name="lab 2", description=None, expectedVersion=1)
    assert changed["tenant"] == {"id": made["id"], "name": "lab 2", "description": "", "version": 2}
    stale = world.admin.refused("tenantUpdate", id=made["id"], name="lab 3", expectedVersion=1)
    assert stale == [("STALE_VERSION", ["expectedVersion"])]
    ended = world.admin.do("tenantDelete", "tenant { name deletedAt }", id=made["id"])["tenant"]
    assert ended["deletedAt"] is not None
    assert world.admin.ok(SEEN, id=made["id"])["tenant"] is None
    assert world.admin.refused("tenantDelete", id=made["id"]) == [("NOT_FOUND", ["id"])]
    assert world.admin.do("tenantCreate", FIELDS, name="lab 2")["tenant"]["id"] != made["id"], "its name is free again"


def test_wrong_input_changes_nothing(world: World) -> None:
    made = world.admin.do("tenantCreate", FIELDS, name="lab")["tenant"]
    world.admin.do("tenantCreate", FIELDS, name="other")
    before = world.admin.ok("{ tenants { nodes { id name description version } } }")
    assert world.admin.refused("tenantCreate", name="lab") == [("CONFLICT", ["name"])]
    assert world.admin.refused("tenantCreate", name=" ") == [("INVALID", ["name"])]
    assert world.admin.refused("tenantUpdate", id=made["id"], name="other") == [("CONFLICT", ["name"])]
    assert world.admin.refused("tenantUpdate", id="tenant_0", name="x") == [("NOT_FOUND", ["id"])]
    assert world.admin.refused("tenantUpdate", id=made["id"].replace("tenant", "user")) == [("NOT_FOUND", ["id"])]
    assert world.admin.ok("{ tenants { nodes { id name description version } } }") == before


def test_people_see_their_own_tenants_only(world: World, person: People, place: Places) -> None:
    ada, eve = person("ada"), person("eve")
    lab, other = place("lab", {"ada": "READER"}), place("other", {"eve": "MANAGER"})
    everything = "{ tenants { totalCount nodes { id members { user { name } role } quotas { used } apiKeys { id } } } }"
    seen = ada.client().ok(everything)["tenants"]
    assert (seen["totalCount"], [each["id"] for each in seen["nodes"]]) == (1, [lab])
    assert seen["nodes"][0]["members"] == [{"user": {"name": "ada"}, "role": "READER"}]
    assert [each["id"] for each in eve.client().ok(everything)["tenants"]["nodes"]] == [other]
    assert ada.client().ok(SEEN, id=other)["tenant"] is None
    assert world.admin.ok(everything)["tenants"]["totalCount"] == 2


def test_only_operators_change_tenants(world: World, person: People, place: Places) -> None:
    ada = person("ada")
    lab = place("lab", {"ada": "MANAGER"})
    client = ada.client()
    assert client.refused("tenantCreate", name="mine") == [("FORBIDDEN", None)]
    assert client.refused("tenantUpdate", id=lab, name="mine") == [("FORBIDDEN", None)]
    assert client.refused("tenantDelete", id=lab) == [("FORBIDDEN", None)]
    limits = [{"resource": "SERVERS", "limit": -1}]
    assert client.refused("quotaSet", tenantId=lab, limits=limits) == [("FORBIDDEN", None)]
    assert world.admin.ok("{ tenants { nodes { name version } } }")["tenants"]["nodes"] == [
        {"name": "lab", "version": 1}
    ]


def test_a_tenant_that_owns_something_stays_as_it_is(world: World, person: People, place: Places) -> None:
    person("ada")
    lab = place("lab", {"ada": "MEMBER"})
    row = _row(world, lab)
    job_id = world.db.run(lambda session: submit(session, CLOUD, Order("test.nothing", row.id)).id)
    document = """mutation($id: ID!) { tenantDelete(input: {id: $id}) {
      userErrors { code path ... on InUse { blockers } } } }"""
    refused = world.admin.ok(document, id=lab)["tenantDelete"]["userErrors"]
    with world.db.read() as session:
        public = _public(session.get_one(Job, job_id))
        assert session.exec(select(Quota).where(Quota.tenant_id == row.id)).all()
        assert len(session.exec(select(Membership).where(Membership.tenant_id == row.id)).all()) == 1
    assert refused == [{"code": "IN_USE", "path": ["id"], "blockers": [public]}]
    world.db.run(lambda session: settle(session, session.get_one(Job, job_id), Status.FAILED))
    world.admin.do("tenantDelete", FIELDS, id=lab)
    with world.db.read() as session:
        assert session.exec(select(Quota).where(Quota.tenant_id == row.id)).all() == []
        assert session.exec(select(Membership).where(Membership.tenant_id == row.id)).all() == []


def _public(row: Job) -> str:
    from gateway.kernel import noun

    return noun.public(row)


def test_nothing_is_taken_from_a_deleted_tenant(world: World, place: Places) -> None:
    lab = place("lab")
    row = _row(world, lab)
    world.admin.do("tenantDelete", FIELDS, id=lab)
    with pytest.raises(NotFound):
        world.db.run(lambda session: quota.take(session, row.id, {Resource.SERVERS: 1}))


@pytest.fixture
def hooks() -> Iterator[list[tuple[str, str]]]:
    """What the hooks of tenants were called with, as (hook, tenant's name)."""
    called: list[tuple[str, str]] = []

    def made(session: Session, new: Tenant) -> None:
        assert session.get(Tenant, new.id) is new
        called.append(("create", new.name))

    def ended(_session: Session, old: Tenant) -> None:
        called.append(("delete", old.name))

    tenant.on_create.append(made)
    tenant.on_delete.append(ended)
    yield called
    tenant.on_create.remove(made)
    tenant.on_delete.remove(ended)


def test_services_are_told_of_a_new_and_an_ended_tenant(
    world: World, place: Places, hooks: list[tuple[str, str]]
) -> None:
    lab = place("lab")
    world.admin.do("tenantDelete", FIELDS, id=lab)
    assert hooks == [("create", "lab"), ("delete", "lab")]
