"""Another size for a server: what people ask, what hosts have then, what is counted meanwhile, and the ways back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlmodel import col, select

from drivers.api import HostAtFault, Refused
from gateway.kernel.access import Role
from gateway.metering.usage import Interval, Metered
from tests.compute.scene import Scene
from tests.world import World

SHOWN = """query($id: ID!) { server(id: $id) { status statusReason vcpus ramMib diskGib flavor { name } allowedActions
  resize { status confirmAt oldFlavor { name } newFlavor { name } } } }"""
PLAN = """query($input: ServerResizeInput!) { serverResizePlan(input: $input) {
  possible moves interrupts pricePerHour priceDifferencePerHour quota { resource used }
  decision { counts { constraint hosts } smallestChange { message } } userErrors { code path } } }"""
SIZE = {"SMALL": (1, 512, 2), "LARGE": (2, 1024, 3)}


class Sizes:
    """A scene with a small and a large flavor; servers are small at first."""

    def __init__(self, world: World) -> None:
        self.scene = Scene.make(world)
        self.world, self.alice, self.centre = world, self.scene.alice, self.scene.centre
        self.small = self.scene.flavor
        self.large = self.flavor("large", *SIZE["LARGE"], price="0.5")

    def flavor(self, name: str, vcpus: int, ram_mib: int, disk_gib: int, price: str | None = None) -> str:
        size = {"vcpus": vcpus, "ramMib": ram_mib, "diskGib": disk_gib, "pricePerHour": price}
        made = self.world.admin.do("flavorCreate", "flavor { id }", name=name, **size)
        return str(made["flavor"]["id"])

    def resize(self, server: str, flavor: str | None = None) -> tuple[str, str | None]:
        """How a resize ends, and the code of its error."""
        given = {"serverId": server, "flavorId": flavor or self.large}
        made = self.alice.do("serverResize", "resize { id } job { id }", **given)
        self.world.work()
        job = self.world.job(made["job"]["id"])
        return job.status.value, (job.error or {}).get("code")

    def shown(self, server: str) -> dict[str, Any]:
        found: dict[str, Any] = self.alice.ok(SHOWN, id=server)["server"]
        return found

    def size(self, server: str) -> tuple[int, int, int]:
        found = self.shown(server)
        return found["vcpus"], found["ramMib"], found["diskGib"]

    def machine(self, server: str) -> tuple[str, int, int, int]:
        """What its host has: power, vCPUs, memory, and the GiB of its disk."""
        there = self.centre.snapshot_of_world()
        found = there.machines[str(self.world.uid(server))]
        (disk,) = (there.volumes[key] for key, device in found.disks.items() if device == "vda")
        return found.power, found.vcpus, found.ram_mib, disk.size_bytes >> 30

    def claimed(self, name: str = "h") -> tuple[int, int, int]:
        row = self.world.host_row(name)
        return row.used_vcpus, row.used_ram_mib, row.used_disk_gib

    def taken(self) -> tuple[int, int]:
        used = self.scene.used()
        return used["VCPUS"], used["RAM_MIB"]

    def last(self, server: str) -> dict[str, Any]:
        query = """query($id: ID!) { resizes(last: 1, filter: {serverId: $id}) {
          nodes { status statusReason host { name } } } }"""
        found: dict[str, Any] = self.world.admin.ok(query, id=server)["resizes"]["nodes"][0]
        return found


@pytest.fixture
def sizes(world: World) -> Sizes:
    return Sizes(world)


def test_a_running_server_grows_and_stays_large(sizes: Sizes) -> None:
    server = sizes.scene.server()
    assert sizes.resize(server) == ("SUCCEEDED", None)
    found = sizes.shown(server)
    assert (found["status"], found["statusReason"], found["flavor"]["name"]) == ("VERIFY_RESIZE", None, "large")
    assert found["resize"]["status"] == "UNCONFIRMED"
    assert found["allowedActions"] == ["DELETE", "UPDATE", "RESIZE_CONFIRM", "RESIZE_REVERT", "OPEN_CONSOLE"]
    assert sizes.machine(server) == ("RUNNING", 2, 1024, 2)
    assert sizes.size(server) == (2, 1024, 2)  # the disk grows when nobody can go back any more
    assert (sizes.claimed(), sizes.taken()) == ((2, 1024, 3), (2, 1024))
    for mutation in ("serverStop", "serverStart"):
        assert sizes.alice.refused(mutation, id=server) == [("INVALID_STATE", ["id"])]
    sizes.scene.do_and_work("serverResizeConfirm", serverId=server)
    assert sizes.machine(server) == ("RUNNING", 2, 1024, 3)
    found = sizes.shown(server)
    assert (found["status"], found["diskGib"], found["resize"]) == ("ACTIVE", 3, None)
    assert (sizes.claimed(), sizes.taken()) == ((2, 1024, 3), (2, 1024))
    assert sizes.last(server)["status"] == "CONFIRMED"


def test_the_larger_of_both_sizes_counts_until_it_is_decided(sizes: Sizes) -> None:
    """Going down, too: the old size can always come back."""
    thin = sizes.flavor("thin", 1, 768, 3)
    server = sizes.scene.server(flavorId=sizes.large)
    assert sizes.resize(server, thin) == ("SUCCEEDED", None)
    assert sizes.machine(server)[:3] == ("RUNNING", 1, 768)
    assert (sizes.claimed(), sizes.taken()) == ((2, 1024, 3), (2, 1024))
    sizes.scene.do_and_work("serverResizeConfirm", serverId=server)
    assert (sizes.claimed(), sizes.taken()) == ((1, 768, 3), (1, 768))


@pytest.mark.parametrize("power", ["RUNNING", "OFF"])
def test_the_old_size_comes_back(sizes: Sizes, power: str) -> None:
    server = sizes.scene.server()
    if power == "OFF":
        sizes.scene.do_and_work("serverStop", id=server)
    before, counted = sizes.machine(server), (sizes.claimed(), sizes.taken())
    assert sizes.resize(server) == ("SUCCEEDED", None)
    assert sizes.machine(server)[0] == power
    sizes.scene.do_and_work("serverResizeRevert", serverId=server)
    assert sizes.machine(server) == before
    status = {"RUNNING": "ACTIVE", "OFF": "STOPPED"}[power]
    assert (sizes.shown(server)["status"], sizes.size(server)) == (status, SIZE["SMALL"])
    assert (sizes.claimed(), sizes.taken()) == counted
    assert sizes.last(server)["status"] == "REVERTED"
    for mutation in ("serverResizeConfirm", "serverResizeRevert"):
        assert sizes.alice.refused(mutation, serverId=server) == [("INVALID_STATE", ["serverId"])]
    assert sizes.resize(server) == ("SUCCEEDED", None)


@pytest.mark.parametrize(("verb", "fault"), [("machines.ensure", Refused), ("machines.power", HostAtFault)])
def test_a_step_that_fails_brings_the_old_size_back(sizes: Sizes, verb: str, fault: type[Exception]) -> None:
    server = sizes.scene.server()
    before, counted = sizes.machine(server), (sizes.claimed(), sizes.taken())
    sizes.centre.fail(verb, fault, after=True, skip=0 if verb == "machines.ensure" else 1)  # type: ignore[arg-type]  # they are driver errors
    status, code = sizes.resize(server)
    assert (status, code) in {("FAILED", "HYPERVISOR_ERROR"), ("FAILED", "NO_VALID_HOST")}
    assert sizes.machine(server) == before
    assert (sizes.claimed(), sizes.taken()) == counted
    found = sizes.last(server)
    assert (found["status"], bool(found["statusReason"])) == ("FAILED", True)
    assert (sizes.shown(server)["status"], sizes.shown(server)["resize"]) == ("ACTIVE", None)


def test_it_is_confirmed_by_itself_after_a_while(sizes: Sizes) -> None:
    server = sizes.scene.server()
    asked = sizes.world.clock.at
    assert sizes.resize(server) == ("SUCCEEDED", None)
    until = datetime.fromisoformat(sizes.shown(server)["resize"]["confirmAt"])
    assert until >= asked + timedelta(days=1)
    sizes.world.clock.advance(hours=23)
    sizes.world.reconcile("resizes")
    assert sizes.shown(server)["status"] == "VERIFY_RESIZE"
    sizes.world.clock.advance(hours=2)
    sizes.world.reconcile("resizes")
    assert (sizes.shown(server)["status"], sizes.size(server)) == ("ACTIVE", SIZE["LARGE"])
    sizes.world.reconcile("resizes")
    assert sizes.last(server)["status"] == "CONFIRMED"


def test_what_is_metered_is_what_the_server_has(sizes: Sizes) -> None:
    """No moment of the disk is counted twice or left out; processors and memory are not counted while it is off."""
    server = sizes.scene.server()
    sizes.world.clock.advance(seconds=100)
    sizes.resize(server)
    sizes.world.clock.advance(seconds=50)
    sizes.scene.do_and_work("serverResizeConfirm", serverId=server)
    with sizes.world.db.read() as session:
        statement = select(Interval).where(Interval.object_uid == sizes.world.uid(server)).order_by(col(Interval.id))
        rows = session.exec(statement).all()
    told = {resource: [each for each in rows if each.resource is resource] for resource in Metered}
    amounts = {resource: [each.amount for each in found] for resource, found in told.items() if found}
    assert amounts == {Metered.VCPU: [1, 2], Metered.RAM_MIB: [512, 1024], Metered.DISK_GIB: [2, 3]}
    for resource in (Metered.VCPU, Metered.RAM_MIB):
        small, large = told[resource]
        assert small.ended_at is not None
        assert small.started_at + timedelta(seconds=100) <= small.ended_at < large.started_at
        assert large.ended_at is None
    small, large = told[Metered.DISK_GIB]
    assert small.ended_at == large.started_at > told[Metered.VCPU][1].started_at + timedelta(seconds=50)
    assert large.ended_at is None


def test_what_may_not_be_resized(sizes: Sizes) -> None:
    server = sizes.scene.server()
    flat = sizes.flavor("flat", 2, 1024, 1)
    rows = sizes.scene.rows()
    stranger = sizes.world.member(sizes.world.tenant())
    reader = sizes.world.member(sizes.scene.tenant_row, Role.READER)
    given = {"serverId": server, "flavorId": sizes.large}
    for mutation in ("serverResize", "serverResizeConfirm", "serverResizeRevert"):
        asked = given if mutation == "serverResize" else {"serverId": server}
        assert stranger.refused(mutation, **asked) == [("NOT_FOUND", ["serverId"])]
        assert reader.refused(mutation, **asked)[0][0] == "FORBIDDEN"
    refused = sizes.alice.refused
    assert refused("serverResize", **{**given, "flavorId": flat}) == [("INVALID", ["flavorId"])]
    assert refused("serverResize", **{**given, "flavorId": sizes.small}) == [("INVALID", ["flavorId"])]
    assert refused("serverResize", **{**given, "flavorId": server}) == [("NOT_FOUND", ["flavorId"])]
    assert refused("serverResizeConfirm", serverId=server) == [("INVALID_STATE", ["serverId"])]
    quota = [{"resource": "VCPUS", "limit": 1}]
    sizes.world.admin.do("quotaSet", "quotas { used }", tenantId=sizes.scene.tenant, limits=quota)
    assert refused("serverResize", **given) == [("QUOTA_EXCEEDED", None)]
    after = sizes.scene.rows()
    assert {name: after[name] for name in rows if name not in _MADE} == {
        name: count for name, count in rows.items() if name not in _MADE
    }
    assert sizes.machine(server) == ("RUNNING", *SIZE["SMALL"])
    assert stranger.ok("{ resizes { nodes { id } } }")["resizes"]["nodes"] == []


_MADE = ("user_account", "membership", "tenant", "quota", "event", "security_group", "security_group_rule")
"""What making strangers and setting quotas makes."""


def test_the_same_key_resizes_once(sizes: Sizes) -> None:
    server = sizes.scene.server()
    given = {"serverId": server, "flavorId": sizes.large, "idempotencyKey": "once"}
    first = sizes.alice.do("serverResize", "resize { id } job { id }", **given)
    assert sizes.alice.refused("serverResize", serverId=server, flavorId=sizes.large) == [("IN_USE", ["serverId"])]
    sizes.world.work()
    assert sizes.alice.do("serverResize", "resize { id } job { id }", **given) == first
    assert sizes.taken() == (2, 1024)


@pytest.mark.parametrize("at", ["asked", "verify", "reverting"])
def test_deleting_a_server_leaves_nothing_of_its_resize(sizes: Sizes, at: str) -> None:
    server = sizes.scene.server()
    if at == "asked":
        sizes.alice.do("serverResize", "job { id }", serverId=server, flavorId=sizes.large)
    else:
        sizes.resize(server)
    if at == "reverting":
        sizes.alice.do("serverResizeRevert", "job { id }", serverId=server)
    sizes.alice.do("serverDelete", "job { id }", id=server)
    sizes.world.work()
    assert sizes.alice.ok("query($id: ID!) { server(id: $id) { id } }", id=server)["server"] is None
    assert (sizes.claimed(), sizes.taken()) == ((0, 0, 0), (0, 0))
    assert sizes.scene.rows()["resize"] == 0
    assert sizes.centre.snapshot_of_world().machines == {}


def test_the_plan_tells_room_quota_and_price(sizes: Sizes) -> None:
    dear = sizes.flavor("dear", 1, 512, 2, price="1.25")
    server = sizes.scene.server(flavorId=dear)
    rows = sizes.scene.rows()
    given = {"serverId": server, "flavorId": sizes.large}
    plan = sizes.alice.ok(PLAN, input=given)["serverResizePlan"]
    assert (plan["possible"], plan["moves"], plan["interrupts"], plan["userErrors"]) == (True, False, True, [])
    assert (plan["pricePerHour"], plan["priceDifferencePerHour"]) == ("0.500000", "-0.750000")
    assert plan["quota"] == [{"resource": "VCPUS", "used": 2}, {"resource": "RAM_MIB", "used": 1024}]
    huge = sizes.flavor("huge", 40, 4096, 4)
    nowhere = sizes.alice.ok(PLAN, input={**given, "flavorId": huge})["serverResizePlan"]
    assert (nowhere["possible"], nowhere["priceDifferencePerHour"]) == (False, None)
    refused = sizes.alice.ok(PLAN, input={**given, "flavorId": dear})["serverResizePlan"]
    assert (refused["possible"], refused["userErrors"]) == (False, [{"code": "INVALID", "path": ["flavorId"]}])
    assert sizes.scene.rows() == {**rows, "flavor": rows["flavor"] + 1, "event": rows["event"] + 1}


def test_a_server_goes_where_there_is_room_and_comes_back(sizes: Sizes) -> None:
    """Its host is full: it grows on another one of the pool, with its volume, and the old room waits for it."""
    scene = sizes.scene
    server = scene.server(networks=[{"networkId": scene.network}], volumes=[{"sizeGib": 1}])
    for _ in range(3):
        scene.server()
    other = sizes.world.host("other", vcpus=4, ram_mib=4096, disk_gib=100)
    before = sizes.centre.snapshot_of_world()
    claims = sizes.claimed()
    plan = sizes.alice.ok(PLAN, input={"serverId": server, "flavorId": sizes.large})["serverResizePlan"]
    assert (plan["possible"], plan["moves"]) == (True, True)
    assert sizes.resize(server) == ("SUCCEEDED", None)
    uid = str(sizes.world.uid(server))
    there = other.snapshot_of_world()
    assert (there.machines[uid].power, there.machines[uid].vcpus, len(there.volumes)) == ("RUNNING", 2, 2)
    assert uid not in sizes.centre.snapshot_of_world().machines
    assert sizes.centre.snapshot_of_world().ports == {}
    assert (sizes.claimed(), sizes.claimed("other")) == (claims, (2, 1024, 4))
    assert sizes.last(server)["host"]["name"] == "h"
    sizes.world.clock.advance(seconds=300)
    sizes.world.reconcile("networks", "servers")
    scene.do_and_work("serverResizeRevert", serverId=server)
    assert sizes.centre.snapshot_of_world().machines[uid] == before.machines[uid]
    assert sizes.centre.snapshot_of_world().ports == before.ports
    empty = other.snapshot_of_world()
    assert (empty.machines, empty.volumes, empty.ports, empty.networks) == ({}, {}, {}, {})
    assert (sizes.claimed(), sizes.claimed("other")) == (claims, (0, 0, 0))
    assert sizes.resize(server) == ("SUCCEEDED", None)
    scene.do_and_work("serverResizeConfirm", serverId=server)
    assert sizes.claimed("other") == (2, 1024, 4)
    assert sizes.claimed() == (claims[0] - 1, claims[1] - 512, claims[2] - 3)
    found = sizes.alice.ok("query($id: ID!) { server(id: $id) { diskGib volumes { status } } }", id=server)["server"]
    assert found == {"diskGib": 3, "volumes": [{"status": "IN_USE"}]}


def test_what_happened_at_its_host_meanwhile_keeps_nobody_from_going_back(sizes: Sizes) -> None:
    """Its guest crashed before the size was confirmed or reverted."""
    server = sizes.scene.server()
    sizes.resize(server)
    sizes.centre.stop(sizes.world.uid(server), crashed=True)
    sizes.world.reconcile("servers")
    assert sizes.shown(server)["status"] == "VERIFY_RESIZE"
    sizes.scene.do_and_work("serverResizeRevert", serverId=server)
    assert sizes.machine(server) == ("OFF", *SIZE["SMALL"])
    found = sizes.shown(server)
    assert (found["status"], "resized" in (found["statusReason"] or "")) == ("STOPPED", False)
    sizes.resize(server)
    sizes.scene.do_and_work("serverResizeConfirm", serverId=server)
    assert sizes.machine(server) == ("OFF", *SIZE["LARGE"])
