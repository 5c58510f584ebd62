"""Moves of servers between the hosts of a pool: as they run, or shut down for it; what is where, and counted."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.api import Deadline, HostAtFault, Refused
from drivers.sim import DataCentre
from drivers.sim.records import MachineRecord
from gateway.kernel.access import Role
from tests.compute.scene import Scene
from tests.world import Client, World

SHOWN = "query($id: ID!) { server(id: $id) { status statusReason host { id name } volumes { status } resize { id } } }"
PLAN = """query($input: ServerRelocateInput!) { serverRelocatePlan(input: $input) { possible interrupts
  decision { counts { constraint hosts } verdicts { fits host { name } } }
  userErrors { code path message ... on Unsupported { capability hypervisor } } } }"""


class Pool:
    """A server with a network and a volume on the host ``h``, and the host ``other``, both of one pool."""

    def __init__(self, world: World) -> None:
        self.world, self.scene = world, Scene.make(world)
        self.boss: Client = world.member(self.scene.tenant_row, Role.MANAGER)
        self.server = self.scene.server(networks=[{"networkId": self.scene.network}], volumes=[{"sizeGib": 1}])
        self.uid = str(world.uid(self.server))
        self.centre = self.scene.centre
        self.other = world.host("other", vcpus=4, ram_mib=4096, disk_gib=100)

    def relocate(self, **given: Any) -> tuple[str, str | None]:
        """How a move ends, and the code of its error."""
        made = self.boss.do("serverRelocate", "server { id } job { id }", serverId=self.server, **given)
        self.world.work()
        job = self.world.job(made["job"]["id"])
        return job.status.value, (job.error or {}).get("code")

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.world.admin.ok(SHOWN, id=self.server)["server"]
        return found

    def claimed(self) -> list[tuple[int, int, int]]:
        rows = [self.world.host_row(name) for name in ("h", "other")]
        return [(row.used_vcpus, row.used_ram_mib, row.used_disk_gib) for row in rows]

    def power(self, centre: DataCentre) -> str | None:
        found = centre.snapshot_of_world().machines.get(self.uid)
        return found.power if found is not None else None

    def boots(self, centre: DataCentre) -> int:
        """How often its guest was powered on."""
        with centre.store.read(Deadline(1)) as transaction:
            found = transaction.get(MachineRecord, self.uid)
        assert found is not None
        return len(found.starts)

    def host_id(self, name: str) -> str:
        found = self.world.admin.ok("query($n: String) { hosts(filter: {name: $n}) { nodes { id } } }", n=name)
        return str(found["hosts"]["nodes"][0]["id"])


@pytest.fixture
def pool(world: World) -> Pool:
    return Pool(world)


def test_a_running_server_moves_as_it_runs_and_back(pool: Pool) -> None:
    before, boots = pool.centre.snapshot_of_world(), pool.boots(pool.centre)
    quotas = pool.scene.used()
    assert pool.claimed() == [(1, 512, 3), (0, 0, 0)]
    assert pool.relocate() == ("SUCCEEDED", None)
    found = pool.shown()
    assert (found["status"], found["host"]["name"], found["volumes"]) == ("ACTIVE", "other", [{"status": "IN_USE"}])
    assert (pool.power(pool.centre), pool.power(pool.other), pool.boots(pool.other)) == (None, "RUNNING", boots)
    there = pool.other.snapshot_of_world()
    assert (there.ports, set(there.volumes)) == (before.ports, set(before.volumes))
    assert pool.centre.snapshot_of_world().ports == {}
    assert (pool.claimed(), pool.scene.used()) == ([(0, 0, 0), (1, 512, 3)], quotas)
    pool.world.clock.advance(seconds=300)
    pool.world.reconcile("networks", "servers")
    assert pool.other.snapshot_of_world().ports == before.ports
    assert pool.relocate() == ("SUCCEEDED", None)
    assert pool.claimed() == [(1, 512, 3), (0, 0, 0)]
    assert pool.shown()["host"]["name"] == "h"
    pool.scene.do_and_work("serverDelete", id=pool.server)
    assert pool.claimed() == [(0, 0, 1), (0, 0, 0)]  # the volume stays


@pytest.mark.parametrize("stopped", ["by the move", "before"])
def test_a_server_moves_while_it_is_off(pool: Pool, stopped: str) -> None:
    if stopped == "before":
        pool.scene.do_and_work("serverStop", id=pool.server)
    boots = pool.boots(pool.centre)
    assert pool.relocate(live=False) == ("SUCCEEDED", None)
    running = stopped == "by the move"
    assert pool.power(pool.other) == ("RUNNING" if running else "OFF")
    assert pool.boots(pool.other) == boots + (1 if running else 0)
    assert (pool.shown()["status"], pool.shown()["statusReason"]) == ("ACTIVE" if running else "STOPPED", None)


@pytest.mark.parametrize("fault", [HostAtFault, Refused])
def test_a_move_that_fails_leaves_all_as_it_was(pool: Pool, fault: type[Exception]) -> None:
    """Live; that the other way is taken back whatever fails is the matter of tests/sagas."""
    before, claims = pool.centre.snapshot_of_world(), pool.claimed()
    pool.centre.fail("relocate", fault, times=None)  # type: ignore[arg-type]  # they are driver errors
    assert pool.relocate()[0] == "FAILED"
    pool.centre.heal()
    after = pool.centre.snapshot_of_world()
    assert (after.ports, after.volumes, pool.power(pool.centre)) == (before.ports, before.volumes, "RUNNING")
    other = pool.other.snapshot_of_world()
    assert (other.machines, other.volumes, other.ports, other.networks) == ({}, {}, {}, {})
    assert (pool.claimed(), pool.shown()["status"], pool.shown()["host"]["name"]) == (claims, "ACTIVE", "h")
    assert pool.relocate() == ("SUCCEEDED", None)


def test_who_may_move_what_where(pool: Pool) -> None:
    given = {"serverId": pool.server}
    rows, before = pool.scene.rows(), pool.centre.snapshot_of_world()
    assert pool.scene.alice.refused("serverRelocate", **given)[0][0] == "FORBIDDEN"
    stranger = pool.world.member(pool.world.tenant(), Role.MANAGER)
    assert stranger.refused("serverRelocate", **given) == [("NOT_FOUND", ["serverId"])]
    other = pool.host_id("other")
    assert pool.boss.refused("serverRelocate", hostId=other, **given) == [
        ("NOT_FOUND", ["hostId"])
    ]  # no tenant's matter
    assert pool.scene.rows()["job"] == rows["job"]
    assert pool.centre.snapshot_of_world() == before
    asked = {"hostId": other, "idempotencyKey": "once", **given}
    first = pool.world.admin.do("serverRelocate", "job { id }", **asked)
    pool.world.work()
    assert pool.shown()["host"]["name"] == "other"
    assert pool.world.admin.do("serverRelocate", "job { id }", **asked) == first
    there = pool.world.admin.do("serverRelocate", "job { id }", hostId=other, **given)
    pool.world.work()
    assert (pool.world.job(there["job"]["id"]).error or {})["code"] == "NO_VALID_HOST"  # it is there already
    pool.scene.do_and_work("serverSuspend", id=pool.server)
    assert pool.boss.refused("serverRelocate", **given) == [("INVALID_STATE", ["serverId"])]


def test_the_plan_names_hosts_and_what_a_host_cannot_do(pool: Pool) -> None:
    rows = pool.scene.rows()
    given = {"serverId": pool.server}
    plan = pool.world.admin.ok(PLAN, input={**given, "live": False})["serverRelocatePlan"]
    assert (plan["possible"], plan["interrupts"], plan["userErrors"]) == (True, True, [])
    assert {each["host"]["name"]: each["fits"] for each in plan["decision"]["verdicts"]} == {"h": False, "other": True}
    assert not pool.boss.ok(PLAN, input=given)["serverRelocatePlan"]["interrupts"]

    row = pool.world.host_row("h")

    def alone(session: Any) -> None:
        """As on a host that hands no machines on, such as one of KVM."""
        host = session.get_one(type(row), row.id)
        host.capabilities = [each for each in host.capabilities if each != "RELOCATE"]
        host.pool = None

    pool.world.db.run(alone)
    rows["event"] += 1
    lacks = pool.boss.ok(PLAN, input=given)["serverRelocatePlan"]
    (error,) = lacks["userErrors"]
    assert (error["code"], error["path"], error["capability"]) == ("UNSUPPORTED", ["serverId"], "RELOCATE")
    assert "serverMigrate" in error["message"]
    assert pool.boss.refused("serverRelocate", **given) == [("UNSUPPORTED", ["serverId"])]
    assert pool.scene.rows() == rows


def test_no_move_breaks_a_group(pool: Pool) -> None:
    """Two that are kept apart are on the two hosts: neither can go to the other's."""
    group = pool.scene.alice.do("serverGroupCreate", "serverGroup { id }", name="apart", policy="ANTI_AFFINITY")
    members = [pool.scene.server(groupId=group["serverGroup"]["id"]) for _ in range(2)]
    for member in members:
        made = pool.boss.do("serverRelocate", "job { id }", serverId=member)
        pool.world.work()
        assert (pool.world.job(made["job"]["id"]).error or {})["code"] == "NO_VALID_HOST"


def test_one_move_at_a_time_and_none_while_a_size_waits(pool: Pool) -> None:
    size = {"vcpus": 2, "ramMib": 768, "diskGib": 3}
    large = pool.world.admin.do("flavorCreate", "flavor { id }", name="large", **size)["flavor"]["id"]
    pool.scene.do_and_work("serverResize", serverId=pool.server, flavorId=large)
    for mutation in ("serverRelocate", "serverMigrate"):
        given = {"toHypervisor": "SIM"} if mutation == "serverMigrate" else {}
        assert pool.boss.refused(mutation, serverId=pool.server, **given) == [("INVALID_STATE", ["serverId"])]
    pool.scene.do_and_work("serverResizeConfirm", serverId=pool.server)
    pool.scene.do_and_work("serverMigrate", serverId=pool.server, toHypervisor="SIM")
    for mutation in ("serverRelocate", "serverResize"):
        given = {"flavorId": pool.scene.flavor} if mutation == "serverResize" else {}
        assert pool.boss.refused(mutation, serverId=pool.server, **given) == [("IN_USE", ["serverId"])]
