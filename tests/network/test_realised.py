"""Hosts against records: what the reconciler finds and repairs, what two works at once leave behind, and what placement
asks about ranges.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import Session, col, select

from drivers.api import Deadline, NetworkSpec, PortSpec, Transient
from drivers.sim import DataCentre
from gateway.compute.host import Host
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel.access import CLOUD
from gateway.network import network as networks
from gateway.network import port as ports
from gateway.network.network import NetworkHost
from tests.network import cloud
from tests.world import World
from workers.network import network as network_work
from workers.network import port as port_work
from workers.reach import address_of
from workers.saga import Outside, Run


def a_run(world: World) -> Run:
    """A job's run that is live, outside the queue."""
    job = world.db.run(lambda session: jobs.submit(session, CLOUD, Order("test.port", None)))
    return Run(Outside(world.db, world.hosts), job.id, jobs.NOUN.public(job), {}, {})


def behind_our_back(world: World, centre: DataCentre, work: object) -> None:
    """Do something on a host that nobody records."""
    with world.db.read() as session:
        where = address_of(session, world.host_row(centre.name))
    world.hosts.call(where, work)  # type: ignore[arg-type]


def live_jobs(world: World) -> list[str]:
    with world.db.read() as session:
        return list(session.exec(select(Job.kind).where(col(Job.status).in_(jobs.LIVE))))


def test_what_a_host_lost_comes_back(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    net = cloud.network(alice, "10.0.0.0/24")
    held = cloud.port(alice, net)["id"]
    cloud.carry(world, held, centre)
    whole = centre.snapshot_of_world()

    def lose_port(driver: object, deadline: Deadline) -> None:
        driver.networks.remove_port(world.uid(net), world.uid(held), deadline)  # type: ignore[attr-defined]

    def lose_network(driver: object, deadline: Deadline) -> None:
        driver.networks.remove(world.uid(net), deadline)  # type: ignore[attr-defined]

    for lose in (lose_port, lose_network):
        behind_our_back(world, centre, lose)
        assert centre.snapshot_of_world() != whole
        world.clock.advance(seconds=61)
        world.reconcile("networks")
        assert centre.snapshot_of_world() == whole
        world.reconcile("networks")
        assert live_jobs(world) == []


def test_what_changed_just_now_is_left_to_who_changed_it(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    held = cloud.port(alice, cloud.network(alice, "10.0.0.0/24"))["id"]
    host_id = world.host_row(centre.name).id
    world.db.run(lambda session: ports.place(session, [cloud.key(world, held)], host_id))
    world.reconcile("networks")
    assert centre.snapshot_of_world().networks == {}
    world.clock.advance(seconds=61)
    world.reconcile("networks")
    assert len(centre.snapshot_of_world().ports) == 1


def test_a_network_that_no_port_needs_leaves_its_host(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    empty = centre.snapshot_of_world()
    net = cloud.network(alice, "10.0.0.0/24")
    network_work.ensure_on_host(a_run(world), cloud.key(world, net), world.host_row(centre.name).id)
    world.clock.advance(seconds=61)
    world.reconcile("networks")
    assert centre.snapshot_of_world() == empty
    assert cloud.rows(world)["network_host"] == []


def test_a_network_and_a_port_that_strayed_are_removed(world: World) -> None:
    alice = world.member(world.tenant())
    right, wrong = world.host(), world.host()
    empty = wrong.snapshot_of_world()
    net = cloud.network(alice, "10.0.0.0/24")
    held = cloud.port(alice, net)["id"]
    cloud.carry(world, held, right)
    host_id = world.host_row(wrong.name).id

    def stray(driver: object, deadline: Deadline) -> None:
        with world.db.read() as session:
            network, port = (
                network_work.spec(session, cloud.key(world, net), session.get(Host, host_id)),
                port_work.spec(session, cloud.key(world, held)),
            )
        driver.networks.ensure(network, deadline)  # type: ignore[attr-defined]
        driver.networks.ensure_port(port, deadline)  # type: ignore[attr-defined]

    cloud.carry(world, cloud.port(alice, cloud.network(alice, "10.9.0.0/24", name="other"))["id"], wrong)
    behind_our_back(world, wrong, stray)
    world.clock.advance(seconds=61)
    world.reconcile("networks")
    world.clock.advance(seconds=61)
    world.reconcile("networks")
    assert len(wrong.snapshot_of_world().networks) == len(wrong.snapshot_of_world().ports) == 1
    assert len(right.snapshot_of_world().networks) == len(right.snapshot_of_world().ports) == 1
    assert wrong.snapshot_of_world() != empty


def test_what_no_row_knows_is_never_touched(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    cloud.carry(world, cloud.port(alice, cloud.network(alice, "10.0.0.0/24"))["id"], centre)
    foreign = NetworkSpec(world.db.run(lambda session: session.info["uids"]()), "theirs")
    guest = PortSpec(world.db.run(lambda session: session.info["uids"]()), foreign.id, "02:00:00:00:00:01", ())

    def theirs(driver: object, deadline: Deadline) -> None:
        driver.networks.ensure(foreign, deadline)  # type: ignore[attr-defined]
        driver.networks.ensure_port(guest, deadline)  # type: ignore[attr-defined]

    behind_our_back(world, centre, theirs)
    there = centre.snapshot_of_world()
    world.clock.advance(seconds=61)
    world.reconcile("networks")
    assert centre.snapshot_of_world() == there
    assert str(foreign.id) in there.networks


# ------------------------------------------------------------------------------------------------ two at once


def test_a_network_that_leaves_makes_those_who_come_wait(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    host_id = world.host_row(centre.name).id
    net = cloud.network(alice, "10.0.0.0/24")
    one, two = (cloud.port(alice, net)["id"] for _ in range(2))
    cloud.carry(world, one, centre)
    network_id = cloud.key(world, net)
    leaving = a_run(world)
    world.db.run(lambda session: ports.displace(session, [cloud.key(world, one)]))
    assert world.db.run(lambda session: networks.depart(session, network_id, host_id, leaving.job_id))
    with pytest.raises(Transient):
        port_work.ensure_on_host(a_run(world), cloud.key(world, two), host_id)
    # the one who takes it away finishes; who waited has it made anew
    behind_our_back(world, centre, lambda driver, deadline: driver.networks.remove(world.uid(net), deadline))
    world.db.run(lambda session: networks.departed(session, network_id, host_id, leaving.job_id))
    port_work.ensure_on_host(a_run(world), cloud.key(world, two), host_id)
    assert len(centre.snapshot_of_world().ports) == 1


def test_a_network_does_not_leave_while_a_port_settles(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    host_id = world.host_row(centre.name).id
    net = cloud.network(alice, "10.0.0.0/24")
    held = cloud.key(world, cloud.port(alice, net)["id"])
    world.db.run(lambda session: ports.place(session, [held], host_id))
    assert not network_work.leave_host(a_run(world), cloud.key(world, net), host_id)


def test_who_was_to_take_a_network_away_and_is_over_holds_nobody_up(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    host_id = world.host_row(centre.name).id
    net = cloud.network(alice, "10.0.0.0/24")
    held = cloud.key(world, cloud.port(alice, net)["id"])
    leaving = a_run(world)
    network_work.ensure_on_host(leaving, cloud.key(world, net), host_id)
    world.db.run(lambda session: networks.depart(session, cloud.key(world, net), host_id, leaving.job_id))

    def end(session: Session) -> None:
        jobs.settle(session, session.get_one(Job, leaving.job_id), jobs.Status.FAILED)

    world.db.run(end)
    port_work.ensure_on_host(a_run(world), held, host_id)
    assert len(centre.snapshot_of_world().ports) == 1


def test_settling_and_leaving_are_compare_and_set(migrated_url: str, tmp_path: Path) -> None:
    """A port settles between the look and the write of who would take the network away: the look is repeated."""
    world = World.open(migrated_url, tmp_path)
    alice = world.member(world.tenant())
    host_id = world.host_row(world.host().name).id
    net = cloud.network(alice, "10.0.0.0/24")
    held = cloud.key(world, cloud.port(alice, net)["id"])
    run = a_run(world)
    network_work.ensure_on_host(run, cloud.key(world, net), host_id)
    looks: list[int] = []

    def depart(session: Session) -> bool:
        place = session.exec(select(NetworkHost)).one()
        looks.append(place.version)
        if len(looks) == 1:  # as in the middle of depart
            world.db.run(lambda other: ports.place(other, [held], host_id))
            place.leaving_job_id = run.job_id
            return True
        return networks.depart(session, cloud.key(world, net), host_id, run.job_id)

    assert world.db.run(depart) is False
    assert len(looks) == 2
    assert looks[1] > looks[0]
    world.close()


def test_rules_that_change_while_a_port_is_made_are_the_ones_it_has(world: World) -> None:
    """The rule is added between the reading of the wish and the call: the wish is read again after it."""
    alice = world.member(world.tenant())
    centre = world.host()
    web = cloud.group(alice)
    held = cloud.port(alice, cloud.network(alice, "10.0.0.0/24"), securityGroupIds=[web])["id"]
    run = a_run(world)
    asked = []

    class Hosts:
        """The way to hosts, on which somebody is faster."""

        def call(self, where: object, work: object, *, seconds: float = 60.0) -> object:
            asked.append(where)
            if len(asked) == 2:
                given = {"securityGroupId": web, "direction": "INGRESS", "protocol": "TCP", "portMin": 80}
                alice.do("securityGroupRuleAdd", "rule { id }", **given)
            return world.hosts.call(where, work, seconds=seconds)  # type: ignore[arg-type]

    run.outside = Outside(world.db, Hosts())
    port_work.ensure_on_host(run, cloud.key(world, held), world.host_row(centre.name).id)
    (there,) = centre.snapshot_of_world().ports.values()
    assert [each["port_min"] for each in there.rules or [] if each["direction"] == "INGRESS"] == [80]
    assert len(asked) == 3


def test_a_port_that_goes_while_its_rules_are_applied_is_not_left_behind(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    host_id = world.host_row(centre.name).id
    held = cloud.port(alice, cloud.network(alice, "10.0.0.0/24"))["id"]
    cloud.carry(world, held, centre)
    port_id = cloud.key(world, held)
    run, other = a_run(world), a_run(world)
    asked = []

    class Hosts:
        """The way to hosts, on which somebody is faster."""

        def call(self, where: object, work: object, *, seconds: float = 60.0) -> object:
            asked.append(where)
            if len(asked) == 1:  # the other job displaces, removes, and is done before this call arrives
                world.db.run(lambda session: ports.displace(session, [port_id]))
                behind_our_back(world, centre, remove)
            return world.hosts.call(where, work, seconds=seconds)  # type: ignore[arg-type]

    def remove(driver: object, deadline: Deadline) -> None:
        with world.db.read() as session:
            gone = port_work.spec(session, port_id)
        driver.networks.remove_port(gone.network_id, gone.id, deadline)  # type: ignore[attr-defined]

    run.outside = Outside(world.db, Hosts())
    assert port_work.apply(run, port_id, host_id) is False
    assert centre.snapshot_of_world().ports == {}
    port_work.remove_from_host(other, port_id, host_id)
    assert centre.snapshot_of_world().networks == {}


# ------------------------------------------------------------------------------------------------ placement


@pytest.mark.parametrize(
    ("there", "wanted", "collides"),
    [
        ("10.0.0.0/24", "10.0.0.0/24", True),
        ("10.0.0.0/16", "10.0.7.0/24", True),
        ("10.0.7.0/24", "10.0.0.0/16", True),
        ("10.0.0.0/24", "10.0.1.0/24", False),
        ("10.0.1.0/24", "10.0.0.0/24", False),
        ("fd00::/64", "fd00::/64", True),
        ("fd00::10:0/112", "fd00::/64", True),
        ("fd00::/64", "fd00:0:0:1::/64", False),
        ("10.0.0.0/24", "fd00::/64", False),
    ],
)
def test_hosts_with_overlapping_ranges_are_known(world: World, there: str, wanted: str, collides: bool) -> None:  # noqa: FBT001 - a parameter of the test
    alice = world.member(world.tenant())
    centre = world.host()
    host_id = world.host_row(centre.name).id
    first, second = cloud.network(alice, there), cloud.network(alice, wanted)
    cloud.carry(world, cloud.port(alice, first)["id"], centre)
    keys = [cloud.key(world, second)]
    with world.db.read() as session:
        assert networks.colliding_hosts(session, keys) == (frozenset({host_id}) if collides else frozenset())
        assert networks.colliding_hosts(session, [cloud.key(world, first)]) == frozenset()
        assert networks.colliding_hosts(session, []) == frozenset()


def test_a_range_that_a_host_cannot_keep_apart_is_refused(world: World) -> None:
    alice = world.member(world.tenant())
    centre = world.host()
    for name, cidr in (("a", "10.0.0.0/24"), ("b", "10.1.0.0/24")):
        cloud.carry(world, cloud.port(alice, cloud.network(alice, cidr, name=name))["id"], centre)
    net = alice.ok('{ networks(filter: {name: "b"}) { nodes { id } } }')["networks"]["nodes"][0]["id"]
    row = world.host_row(centre.name)

    def poorer(session: Session) -> None:
        host = session.get_one(type(row), row.id)
        host.capabilities = [each for each in host.capabilities if each != "OVERLAPPING_SUBNETS"]

    world.db.run(poorer)
    before = cloud.rows(world)
    assert alice.refused("subnetCreate", networkId=net, cidr="10.0.0.0/25") == [("CONFLICT", ["cidr"])]
    assert cloud.rows(world) == before
    alice.do("subnetCreate", "subnet { id }", networkId=net, cidr="10.2.0.0/24")
