from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import select

from gateway.identity.quota import Resource
from gateway.network import address
from gateway.network.address import FreeRange
from tests.network import cloud
from tests.world import World


@pytest.fixture(params=["sqlite", "postgresql"])
def busy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world on each database, whatever the run's own is."""
    url = request.getfixturevalue("migrated_url") if request.param == "postgresql" else f"sqlite:///{tmp_path / 'b.db'}"
    made = World.open(url, tmp_path)
    yield made
    made.close()


def test_parallel_creates_never_share_an_address(busy: World) -> None:
    tenant = busy.tenant()
    alice = busy.member(tenant)
    net = cloud.network(alice, "10.0.0.0/26", "fd00::/64")
    for _ in range(20):
        cloud.port(alice, net)

    def one(_number: int) -> tuple[list[str], list[str]]:
        payload = alice.ask("portCreate", "port { ipAddresses macAddress }", networkId=net)
        codes = [each["code"] for each in payload["userErrors"]]
        return codes, payload["port"]["ipAddresses"] if payload["port"] else []

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(one, range(50)))
    made = [addresses for codes, addresses in answers if not codes]
    refused = [codes for codes, _ in answers if codes]
    # 64 addresses without network, gateway, broadcast are 61; 20 were held before
    assert len(made) == 41
    assert refused == [["NO_ADDRESS_LEFT"]] * 9
    assert sorted(each[0] for each in made) == sorted(str(ip_network("10.0.0.0/26")[n]) for n in range(22, 63))
    assert len({each[1] for each in made}) == 41
    assert cloud.used(busy, tenant, Resource.PORTS) == 61
    assert len(cloud.rows(busy)["port_address"]) == 122


def test_parallel_creates_and_deletes_lose_nothing(busy: World) -> None:
    tenant = busy.tenant()
    alice = busy.member(tenant)
    net = cloud.network(alice, "10.0.0.0/27")
    before = cloud.rows(busy)["free_range"]
    old = [cloud.port(alice, net)["id"] for _ in range(15)]

    def turn(number: int) -> str | None:
        if number % 2:
            alice.do("portDelete", "id", id=old[number // 2])
            return None
        return str(cloud.port(alice, net)["ipAddresses"][0])

    with ThreadPoolExecutor(30) as threads:
        fresh = [each for each in threads.map(turn, range(28)) if each]
    assert len(fresh) == len(set(fresh)) == 14
    assert cloud.used(busy, tenant, Resource.PORTS) == 15
    for each in alice.ok("{ ports(first: 100) { nodes { id } } }")["ports"]["nodes"]:
        alice.do("portDelete", "id", id=each["id"])
    # What is free again is the very range that was free at first.
    assert [tuple(row)[1:] for row in cloud.rows(busy)["free_range"]] == [tuple(row)[1:] for row in before]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cidr=st.sampled_from(["10.0.0.0/28", "192.168.7.0/27", "fd00::/124", "fd00::/64"]),
    moves=st.lists(
        st.one_of(
            st.just(("lowest", 0)),
            st.tuples(st.sampled_from(["take", "give"]), st.integers(0, 15)),
        ),
        max_size=40,
    ),
)
def test_ranges_behave_like_a_set_of_addresses(world: World, cidr: str, moves: list[tuple[str, int]]) -> None:
    """Against the plainest model: a set. The subnet's first sixteen offsets are the pool."""
    client = world.member(world.tenant())
    subnet_id = cloud.key(world, cloud.subnet(client, cloud.network(client), cidr))
    zero = address.position_of(cidr, str(ip_network(cidr)[0]))
    free = set(range(zero, zero + 16))

    def fresh(session: object) -> None:
        for each in session.exec(select(FreeRange).where(FreeRange.subnet_id == subnet_id)):  # type: ignore[attr-defined]
            session.delete(each)  # type: ignore[attr-defined]
        session.flush()  # type: ignore[attr-defined]
        address.open_ranges(session, subnet_id, [(zero, zero + 15)])  # type: ignore[arg-type]

    world.db.run(fresh)
    for move, offset in moves:
        at = zero + offset
        if move == "lowest":
            got = world.db.run(lambda session: address.take_lowest(session, subnet_id))
            assert got == (min(free) if free else None)
            free.discard(got if got is not None else at + 100)
        elif move == "take":
            assert world.db.run(lambda session, at=at: address.take(session, subnet_id, at)) is (at in free)  # type: ignore[misc]
            free.discard(at)
        elif at not in free:
            world.db.run(lambda session, at=at: address.give(session, subnet_id, at))  # type: ignore[misc]
            free.add(at)
        with world.db.read() as session:
            ranges = session.exec(select(FreeRange.first, FreeRange.last).where(FreeRange.subnet_id == subnet_id)).all()
        assert {n for first, last in ranges for n in range(first, last + 1)} == free
        # As few ranges as can be: no two touch.
        ends = sorted(ranges)
        assert all(b[0] > a[1] + 1 for a, b in pairwise(ends))


@given(
    cidr=st.sampled_from(["10.0.0.0/8", "10.1.2.0/24", "fd00::/64", "2001:db8:0:1::/64", "fd00::/126"]),
    data=st.data(),
)
def test_positions_keep_the_order_and_fit_64_bits(cidr: str, data: st.DataObject) -> None:
    network = ip_network(cidr)
    one, two = (network[data.draw(st.integers(0, network.num_addresses - 1))] for _ in range(2))
    first, second = address.position_of(cidr, str(one)), address.position_of(cidr, str(two))
    assert -(2**63) <= first < 2**63
    assert (first < second) == (int(one) < int(two))
    assert address.address_at(cidr, first) == str(one)


def test_the_cost_of_an_address_does_not_grow_with_the_subnet(world: World) -> None:
    alice = world.member(world.tenant())
    numbers = []
    for cidr, held in (("10.0.0.0/28", 6), ("10.0.0.0/8", 30)):
        net = cloud.network(alice, cidr, name=cidr)
        for _ in range(held):
            cloud.port(alice, net)
        with cloud.counted() as sent:
            cloud.port(alice, net)
        numbers.append(len(sent))
        assert len(cloud.rows(world)["free_range"]) == len(numbers)
    assert numbers[0] == numbers[1]


def test_exhaustion_is_told_and_freed_addresses_are_used_again(world: World) -> None:
    tenant = world.tenant()
    alice = world.member(tenant)
    net = cloud.network(alice, "10.0.0.0/29")
    held = [cloud.port(alice, net) for _ in range(5)]
    assert [each["ipAddresses"] for each in held] == [[f"10.0.0.{n}"] for n in range(2, 7)]
    before = cloud.rows(world)
    assert alice.refused("portCreate", networkId=net) == [("NO_ADDRESS_LEFT", ["networkId"])]
    assert cloud.rows(world) == before
    alice.do("portDelete", "id", id=held[3]["id"])
    alice.do("portDelete", "id", id=held[1]["id"])
    assert [cloud.port(alice, net)["ipAddresses"] for _ in range(2)] == [["10.0.0.3"], ["10.0.0.5"]]
    cloud.subnet(alice, net, "10.0.1.0/29")
    assert cloud.port(alice, net)["ipAddresses"] == ["10.0.1.2"]
    assert cloud.used(world, tenant, Resource.PORTS) == 6
