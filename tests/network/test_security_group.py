from __future__ import annotations

from typing import Any

import pytest

from drivers.api import Transient
from drivers.sim import DataCentre
from gateway.identity.quota import Resource
from gateway.kernel.access import Role
from gateway.kernel.noun import public
from gateway.network import membership
from gateway.network import security_group as groups
from tests.network import cloud
from tests.world import Client, World

RULE = "direction etherType protocol portMin portMax remoteCidr remoteGroup { name } description"
FIELDS = f"securityGroup {{ id name description isDefault version tenant {{ name }} rules {{ {RULE} }} }}"
LIST = """query($f: SecurityGroupFilter) {
  securityGroups(filter: $f, orderBy: {field: NAME}) { nodes { name } totalCount } }"""


def rule(direction: str, family: str, **given: Any) -> dict[str, Any]:
    return {"direction": direction, "etherType": family, "protocol": "ANY", "portMin": None, "portMax": None,
            "remoteCidr": None, "remoteGroup": None, "description": "", **given}  # fmt: skip


def allowed(centre: DataCentre, world: World, port_id: str, direction: str = "INGRESS") -> set[str]:
    """The rules of a port as its host has them, short."""
    found = centre.snapshot_of_world().ports[str(world.uid(port_id))].rules
    assert found is not None
    return {
        f"{each['protocol'] or 'any'}:{each['port_min'] or ''}:{each['remote'] or 'all'}"
        for each in found if each["direction"] == direction and each["ethertype"] == 4
    }  # fmt: skip


def default(client: Client) -> str:
    found: str = client.ok(
        '{ securityGroups(filter: {name: "default"}) { nodes { id } } }'
    )["securityGroups"]["nodes"][0]["id"]  # fmt: skip
    return found


def test_every_tenant_has_a_default_group_from_the_start(world: World) -> None:
    tenant = world.tenant("blue")
    alice = world.member(tenant)
    (found,) = alice.ok(f"{{ securityGroups {{ nodes {{ name isDefault rules {{ {RULE} }} }} }} }}")["securityGroups"][
        "nodes"
    ]
    own = {"name": "default"}
    assert found == {"name": "default", "isDefault": True, "rules": [
        rule("EGRESS", "IPV4"), rule("EGRESS", "IPV6"),
        rule("INGRESS", "IPV4", remoteGroup=own), rule("INGRESS", "IPV6", remoteGroup=own),
    ]}  # fmt: skip
    assert cloud.used(world, tenant, Resource.SECURITY_GROUPS) == 1
    assert cloud.blocked(alice, "securityGroupDelete", default(alice)) == [public(tenant)]
    assert alice.refused("securityGroupCreate", name="default") == [("CONFLICT", ["name"])]
    world.admin.do("tenantDelete", "__typename", id=public(tenant))
    assert cloud.rows(world)["security_group"] == []


def test_a_tenant_with_groups_of_its_own_cannot_go(world: World) -> None:
    tenant = world.tenant()
    alice = world.member(tenant)
    web = cloud.group(alice)
    assert [code for code, _ in world.admin.refused("tenantDelete", id=public(tenant))] == ["IN_USE"]
    alice.do("securityGroupDelete", "id", id=web)
    world.admin.do("tenantDelete", "__typename", id=public(tenant))


def test_rules_are_added_and_removed(world: World) -> None:
    tenant = world.tenant("blue")
    alice = world.member(tenant)
    made = alice.do("securityGroupCreate", FIELDS, name="web", description="d")["securityGroup"]
    assert made == {
        "id": made["id"], "name": "web", "description": "d", "isDefault": False, "version": 1,
        "tenant": {"name": "blue"}, "rules": [rule("EGRESS", "IPV4"), rule("EGRESS", "IPV6")],
    }  # fmt: skip
    given = {"securityGroupId": made["id"], "direction": "INGRESS", "protocol": "TCP"}
    answer = alice.do(
        "securityGroupRuleAdd", f"rule {{ id {RULE} }} securityGroup {{ rules {{ id }} }} job {{ id }}",
        **given, portMin=80, remoteCidr="10.0.0.0/8", description="http",
    )  # fmt: skip
    expected = rule(
        "INGRESS", "IPV4", protocol="TCP", portMin=80, portMax=80, remoteCidr="10.0.0.0/8", description="http"
    )
    assert answer["rule"] == {"id": answer["rule"]["id"], **expected}
    assert (len(answer["securityGroup"]["rules"]), answer["job"]) == (3, None)
    before = cloud.rows(world)
    again = alice.refused("securityGroupRuleAdd", **given, portMin=80, portMax=80, remoteCidr="10.0.0.0/8")
    assert again == [("CONFLICT", ["securityGroupId"])]
    assert cloud.rows(world) == before
    alice.do("securityGroupRuleAdd", "rule { id }", **given, portMin=80, portMax=81, remoteCidr="10.0.0.0/8")
    gone = alice.do("securityGroupRuleRemove", "id securityGroup { rules { id } }", id=answer["rule"]["id"])
    assert gone["id"] == answer["rule"]["id"]
    assert len(gone["securityGroup"]["rules"]) == 3
    assert alice.refused("securityGroupRuleRemove", id=gone["id"]) == [("NOT_FOUND", ["id"])]
    assert cloud.used(world, tenant, Resource.SECURITY_GROUPS) == 2
    alice.do("securityGroupDelete", "id", id=made["id"], expectedVersion=1)
    assert cloud.used(world, tenant, Resource.SECURITY_GROUPS) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"portMin": 80},
        {"protocol": "TCP", "portMin": 0},
        {"protocol": "TCP", "portMin": 81, "portMax": 80},
        {"protocol": "TCP", "portMax": 80},
        {"protocol": "TCP", "portMin": 1, "portMax": 65536},
        {"protocol": "ICMP", "portMin": 256},
        {"protocol": "ICMP", "portMin": 8, "portMax": 256},
        {"remoteCidr": "10.0.0.1/8"},
        {"remoteCidr": "fd00::/8"},
        {"etherType": "IPV6", "remoteCidr": "10.0.0.0/8"},
        {"remoteCidr": "10.0.0.0/8", "remoteGroupId": "x"},
    ],
)
def test_senseless_rules_are_refused_and_change_nothing(world: World, given: dict[str, Any]) -> None:
    alice = world.member(world.tenant())
    web = cloud.group(alice)
    before = cloud.rows(world)
    assert [code for code, _ in alice.refused(
        "securityGroupRuleAdd", securityGroupId=web, direction="INGRESS", **given
    )] == ["INVALID"]  # fmt: skip
    assert cloud.rows(world) == before


def test_the_number_of_rules_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "MOST_RULES", 3)
    alice = world.member(world.tenant())
    web = cloud.group(alice)
    given = {"securityGroupId": web, "direction": "INGRESS", "protocol": "TCP"}
    alice.do("securityGroupRuleAdd", "rule { id }", **given, portMin=1)
    assert alice.refused("securityGroupRuleAdd", **given, portMin=2) == [("QUOTA_EXCEEDED", ["securityGroupId"])]


def test_another_tenant_sees_nothing_and_changes_nothing(world: World) -> None:
    tenant = world.tenant()
    alice, reader, mallory = world.member(tenant), world.member(tenant, Role.READER), world.member(world.tenant())
    web, theirs = cloud.group(alice), cloud.group(mallory, "theirs")
    given = {"direction": "INGRESS", "protocol": "TCP", "portMin": 22}
    made = alice.do("securityGroupRuleAdd", "rule { id }", securityGroupId=web, **given)["rule"]["id"]
    before = cloud.rows(world)
    assert mallory.ok(LIST)["securityGroups"]["nodes"] == [{"name": "default"}, {"name": "theirs"}]
    assert mallory.ok("query($id: ID!) { securityGroup(id: $id) { name } }", id=web) == {"securityGroup": None}
    assert mallory.refused("securityGroupDelete", id=web) == [("NOT_FOUND", ["id"])]
    assert mallory.refused("securityGroupRuleAdd", securityGroupId=web, **given) == [("NOT_FOUND", ["securityGroupId"])]
    assert mallory.refused("securityGroupRuleAdd", securityGroupId=theirs, remoteGroupId=web, direction="INGRESS") == [
        ("NOT_FOUND", ["remoteGroupId"])
    ]
    assert mallory.refused("securityGroupRuleRemove", id=made) == [("NOT_FOUND", ["id"])]
    for mutation, asked in (
        ("securityGroupCreate", {"name": "x"}), ("securityGroupDelete", {"id": web}),
        ("securityGroupRuleAdd", {"securityGroupId": web, **given}), ("securityGroupRuleRemove", {"id": made}),
    ):  # fmt: skip
        assert [code for code, _ in reader.refused(mutation, **asked)] == ["FORBIDDEN"]
    assert reader.ok(LIST, f={"nameContains": "WE"})["securityGroups"]["nodes"] == [{"name": "web"}]
    assert world.nobody.run(LIST).codes == ["UNAUTHENTICATED"]
    assert cloud.rows(world) == before


def test_a_group_in_use_cannot_go(world: World) -> None:
    alice = world.member(world.tenant())
    web, db = cloud.group(alice), cloud.group(alice, "db")
    held = cloud.port(alice, cloud.network(alice, "10.0.0.0/24"), securityGroupIds=[web])["id"]
    naming = alice.do(
        "securityGroupRuleAdd", "rule { id }", securityGroupId=db, direction="INGRESS", remoteGroupId=web
    )["rule"]["id"]
    assert cloud.blocked(alice, "securityGroupDelete", web) == [held, naming]
    alice.do("portDelete", "id", id=held)
    assert cloud.blocked(alice, "securityGroupDelete", web) == [naming]
    alice.do("securityGroupRuleRemove", "id", id=naming)
    alice.do("securityGroupDelete", "id", id=web)


# ------------------------------------------------------------------------------------------------ on hosts


def test_a_change_of_rules_reaches_the_ports(world: World) -> None:
    alice = world.member(world.tenant())
    near, far = world.host(), world.host()
    net = cloud.network(alice, "10.0.0.0/24")
    web = cloud.group(alice)
    one, two = (cloud.port(alice, net, securityGroupIds=[web])["id"] for _ in range(2))
    cloud.carry(world, one, near)
    cloud.carry(world, two, far)
    assert allowed(near, world, one) == set()
    assert allowed(near, world, one, "EGRESS") == {"any::all"}
    near.fail("networks.ensure_port", Transient, after=True)
    given = {"securityGroupId": web, "direction": "INGRESS", "protocol": "TCP", "portMin": 80}
    added = alice.do("securityGroupRuleAdd", "rule { id } job { id kind }", **given)
    assert added["job"]["kind"] == "security_group.apply"
    world.work()
    assert world.job(added["job"]["id"]).status == "SUCCEEDED"
    assert allowed(near, world, one) == allowed(far, world, two) == {"tcp:80:all"}
    gone = alice.do("securityGroupRuleRemove", "job { id }", id=added["rule"]["id"])
    world.work()
    assert world.job(gone["job"]["id"]).status == "SUCCEEDED"
    assert allowed(near, world, one) == allowed(far, world, two) == set()


def test_members_come_and_go_in_the_rules_of_those_who_name_them(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    net, elsewhere = cloud.network(alice, "10.0.0.0/24"), cloud.network(alice, "10.7.0.0/24")
    web, db = cloud.group(alice), cloud.group(alice, "db")
    alice.do(
        "securityGroupRuleAdd", "rule { id }", securityGroupId=db, direction="INGRESS", protocol="TCP", portMin=5432,
        remoteGroupId=web,
    )  # fmt: skip
    store = cloud.port(alice, net, securityGroupIds=[db])["id"]
    cloud.carry(world, store, centre)
    assert allowed(centre, world, store) == set()
    clients = [cloud.port(alice, net, securityGroupIds=[web])["id"] for _ in range(3)]
    cloud.port(alice, elsewhere, securityGroupIds=[web])
    world.work()
    # .2 is the store's own; .3 to .5 are as few ranges as can be
    assert allowed(centre, world, store) == {"tcp:5432:10.0.0.3/32", "tcp:5432:10.0.0.4/31"}
    alice.do("portDelete", "id", id=clients[1])
    world.work()
    assert allowed(centre, world, store) == {"tcp:5432:10.0.0.3/32", "tcp:5432:10.0.0.5/32"}


def test_a_group_of_everybody_stands_for_the_pools(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "COVER_FROM", 2)
    tenant = world.tenant()
    alice = world.member(tenant)
    centre = world.host()
    net = cloud.network(alice, "10.0.0.0/29")
    first = cloud.port(alice, net)["id"]
    cloud.carry(world, first, centre)
    assert allowed(centre, world, first) == {"any::10.0.0.2/32"}
    cloud.port(alice, net)
    world.work()
    assert allowed(centre, world, first) == {"any::10.0.0.2/31"}
    third = cloud.port(alice, net)["id"]
    world.work()
    everybody = {"any::10.0.0.2/31", "any::10.0.0.4/31", "any::10.0.0.6/32"}
    assert allowed(centre, world, first) == everybody
    # now a member more or less changes nobody's rules, and asks no host
    before = alice.ok("{ jobs { totalCount } }")["jobs"]["totalCount"]
    fourth = cloud.port(alice, net)["id"]
    alice.do("portDelete", "id", id=fourth)
    assert alice.ok("{ jobs { totalCount } }")["jobs"]["totalCount"] == before
    # somebody else on the network does
    other = cloud.port(alice, net, securityGroupIds=[cloud.group(alice)])
    world.work()
    assert other["ipAddresses"] == ["10.0.0.5"]
    assert allowed(centre, world, first) == {"any::10.0.0.2/31", "any::10.0.0.4/32"}
    alice.do("portDelete", "id", id=other["id"])
    world.work()
    assert allowed(centre, world, first) == everybody
    alice.do("portDelete", "id", id=third)
    world.work()
    assert allowed(centre, world, first) == {"any::10.0.0.2/31"}


def test_changes_that_come_together_are_applied_once(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    web = cloud.group(alice)
    held = cloud.port(alice, cloud.network(alice, "10.0.0.0/24"), securityGroupIds=[web])["id"]
    cloud.carry(world, held, centre)
    given = {"securityGroupId": web, "direction": "INGRESS", "protocol": "UDP"}
    jobs = {
        alice.do("securityGroupRuleAdd", "job { id }", **given, portMin=number)["job"]["id"] for number in (1, 2, 3)
    }
    assert len(jobs) == 1
    world.work()
    assert allowed(centre, world, held) == {"udp:1:all", "udp:2:all", "udp:3:all"}


def test_icmp_types_and_all_families_reach_the_host(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    web = cloud.group(alice)
    for family, kind, code in (("IPV4", 8, None), ("IPV6", 128, 0)):
        alice.do(
            "securityGroupRuleAdd", "rule { id }", securityGroupId=web, direction="INGRESS", etherType=family,
            protocol="ICMP", portMin=kind, portMax=code,
        )  # fmt: skip
    held = cloud.port(alice, cloud.network(alice, "10.0.0.0/24"), securityGroupIds=[web])["id"]
    cloud.carry(world, held, centre)
    found = centre.snapshot_of_world().ports[str(world.uid(held))].rules or []
    told = [(each["ethertype"], each["protocol"], each["port_min"], each["port_max"]) for each in found[2:]]
    assert told == [(4, "icmp", 8, None), (6, "icmp", 128, 0)]


def test_a_host_that_is_away_gets_the_rules_when_it_is_back(world: World) -> None:
    alice = world.member(world.tenant())
    near, far = world.host(), world.host()
    web = cloud.group(alice)
    net = cloud.network(alice, "10.0.0.0/24")
    one, two = (cloud.port(alice, net, securityGroupIds=[web])["id"] for _ in range(2))
    cloud.carry(world, one, near)
    cloud.carry(world, two, far)
    far.down(Transient)
    world.reconcile("hosts")
    job = alice.do(
        "securityGroupRuleAdd", "job { id }", securityGroupId=web, direction="INGRESS", protocol="TCP", portMin=80
    )["job"]["id"]
    world.work()
    row = world.job(job)
    assert (row.status, row.told[0].attempt) == ("SUCCEEDED", 1)
    assert (allowed(near, world, one), allowed(far, world, two)) == ({"tcp:80:all"}, set())
    far.up()
    world.clock.advance(seconds=61)
    world.reconcile("hosts", "networks")
    assert allowed(far, world, two) == {"tcp:80:all"}
