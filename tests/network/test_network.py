from __future__ import annotations

from dataclasses import replace

import pytest

from drivers.api import DriverError, HostAtFault, Refused, Transient
from drivers.sim import DataCentre
from gateway.identity import quota
from gateway.identity.quota import Resource
from gateway.kernel.access import Role
from gateway.kernel.noun import public
from gateway.network import port as ports
from tests.network import cloud
from tests.world import Client, World

FIELDS = "network { id name description mtu shared tags deleting version tenant { name } subnets { cidr } }"
LIST = "query($f: NetworkFilter) { networks(filter: $f, orderBy: {field: NAME}) { nodes { name } totalCount } }"


def test_a_member_makes_changes_and_deletes_a_network(world: World) -> None:
    tenant = world.tenant("blue")
    alice = world.member(tenant)
    made = alice.do("networkCreate", FIELDS, name="web", mtu=1400, tags=["a", "b", "a"])["network"]
    assert made == {
        "id": made["id"], "name": "web", "description": "", "mtu": 1400, "shared": False, "tags": ["a", "b"],
        "deleting": False, "version": 1, "tenant": {"name": "blue"}, "subnets": [],
    }  # fmt: skip
    assert cloud.used(world, tenant, Resource.NETWORKS) == 1
    cloud.subnet(alice, made["id"], "10.0.0.0/24")
    cloud.subnet(alice, made["id"], "fd00::/64")
    changed = alice.do(
        "networkUpdate", FIELDS, id=made["id"], name="db", description="x", tags=None, expectedVersion=1
    )["network"]
    assert changed["name"] == "db"
    assert (changed["description"], changed["tags"], changed["version"]) == ("x", [], 2)
    assert changed["subnets"] == [{"cidr": "10.0.0.0/24"}, {"cidr": "fd00::/64"}]
    assert alice.refused("networkUpdate", id=made["id"], name="z", expectedVersion=1) == [
        ("STALE_VERSION", ["expectedVersion"])
    ]
    gone = alice.do("networkDelete", "id network { id } job { id }", id=made["id"])
    assert (gone["id"], gone["network"], gone["job"]) == (made["id"], None, None)
    assert alice.ok("query($id: ID!) { network(id: $id) { name } }", id=made["id"]) == {"network": None}
    assert alice.ok("{ subnets { totalCount } }")["subnets"]["totalCount"] == 0
    assert cloud.used(world, tenant, Resource.NETWORKS) == 0
    assert alice.refused("networkDelete", id=made["id"]) == [("NOT_FOUND", ["id"])]
    with world.db.read() as session:
        assert cloud.events(session, made["id"]) == ["network.created", "network.changed", "network.deleted"]


def test_another_tenant_sees_nothing_and_changes_nothing(world: World) -> None:
    alice = world.member(world.tenant())
    mallory = world.member(world.tenant(), Role.MANAGER)
    made = cloud.network(alice, "10.0.0.0/24")
    before = cloud.rows(world)
    assert mallory.ok(LIST)["networks"] == {"nodes": [], "totalCount": 0}
    assert mallory.ok("query($id: ID!) { network(id: $id) { name } }", id=made) == {"network": None}
    assert mallory.refused("networkUpdate", id=made, name="x") == [("NOT_FOUND", ["id"])]
    assert mallory.refused("networkDelete", id=made) == [("NOT_FOUND", ["id"])]
    assert mallory.refused("subnetCreate", networkId=made, cidr="10.1.0.0/24") == [("NOT_FOUND", ["networkId"])]
    assert mallory.refused("portCreate", networkId=made) == [("NOT_FOUND", ["networkId"])]
    assert cloud.rows(world) == before


def test_a_reader_sees_and_changes_nothing(world: World) -> None:
    tenant = world.tenant()
    alice, reader = world.member(tenant), world.member(tenant, Role.READER)
    made = cloud.network(alice, name="seen")
    before = cloud.rows(world)
    assert reader.ok(LIST)["networks"]["nodes"] == [{"name": "seen"}]
    for mutation, given in (
        ("networkCreate", {"name": "x"}), ("networkUpdate", {"id": made}), ("networkDelete", {"id": made}),
    ):  # fmt: skip
        assert [code for code, _ in reader.refused(mutation, **given)] == ["FORBIDDEN"]
    assert cloud.rows(world) == before
    assert world.nobody.run(LIST).codes == ["UNAUTHENTICATED"]


def test_a_reader_here_who_is_member_elsewhere_is_refused_by_role(world: World) -> None:
    here, there = world.tenant(), world.tenant()
    made = cloud.network(world.member(here))
    both = world.member(there)
    both = replace(both, subject=replace(both.subject, roles={here.id: Role.READER, there.id: Role.MEMBER}))
    before = cloud.rows(world)
    assert both.refused("networkUpdate", id=made, name="x") == [("FORBIDDEN", ["id"])]
    assert both.refused("subnetCreate", networkId=made, cidr="10.1.0.0/24") == [("FORBIDDEN", ["networkId"])]
    assert both.refused("networkCreate", name="x") == [("INVALID", ["tenantId"])]
    assert cloud.rows(world) == before


def test_wrong_input_is_told_by_place_and_changes_nothing(world: World) -> None:
    alice = world.member(world.tenant())
    before = cloud.rows(world)
    assert alice.refused("networkCreate", name="", mtu=100) == [("INVALID", ["name"]), ("INVALID", ["mtu"])]
    assert alice.refused("networkCreate", name="x", shared=True) == [("FORBIDDEN", ["shared"])]
    assert alice.refused("networkCreate", name="x", tenantId="tenant_x") == [("NOT_FOUND", ["tenantId"])]
    assert alice.refused("networkDelete", id="port_00000000000000000000000000") == [("NOT_FOUND", ["id"])]
    assert cloud.rows(world) == before


def test_quota_bounds_networks_and_retries_do_nothing_twice(world: World) -> None:
    tenant = world.tenant()
    alice = world.member(tenant)
    first = alice.do("networkCreate", "network { id }", name="a", idempotencyKey="k")
    assert alice.do("networkCreate", "network { id }", name="a", idempotencyKey="k") == first
    world.admin.do("quotaSet", "__typename", tenantId=public(tenant), limits=[{"resource": "NETWORKS", "limit": 2}])
    cloud.network(alice, name="b")
    assert alice.refused("networkCreate", name="c") == [("QUOTA_EXCEEDED", None)]
    assert cloud.used(world, tenant, Resource.NETWORKS) == 2
    assert alice.ok(LIST)["networks"]["nodes"] == [{"name": "a"}, {"name": "b"}]


def test_lists_are_filtered(world: World) -> None:
    blue, red = world.tenant(), world.tenant()
    alice, bob = world.member(blue), world.member(red)
    cloud.network(alice, name="web", tags=["front"])
    cloud.network(alice, name="webdb")
    cloud.network(bob, name="web")

    def named(**wanted: object) -> list[str]:
        return [each["name"] for each in world.admin.ok(LIST, f=wanted)["networks"]["nodes"]]

    assert named(name="web") == ["web", "web"]
    assert named(nameContains="DB") == ["webdb"]
    assert named(tag="front") == ["web"]
    assert named(tag="fro") == []
    assert named(tenantId=public(red)) == ["web"]
    assert named(shared=True) == []
    assert world.admin.run(LIST, f={"tenantId": "x"}).codes == ["NOT_FOUND"]


def test_a_shared_network_serves_other_tenants_and_stays_its_owners(world: World) -> None:
    owner = world.tenant()
    alice, bob = world.member(owner), world.member(world.tenant())
    made = cloud.network(alice, "10.0.0.0/24", name="all")
    assert alice.refused("networkUpdate", id=made, shared=True) == [("FORBIDDEN", ["shared"])]
    world.admin.do("networkUpdate", "network { shared }", id=made, shared=True)
    seen = bob.ok("{ networks { nodes { name tenant { name } subnets { cidr } } } }")["networks"]["nodes"]
    assert seen == [{"name": "all", "tenant": None, "subnets": [{"cidr": "10.0.0.0/24"}]}]
    mine = cloud.port(bob, made)
    assert mine["ipAddresses"] == ["10.0.0.2"]
    assert bob.refused("networkUpdate", id=made, name="x") == [("FORBIDDEN", ["id"])]
    assert bob.refused("networkDelete", id=made) == [("FORBIDDEN", ["id"])]
    assert bob.refused("subnetCreate", networkId=made, cidr="10.1.0.0/24") == [("FORBIDDEN", ["networkId"])]
    assert alice.ok("{ ports { totalCount } }")["ports"]["totalCount"] == 0
    blocked = alice.ask("networkDelete", "__typename", id=made)["userErrors"]
    assert [each["code"] for each in blocked] == ["IN_USE"]
    assert world.admin.refused("networkUpdate", id=made, shared=False) == [("IN_USE", ["shared"])]
    bob.do("portDelete", "id", id=mine["id"])
    world.admin.do("networkUpdate", "network { shared }", id=made, shared=False)
    assert bob.ok(LIST)["networks"]["totalCount"] == 0


def test_a_network_with_ports_cannot_go(world: World) -> None:
    alice = world.member(world.tenant())
    made = cloud.network(alice, "10.0.0.0/24")
    held = cloud.port(alice, made)["id"]
    before = cloud.rows(world)
    assert cloud.blocked(alice, "networkDelete", made) == [held]
    assert cloud.rows(world) == before


# ------------------------------------------------------------------------------------------------ on hosts


def test_a_network_comes_with_its_first_port_and_leaves_with_its_last(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    empty = centre.snapshot_of_world()
    made = cloud.network(alice, "10.0.0.0/24", "fd00::/64", name="web")
    first, second = cloud.port(alice, made), cloud.port(alice, made)
    assert cloud.carry(world, first["id"], centre).status == "SUCCEEDED"
    assert cloud.carry(world, second["id"], centre).status == "SUCCEEDED"
    there = centre.snapshot_of_world()
    (on_host,) = there.networks.values()
    assert (on_host.id, on_host.name, on_host.mtu) == (str(world.uid(made)), "web", 1500)
    assert [(each["cidr"], each["gateway"], each["dhcp"]) for each in on_host.subnets] == [
        ("10.0.0.0/24", "10.0.0.1", True), ("fd00::/64", "fd00::1", False),
    ]  # fmt: skip
    assert {each.id: each.addresses for each in there.ports.values()} == {
        str(world.uid(first["id"])): ["10.0.0.2", "fd00::2"],
        str(world.uid(second["id"])): ["10.0.0.3", "fd00::3"],
    }
    cloud.carry(world, first["id"], centre, on=False)
    assert len(centre.snapshot_of_world().networks) == 1
    cloud.carry(world, second["id"], centre, on=False)
    assert centre.snapshot_of_world() == empty
    assert cloud.rows(world)["network_host"] == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("verb", ["networks.ensure", "networks.ensure_port"])
def test_a_port_that_cannot_be_made_leaves_no_trace(world: World, verb: str, after: bool) -> None:  # noqa: FBT001 - a parameter of the test
    alice = world.member(world.tenant())
    centre = world.host()
    made = cloud.port(alice, cloud.network(alice, "10.0.0.0/24"))
    empty = centre.snapshot_of_world()
    centre.fail(verb, HostAtFault, after=after)
    assert cloud.carry(world, made["id"], centre).status == "FAILED"
    assert centre.snapshot_of_world() == empty
    assert cloud.rows(world)["network_host"] == []
    assert cloud.host_of(world, made["id"]) is None
    centre.fail(verb, Transient, after=after)
    assert cloud.carry(world, made["id"], centre).status == "SUCCEEDED"


def test_a_later_failure_takes_port_and_network_back(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    made = cloud.port(alice, cloud.network(alice, "10.0.0.0/24"))
    empty = centre.snapshot_of_world()
    for verb in ("networks.remove_port", "networks.remove"):
        for after in (False, True):
            centre.fail(verb, Transient, after=after)
            assert cloud.carry(world, made["id"], centre, fail=True).status == "FAILED"
            assert centre.snapshot_of_world() == empty
    assert cloud.rows(world)["network_host"] == []


def _left_behind(world: World) -> tuple[str, Client, DataCentre]:
    """A network that is on a host though no port is: as after a crash."""
    alice = world.member(world.tenant())
    centre = world.host()
    made = cloud.network(alice, "10.0.0.0/24")
    held = cloud.port(alice, made)["id"]
    cloud.carry(world, held, centre)
    world.db.run(lambda session: ports.displace(session, [cloud.key(world, held)]))
    alice.do("portDelete", "id", id=held)
    return made, alice, centre


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [Transient, HostAtFault])
def test_deletion_goes_on_until_the_hosts_are_clean(world: World, error: type[DriverError], after: bool) -> None:  # noqa: FBT001 - a parameter of the test
    made, alice, centre = _left_behind(world)
    centre.fail("networks.remove", error, after=after, times=3)
    answer = alice.do("networkDelete", "id network { deleting } job { id status }", id=made)
    assert answer["network"] == {"deleting": True}
    assert answer["job"]["status"] == "QUEUED"
    assert [code for code, _ in alice.refused("portCreate", networkId=made)] == ["BUSY"]
    assert [code for code, _ in alice.refused("subnetCreate", networkId=made, cidr="10.9.0.0/24")] == ["BUSY"]
    assert [code for code, _ in alice.refused("networkDelete", id=made)] == ["BUSY"]
    tenant_quota = cloud.rows(world)["quota"]
    world.work()
    assert world.job(answer["job"]["id"]).status == "SUCCEEDED"
    assert centre.snapshot_of_world().networks == {}
    rows = cloud.rows(world)
    assert (rows["network"], rows["subnet"], rows["network_host"]) == ([], [], [])
    assert rows["quota"] != tenant_quota
    assert alice.ok("{ networks { totalCount } }")["networks"]["totalCount"] == 0


def test_a_deletion_that_a_host_refuses_is_stuck_with_the_reason_and_goes_on_when_asked(world: World) -> None:
    """It stays ``deleting``, for half of it may be gone; jobRetry goes on with it, and so does networkDelete."""
    made, alice, centre = _left_behind(world)
    centre.fail("networks.remove", Refused, times=None)
    job = alice.do("networkDelete", "job { id }", id=made)["job"]["id"]
    world.work()
    asked = "{ jobs(filter: {status: [STUCK]}) { nodes { id kind error { message } steps { status } } } }"
    (stuck,) = alice.ok(asked)["jobs"]["nodes"]
    assert (stuck["id"], stuck["kind"], stuck["steps"]) == (job, "network.delete", [{"status": "STUCK"}])
    assert stuck["error"]["message"]
    assert alice.ok("query($id: ID!) { network(id: $id) { deleting } }", id=made) == {"network": {"deleting": True}}
    refused = "userErrors { code ... on Busy { jobId } }"
    document = f"mutation($input: PortCreateInput!) {{ portCreate(input: $input) {{ {refused} }} }}"
    (busy,) = alice.ok(document, input={"networkId": made})["portCreate"]["userErrors"]
    assert busy == {"code": "BUSY", "jobId": job}
    assert alice.do("jobRetry", "job { id status }", id=job)["job"] == {"id": job, "status": "UNWINDING"}
    world.work()
    assert world.job(job).status == "STUCK"
    centre.heal()
    assert alice.do("networkDelete", "network { deleting } job { id }", id=made) == {
        "network": {"deleting": True}, "job": {"id": job}, "userErrors": [],
    }  # fmt: skip
    world.work()
    assert world.job(job).status == "SUCCEEDED"
    assert centre.snapshot_of_world().networks == {}
    assert alice.ok("query($id: ID!) { network(id: $id) { id } }", id=made) == {"network": None}


def test_the_quota_comes_back_exactly_once(world: World) -> None:
    made, alice, centre = _left_behind(world)
    other = cloud.network(alice, name="other")
    job = alice.do("networkDelete", "job { id }", id=made)["job"]["id"]
    centre.fail("networks.remove", Transient, after=True, times=2)
    world.work()
    row = world.job(job)
    world.runner.run(row.id)
    world.work()
    tenant_id = row.tenant_id
    with world.db.read() as session:
        assert tenant_id is not None
        assert quota.left(session, tenant_id)[Resource.NETWORKS].used == 1
    alice.do("networkDelete", "id", id=other)
    with world.db.read() as session:
        assert quota.left(session, tenant_id)[Resource.NETWORKS].used == 0


def test_a_new_mtu_reaches_the_hosts(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    made = cloud.network(alice, "10.0.0.0/24")
    assert alice.do("networkUpdate", "job { id }", id=made, mtu=1300)["job"] is None
    cloud.carry(world, cloud.port(alice, made)["id"], centre)
    centre.fail("networks.ensure", Transient, after=True)
    job = alice.do("networkUpdate", "job { id }", id=made, mtu=1400)["job"]["id"]
    assert alice.do("networkUpdate", "job { id }", id=made, mtu=1450)["job"]["id"] == job
    world.work()
    assert world.job(job).status == "SUCCEEDED"
    (there,) = centre.snapshot_of_world().networks.values()
    assert there.mtu == 1450
    assert len(centre.snapshot_of_world().ports) == 1


def test_pages_of_networks_cost_a_constant_number_of_statements(world: World) -> None:
    alice = world.member(world.tenant())
    document = """query($n: Int) { networks(first: $n) { nodes { name tenant { name }
      subnets { cidr utilisation availableAddresses usedAddresses network { name } } } } }"""
    for index in range(8):
        cloud.network(alice, f"10.0.{index}.0/24", f"10.1.{index}.0/24", name=f"n{index}")
    numbers = []
    for size in (2, 8):
        with cloud.counted() as sent:
            nodes = alice.ok(document, n=size)["networks"]["nodes"]
        assert len(nodes) == size
        numbers.append(len(sent))
    # networks, tenants, subnets, held, free, networks of subnets
    assert numbers == [6, 6]
