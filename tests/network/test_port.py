from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlmodel import Session, select

from gateway.compute.server import Server
from gateway.identity.quota import Resource
from gateway.kernel.access import CLOUD, Role
from gateway.kernel.errors import InUse, Invalid
from gateway.kernel.noun import public
from gateway.metering.usage import Interval
from gateway.network import port as ports
from gateway.network.port import Port, Wanted
from tests.network import cloud
from tests.world import World

FIELDS = """port { id name macAddress ipAddresses fixedIps { ipAddress subnet { cidr } } portSecurity version
  network { name } tenant { name } server { id } securityGroups { name } }"""
LIST = "query($f: PortFilter) { ports(filter: $f, orderBy: {field: NAME}) { nodes { name } totalCount } }"


def test_a_port_has_a_mac_an_address_of_each_family_and_the_default_group(world: World) -> None:
    tenant = world.tenant("blue")
    alice = world.member(tenant)
    net = cloud.network(alice, "10.0.0.0/24", "10.1.0.0/24", "fd00::/64", name="web")
    made = alice.do("portCreate", FIELDS, networkId=net, name="p")["port"]
    assert re.fullmatch(r"02(:[0-9a-f]{2}){5}", made["macAddress"])
    assert made == {
        "id": made["id"], "name": "p", "macAddress": made["macAddress"], "ipAddresses": ["10.0.0.2", "fd00::2"],
        "fixedIps": [{"ipAddress": "10.0.0.2", "subnet": {"cidr": "10.0.0.0/24"}},
                     {"ipAddress": "fd00::2", "subnet": {"cidr": "fd00::/64"}}],
        "portSecurity": True, "version": 1, "network": {"name": "web"}, "tenant": {"name": "blue"}, "server": None,
        "securityGroups": [{"name": "default"}],
    }  # fmt: skip
    assert cloud.used(world, tenant, Resource.PORTS) == 1
    with world.db.read() as session:
        (interval,) = session.exec(select(Interval)).all()
        assert cloud.events(session, made["id"]) == ["port.created"]
    assert (interval.resource.value, interval.amount, interval.ended_at) == ("ADDRESS", 2, None)
    alice.do("portDelete", "id", id=made["id"], expectedVersion=1)
    with world.db.read() as session:
        assert session.exec(select(Interval.ended_at)).one() is not None
    assert cloud.used(world, tenant, Resource.PORTS) == 0
    rows = cloud.rows(world)
    assert (rows["port"], rows["port_address"], rows["port_security_group"]) == ([], [], [])
    assert alice.refused("portDelete", id=made["id"]) == [("NOT_FOUND", ["id"])]


def test_a_mac_that_another_port_asked_for_already_is_not_given_again(world: World) -> None:
    alice = world.member(world.tenant())
    net = cloud.network(alice, "10.0.0.0/24")
    drawn = uuid4()
    taken = ":".join(["02", *(f"{octet:02x}" for octet in hashlib.sha256(drawn.bytes).digest()[:5])])
    cloud.port(alice, net, macAddress=taken)
    source, next_ones = world.db.info["uids"], [drawn]
    world.db.provide("uids", lambda: next_ones.pop() if next_ones else source())
    made = cloud.port(alice, net)
    assert next_ones == []
    assert re.fullmatch(r"02(:[0-9a-f]{2}){5}", made["macAddress"])
    assert made["macAddress"] != taken
    assert made["ipAddresses"] == ["10.0.0.3"]


def test_addresses_and_macs_may_be_asked_for(world: World) -> None:
    alice = world.member(world.tenant())
    net = cloud.network(alice)
    pools = [{"first": "10.0.0.100", "last": "10.0.0.110"}]
    cloud.subnet(alice, net, "10.0.0.0/24", allocationPools=pools)
    cloud.subnet(alice, net, "fd00::/64")
    both = cloud.port(alice, net, fixedIps=["FD00:0::aa", "10.0.0.104"], macAddress="0A-00-00-00-00-01")
    assert (both["ipAddresses"], both["macAddress"]) == (["fd00::aa", "10.0.0.104"], "0a:00:00:00:00:01")
    assert cloud.port(alice, net, fixedIps=[])["ipAddresses"] == []
    outside = cloud.port(alice, net, fixedIps=["10.0.0.50"])
    assert outside["ipAddresses"] == ["10.0.0.50"]
    alice.do("portDelete", "id", id=outside["id"])
    again = cloud.port(alice, net, fixedIps=["10.0.0.50"])
    taken = [cloud.port(alice, net)["ipAddresses"][0] for _ in range(10)]
    assert taken == [f"10.0.0.{n}" for n in range(100, 111) if n != 104]
    assert alice.refused("portCreate", networkId=net) == [("NO_ADDRESS_LEFT", ["networkId"])]
    # an address outside the pools never becomes one that is given out by itself
    alice.do("portDelete", "id", id=again["id"])
    assert alice.refused("portCreate", networkId=net) == [("NO_ADDRESS_LEFT", ["networkId"])]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"fixedIps": ["10.0.0.2"]}, ("CONFLICT", ["fixedIps", "0"])),
        ({"fixedIps": ["10.0.0.9", "10.0.0.9"]}, ("CONFLICT", ["fixedIps", "1"])),
        ({"fixedIps": ["10.0.0.1"]}, ("INVALID", ["fixedIps", "0"])),
        ({"fixedIps": ["10.0.0.0"]}, ("INVALID", ["fixedIps", "0"])),
        ({"fixedIps": ["10.0.0.255"]}, ("INVALID", ["fixedIps", "0"])),
        ({"fixedIps": ["10.0.7.1"]}, ("INVALID", ["fixedIps", "0"])),
        ({"fixedIps": ["fd00::1"]}, ("INVALID", ["fixedIps", "0"])),
        ({"fixedIps": ["x"]}, ("INVALID", ["fixedIps", "0"])),
        ({"fixedIps": [f"10.0.0.{n}" for n in range(10, 19)]}, ("INVALID", ["fixedIps"])),
        ({"macAddress": "01:00:00:00:00:01"}, ("INVALID", ["macAddress"])),
        ({"macAddress": "fe:00:00:00:00:01"}, ("INVALID", ["macAddress"])),
        ({"macAddress": "02:00:00:00:01"}, ("INVALID", ["macAddress"])),
        ({"macAddress": "02:00:00:00:00:aa"}, ("CONFLICT", ["macAddress"])),
        ({"portSecurity": False}, ("FORBIDDEN", ["portSecurity"])),
        ({"securityGroupIds": ["x"]}, ("NOT_FOUND", ["securityGroupIds", "0"])),
        ({"networkId": "network_00000000000000000000000000"}, ("NOT_FOUND", ["networkId"])),
        ({"tenantId": "tenant_00000000000000000000000000"}, ("NOT_FOUND", ["tenantId"])),
    ],
)
def test_wrong_ports_are_refused_by_place_and_change_nothing(
    world: World, given: dict[str, Any], expected: tuple[str, list[str]]
) -> None:
    alice = world.member(world.tenant())
    net = cloud.network(alice, "10.0.0.0/24")
    cloud.port(alice, net, macAddress="02:00:00:00:00:AA")
    before = cloud.rows(world)
    assert alice.refused("portCreate", **{"networkId": net, **given}) == [expected]
    assert cloud.rows(world) == before


def test_only_managers_switch_port_security_off(world: World) -> None:
    tenant = world.tenant()
    manager = world.member(tenant, Role.MANAGER)
    net = cloud.network(manager, "10.0.0.0/24")
    groups = [cloud.group(manager)]
    assert manager.refused("portCreate", networkId=net, portSecurity=False, securityGroupIds=groups) == [
        ("INVALID", ["securityGroupIds"])
    ]
    centre = world.host()
    made = manager.do("portCreate", FIELDS, networkId=net, portSecurity=False)["port"]
    assert (made["portSecurity"], made["securityGroups"]) == (False, [])
    cloud.carry(world, made["id"], centre)
    (there,) = centre.snapshot_of_world().ports.values()
    assert there.rules is None


def test_another_tenant_sees_nothing_and_changes_nothing(world: World) -> None:
    tenant = world.tenant()
    alice, reader, mallory = world.member(tenant), world.member(tenant, Role.READER), world.member(world.tenant())
    net = cloud.network(alice, "10.0.0.0/24")
    made = cloud.port(alice, net)
    theirs = cloud.network(mallory, "10.0.0.0/24")
    before = cloud.rows(world)
    assert mallory.ok(LIST)["ports"] == {"nodes": [], "totalCount": 0}
    assert mallory.ok(LIST, f={"ipAddress": "10.0.0.2"})["ports"]["totalCount"] == 0
    assert mallory.ok("query($id: ID!) { port(id: $id) { name } }", id=made["id"]) == {"port": None}
    assert mallory.refused("portDelete", id=made["id"]) == [("NOT_FOUND", ["id"])]
    group = alice.ok("{ securityGroups { nodes { id } } }")["securityGroups"]["nodes"][0]["id"]
    assert mallory.refused("portCreate", networkId=theirs, securityGroupIds=[group]) == [
        ("NOT_FOUND", ["securityGroupIds", "0"])
    ]
    assert mallory.refused("portCreate", networkId=theirs, tenantId=public(tenant)) == [("NOT_FOUND", ["tenantId"])]
    assert [code for code, _ in reader.refused("portDelete", id=made["id"])] == ["FORBIDDEN"]
    assert [code for code, _ in reader.refused("portCreate", networkId=net)] == ["FORBIDDEN"]
    assert reader.ok(LIST)["ports"]["totalCount"] == 1
    assert world.nobody.run(LIST).codes == ["UNAUTHENTICATED"]
    assert cloud.rows(world) == before
    # the same address in both tenants is two ports
    cloud.port(mallory, theirs)
    assert world.admin.ok(LIST, f={"ipAddress": "10.0.0.2"})["ports"]["totalCount"] == 2


def test_a_member_of_two_tenants_does_not_mix_them(world: World) -> None:
    blue, red = world.tenant(), world.tenant()
    alice = world.member(blue)
    net = cloud.network(alice, "10.0.0.0/24")
    both = replace(alice, subject=replace(alice.subject, roles={blue.id: Role.MEMBER, red.id: Role.MEMBER}))
    blues = both.ok("query($t: ID!) { securityGroups(filter: {tenantId: $t}) { nodes { id } } }", t=public(blue))
    group = blues["securityGroups"]["nodes"][0]["id"]
    before = cloud.rows(world)
    assert both.refused("portCreate", networkId=net) == [("INVALID", ["tenantId"])]
    assert both.refused("portCreate", networkId=net, tenantId=public(red)) == [("INVALID", ["networkId"])]
    reds = cloud.network(both, "10.0.0.0/24", tenantId=public(red))
    assert both.refused("portCreate", networkId=reds, tenantId=public(red), securityGroupIds=[group]) == [
        ("INVALID", ["securityGroupIds", "0"])
    ]
    assert cloud.rows(world)["port"] == before["port"]


def test_ports_are_found_by_what_people_know(world: World) -> None:
    alice = world.member(world.tenant())
    net, other = cloud.network(alice, "10.0.0.0/24", "fd00::/64"), cloud.network(alice, "10.0.1.0/24")
    web = cloud.group(alice)
    first = cloud.port(alice, net, name="a")
    cloud.port(alice, other, name="b", securityGroupIds=[web, web])

    def named(**wanted: object) -> list[str]:
        return [each["name"] for each in alice.ok(LIST, f=wanted)["ports"]["nodes"]]

    assert named(ipAddress="10.0.0.2") == ["a"]
    assert named(ipAddress="fd00:0:0::2") == ["a"]
    assert named(ipAddress="10.0.0.3") == []
    assert named(macAddress=first["macAddress"].upper()) == ["a"]
    assert named(networkId=other) == ["b"]
    assert named(securityGroupId=web) == ["b"]
    assert named(name="b") == ["b"]
    assert named(tenantId="tenant_00000000000000000000000000") == []
    assert named(serverId="server_00000000000000000000000000") == []
    assert alice.run(LIST, f={"networkId": web}).codes == ["NOT_FOUND"]
    on_net = alice.ok("query($id: ID!) { network(id: $id) { ports { nodes { name } totalCount } } }", id=net)
    assert on_net["network"]["ports"] == {"nodes": [{"name": "a"}], "totalCount": 1}


# ------------------------------------------------------------------------------------------------ for servers


def a_server(session: Session, tenant_id: int, name: str = "s") -> Server:
    from gateway.compute.flavor import Flavor

    flavor = Flavor(name=f"f-{name}", vcpus=1, ram_mib=16, disk_gib=1)
    session.add(flavor)
    session.flush()
    server = Server(
        tenant_id=tenant_id, creator_id=None, name=name, flavor_id=flavor.id, vcpus=1, ram_mib=16, disk_gib=1
    )
    session.add(server)
    session.flush()
    return server


def test_a_servers_ports_are_bound_kept_in_order_and_held(world: World) -> None:
    tenant = world.tenant()
    alice = world.member(tenant)
    net = cloud.network(alice, "10.0.0.0/24")
    early = cloud.port(alice, net)["id"]

    def work(session: Session) -> tuple[int, str, list[int]]:
        server = a_server(session, tenant.id)
        opened = ports.open(session, CLOUD, tenant.id, Wanted(network_id=net, fixed_ip="10.0.0.77"))
        ports.bind(session, opened, server.id)
        ports.bind(session, ports.reach(session, alice.subject, early), server.id)
        return server.id, public(server), [each.id for each in ports.of_server(session, server.id)]

    server_id, server, order = world.db.run(work)
    with world.db.read() as session:
        assert ports.addresses(session, order) == {order[0]: ["10.0.0.77"], order[1]: ["10.0.0.2"]}
    assert order[1] == cloud.key(world, early)
    seen = alice.ok(
        "query($f: PortFilter) { ports(filter: $f) { nodes { ipAddresses server { id } } } }", f={"serverId": server}
    )
    assert {each["server"]["id"] for each in seen["ports"]["nodes"]} == {server}
    assert cloud.blocked(alice, "portDelete", early) == [server]

    def again(session: Session) -> None:
        port = session.get_one(Port, order[1])
        ports.bind(session, port, server_id)
        with pytest.raises(InUse) as caught:
            ports.bind(session, port, a_server(session, tenant.id, "other").id)
        assert (caught.value.path, caught.value.data) == (("portId",), {"blockers": [server]})
        ports.unbind(session, port)

    world.db.run(again)
    alice.do("portDelete", "id", id=early)


def test_a_port_is_not_bound_to_another_tenants_server(world: World) -> None:
    tenant, other = world.tenant(), world.tenant()
    alice = world.member(tenant)
    made = cloud.port(alice, cloud.network(alice, "10.0.0.0/24"))["id"]

    def work(session: Session) -> None:
        port = ports.reach(session, alice.subject, made)
        with pytest.raises(Invalid) as caught:
            ports.bind(session, port, a_server(session, other.id).id)
        assert caught.value.path == ("portId",)

    world.db.run(work)


def test_pages_of_ports_cost_a_constant_number_of_statements(world: World) -> None:
    alice = world.member(world.tenant())
    document = """query($n: Int) { ports(first: $n) { nodes { macAddress ipAddresses network { name } tenant { name }
      server { name } fixedIps { subnet { cidr } }
      securityGroups { name rules { protocol remoteGroup { name } } } } } }"""
    for index in range(4):
        net = cloud.network(alice, f"10.0.{index}.0/24", name=f"n{index}")
        web = cloud.group(alice, f"g{index}")
        for _ in range(3):
            cloud.port(alice, net, securityGroupIds=[web])
    numbers = []
    for size in (2, 12):
        with cloud.counted() as sent:
            nodes = alice.ok(document, n=size)["ports"]["nodes"]
        assert len(nodes) == size
        numbers.append(len(sent))
    # ports, addresses, networks, tenants, subnets, groups, rules
    assert numbers == [7, 7]
