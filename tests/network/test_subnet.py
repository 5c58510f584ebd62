from __future__ import annotations

from typing import Any

import pytest

from drivers.api import Transient
from gateway.kernel.access import Role
from tests.network import cloud
from tests.world import World

FIELDS = """subnet { id name cidr ipVersion gateway dhcp dnsServers availableAddresses usedAddresses utilisation version
  allocationPools { first last } network { name } tenant { name } }"""
LIST = "query($f: SubnetFilter) { subnets(filter: $f, orderBy: {field: CIDR}) { nodes { cidr } totalCount } }"


def pools(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"first": first, "last": last} for first, last in pairs]


def test_a_subnet_has_sensible_defaults(world: World) -> None:
    alice = world.member(world.tenant("blue"))
    net = cloud.network(alice, name="web")
    made = alice.do("subnetCreate", FIELDS, networkId=net, cidr="10.0.0.0/24")["subnet"]
    assert made == {
        "id": made["id"], "name": "", "cidr": "10.0.0.0/24", "ipVersion": 4, "gateway": "10.0.0.1", "dhcp": True,
        "dnsServers": [], "availableAddresses": 253, "usedAddresses": 0, "utilisation": 0.0, "version": 1,
        "allocationPools": pools(("10.0.0.2", "10.0.0.254")), "network": {"name": "web"}, "tenant": {"name": "blue"},
    }  # fmt: skip
    six = alice.do("subnetCreate", FIELDS, networkId=net, cidr="FD00:0::/64", name="six")["subnet"]
    assert (six["cidr"], six["ipVersion"], six["gateway"], six["dhcp"]) == ("fd00::/64", 6, "fd00::1", False)
    assert six["allocationPools"] == pools(("fd00::2", "fd00::ffff:ffff:ffff:ffff"))
    assert six["availableAddresses"] == 2**63 - 1
    held = cloud.port(alice, net)
    assert held["ipAddresses"] == ["10.0.0.2", "fd00::2"]
    seen = alice.ok(
        "query($id: ID!) { subnet(id: $id) { availableAddresses usedAddresses utilisation } }", id=made["id"]
    )
    assert seen["subnet"] == {"availableAddresses": 252, "usedAddresses": 1, "utilisation": round(1 / 253, 6)}


@pytest.mark.parametrize(
    ("given", "gateway", "expected"),
    [
        ({"cidr": "10.0.0.0/29", "gateway": None}, None, [("10.0.0.1", "10.0.0.5")]),
        ({"cidr": "10.0.0.0/29", "gateway": None, "dhcp": False}, None, [("10.0.0.1", "10.0.0.6")]),
        ({"cidr": "10.0.0.0/29", "gateway": "10.0.0.3"}, "10.0.0.3",
         [("10.0.0.1", "10.0.0.2"), ("10.0.0.4", "10.0.0.6")]),
        ({"cidr": "10.0.0.0/29", "gateway": "10.0.0.6"}, "10.0.0.6", [("10.0.0.1", "10.0.0.5")]),
        ({"cidr": "fd00::/126"}, "fd00::1", [("fd00::2", "fd00::3")]),
        ({"cidr": "10.0.0.0/24", "allocationPools": pools(("10.0.0.20", "10.0.0.29"), ("10.0.0.0", "10.0.0.4"))},
         "10.0.0.1", [("10.0.0.2", "10.0.0.4"), ("10.0.0.20", "10.0.0.29")]),
    ],
)  # fmt: skip
def test_gateway_and_pools(
    world: World, given: dict[str, Any], gateway: str | None, expected: list[tuple[str, str]]
) -> None:
    alice = world.member(world.tenant())
    made = alice.do("subnetCreate", FIELDS, networkId=cloud.network(alice), **given)["subnet"]
    assert made["gateway"] == gateway
    assert made["allocationPools"] == pools(*expected)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"cidr": "10.0.0.1/24"}, ["cidr"]),
        ({"cidr": "10.0.0.0"}, []),
        ({"cidr": "nonsense"}, ["cidr"]),
        ({"cidr": "10.0.0.0/30"}, []),
        ({"cidr": "0.0.0.0/0"}, []),
        ({"cidr": "fd00::/48"}, []),
        ({"cidr": "fd00::/127"}, []),
        ({"cidr": "fd00::%eth0/64"}, ["cidr"]),
        ({"cidr": "fe80::/64"}, []),
        ({"cidr": "127.0.0.0/16"}, []),
        ({"cidr": "239.1.0.0/16"}, []),
        ({"cidr": "10.0.0.0/24", "gateway": "10.0.1.1"}, ["gateway"]),
        ({"cidr": "10.0.0.0/24", "gateway": "fd00::1"}, ["gateway"]),
        ({"cidr": "10.0.0.0/24", "gateway": "10.0.0.255"}, ["gateway"]),
        ({"cidr": "10.0.0.0/24", "gateway": "10.0.0"}, ["gateway"]),
        ({"cidr": "10.0.0.0/24", "dnsServers": ["1.1.1.1", "x"]}, ["dnsServers", "1"]),
        ({"cidr": "10.0.0.0/24", "dnsServers": ["1.1.1.1", "1.1.1.1"]}, []),
        ({"cidr": "10.0.0.0/24", "dnsServers": [f"1.1.1.{n}" for n in range(6)]}, ["dnsServers"]),
        ({"cidr": "10.0.0.0/24", "allocationPools": []}, ["allocationPools"]),
        ({"cidr": "10.0.0.0/24", "allocationPools": pools(("10.0.0.9", "10.0.0.8"))}, ["allocationPools", "0"]),
        ({"cidr": "10.0.0.0/24", "allocationPools": pools(("10.0.0.9", "10.0.1.8"))}, ["allocationPools", "0"]),
        ({"cidr": "10.0.0.0/24", "allocationPools": pools(("10.0.0.1", "10.0.0.1"))}, ["allocationPools"]),
        ({"cidr": "10.0.0.0/24", "allocationPools": pools(("10.0.0.2", "10.0.0.9"), ("10.0.0.9", "10.0.0.10"))},
         ["allocationPools"]),
    ],
)  # fmt: skip
def test_wrong_subnets_are_refused_by_place_and_change_nothing(
    world: World, given: dict[str, Any], path: list[str]
) -> None:
    alice = world.member(world.tenant())
    net = cloud.network(alice)
    before = cloud.rows(world)
    assert alice.refused("subnetCreate", networkId=net, **given) == [("INVALID", path or None)]
    assert cloud.rows(world) == before


@pytest.mark.parametrize("cidr", ["10.0.0.0/24", "10.0.0.128/25", "10.0.0.0/16", "fd00::/64", "fd00::1:0/112"])
def test_ranges_of_a_network_do_not_overlap(world: World, cidr: str) -> None:
    alice = world.member(world.tenant())
    net = cloud.network(alice, "10.0.0.0/24", "fd00::/64")
    before = cloud.rows(world)
    assert alice.refused("subnetCreate", networkId=net, cidr=cidr) == [("CONFLICT", ["cidr"])]
    assert cloud.rows(world) == before
    cloud.network(alice, cidr)


def test_a_network_has_at_most_sixteen_subnets(world: World) -> None:
    alice = world.member(world.tenant())
    net = cloud.network(alice, *(f"10.0.{n}.0/24" for n in range(16)))
    assert alice.refused("subnetCreate", networkId=net, cidr="10.1.0.0/24") == [("QUOTA_EXCEEDED", ["networkId"])]


def test_who_may_see_and_change_subnets(world: World) -> None:
    tenant = world.tenant()
    alice, reader, mallory = world.member(tenant), world.member(tenant, Role.READER), world.member(world.tenant())
    net = cloud.network(alice)
    made = cloud.subnet(alice, net, "10.0.0.0/24")
    before = cloud.rows(world)
    assert mallory.ok(LIST)["subnets"] == {"nodes": [], "totalCount": 0}
    assert mallory.ok("query($id: ID!) { subnet(id: $id) { cidr } }", id=made) == {"subnet": None}
    assert mallory.refused("subnetDelete", id=made) == [("NOT_FOUND", ["id"])]
    assert reader.ok(LIST)["subnets"]["totalCount"] == 1
    assert [code for code, _ in reader.refused("subnetDelete", id=made)] == ["FORBIDDEN"]
    assert [code for code, _ in reader.refused("subnetCreate", networkId=net, cidr="10.1.0.0/24")] == ["FORBIDDEN"]
    assert world.nobody.run(LIST).codes == ["UNAUTHENTICATED"]
    assert cloud.rows(world) == before


def test_lists_are_filtered_and_sorted_by_address(world: World) -> None:
    alice = world.member(world.tenant())
    net = cloud.network(alice, "10.10.0.0/24", "9.0.0.0/24", "fd00::/64")
    cloud.network(alice, "10.10.0.0/24")

    def ranges(**wanted: object) -> list[str]:
        return [each["cidr"] for each in alice.ok(LIST, f=wanted)["subnets"]["nodes"]]

    assert ranges(networkId=net) == ["9.0.0.0/24", "10.10.0.0/24", "fd00::/64"]
    assert ranges(cidr="10.10.0.0/24") == ["10.10.0.0/24", "10.10.0.0/24"]
    assert alice.run(LIST, f={"networkId": "x"}).codes == ["NOT_FOUND"]


def test_a_subnet_with_addresses_in_use_cannot_go(world: World) -> None:
    alice = world.member(world.tenant())
    net = cloud.network(alice)
    made = cloud.subnet(alice, net, "10.0.0.0/24")
    held = cloud.port(alice, net)["id"]
    before = cloud.rows(world)
    assert cloud.blocked(alice, "subnetDelete", made) == [held]
    assert cloud.rows(world) == before
    alice.do("portDelete", "id", id=held)
    assert alice.do("subnetDelete", "id job { id }", id=made) == {"id": made, "job": None, "userErrors": []}
    rows = cloud.rows(world)
    assert (rows["subnet"], rows["free_range"]) == ([], [])


def test_new_and_gone_ranges_reach_the_hosts(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    net = cloud.network(alice, "10.0.0.0/24")
    cloud.carry(world, cloud.port(alice, net)["id"], centre)

    def there() -> list[str]:
        (found,) = centre.snapshot_of_world().networks.values()
        return [str(each["cidr"]) for each in found.subnets]

    centre.fail("networks.ensure", Transient, after=True)
    made = alice.do("subnetCreate", "subnet { id } job { id kind }", networkId=net, cidr="10.1.0.0/24")
    assert made["job"]["kind"] == "network.apply"
    world.work()
    assert world.job(made["job"]["id"]).status == "SUCCEEDED"
    assert there() == ["10.0.0.0/24", "10.1.0.0/24"]
    gone = alice.do("subnetDelete", "id job { id }", id=made["subnet"]["id"])
    world.work()
    assert world.job(gone["job"]["id"]).status == "SUCCEEDED"
    assert there() == ["10.0.0.0/24"]


def test_a_host_that_is_away_is_made_up_for_later(world: World) -> None:
    alice = world.member(world.tenant())
    near, far = world.host(), world.host()
    net = cloud.network(alice, "10.0.0.0/24")
    for centre in (near, far):
        cloud.carry(world, cloud.port(alice, net)["id"], centre)
    far.down(Transient)
    job = alice.do("subnetCreate", "job { id }", networkId=net, cidr="10.1.0.0/24")["job"]["id"]
    world.work()
    row = world.job(job)
    assert (row.status, row.told[0].message) == (
        "SUCCEEDED", "1 hosts are as recorded. 1 hosts do not answer; it is made up for later.",
    )  # fmt: skip
    assert [len(each.snapshot_of_world().networks[str(world.uid(net))].subnets) for each in (near, far)] == [2, 1]
    world.clock.advance(seconds=61)
    world.reconcile("hosts", "networks")
    assert len(far.snapshot_of_world().networks[str(world.uid(net))].subnets) == 1
    far.up()
    world.reconcile("hosts", "networks")
    assert len(far.snapshot_of_world().networks[str(world.uid(net))].subnets) == 2
    world.reconcile("networks")
    live = alice.ok("{ jobs(filter: {live: true}) { totalCount } }")["jobs"]["totalCount"]
    assert live == 0
