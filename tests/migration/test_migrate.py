"""Moving servers between simulated hosts: what people ask, what the hosts have then, and what is counted."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.sim import DataCentre
from tests.compute.scene import Scene
from tests.world import World

PLAN = """query($input: ServerMigrateInput!) { serverMigratePlan(input: $input) {
  possible diskGib notes { kind message } decision { counts { constraint hosts } } userErrors { code path } } }"""
SHOWN = """query($id: ID!) { server(id: $id) { status devices allowedActions host { name }
  volumes { status } migrations { id status statusReason seen wasRunning host { name }
  disks { volumeId device sizeBytes sha256Before sha256After } notes { kind } } } }"""


@pytest.fixture
def scene(world: World) -> Scene:
    """With the smallest disks there are: each is read and hashed a few times, as a host's would be."""
    found = Scene.make(world)
    made = world.admin.do("flavorCreate", "flavor { id }", name="tiny", vcpus=1, ramMib=512, diskGib=1)
    found.flavor = made["flavor"]["id"]
    return found


@pytest.fixture
def other(scene: Scene) -> DataCentre:
    """Another host with room for the server."""
    return scene.world.host("other", vcpus=4, ram_mib=4096, disk_gib=100)


def shown(scene: Scene, server: str) -> dict[str, Any]:
    found: dict[str, Any] = scene.world.admin.ok(SHOWN, id=server)["server"]
    return found


def made(scene: Scene, **given: Any) -> str:
    return scene.server(networks=[{"networkId": scene.network}], volumes=[{"sizeGib": 1}], **given)


def used(scene: Scene, *names: str) -> list[tuple[int, int, int]]:
    rows = [scene.world.host_row(name) for name in names]
    return [(row.used_vcpus, row.used_ram_mib, row.used_disk_gib) for row in rows]


def test_a_server_goes_with_all_it_has_and_is_confirmed(scene: Scene, other: DataCentre) -> None:
    server = made(scene)
    uid = scene.world.uid(server)
    before = scene.centre.snapshot_of_world()
    (port,) = before.ports.values()
    quotas = scene.used()
    scene.do_and_work("serverMigrate", serverId=server, toHypervisor="SIM")
    found = shown(scene, server)
    (migration,) = found["migrations"]
    assert (found["status"], found["host"]["name"]) == ("ACTIVE", "other")
    assert (migration["status"], migration["wasRunning"], migration["host"]["name"]) == ("UNCONFIRMED", True, "h")
    assert [(each["device"], each["sizeBytes"]) for each in migration["disks"]] == [("vda", 1 << 30), ("vdb", 1 << 30)]
    assert all(each["sha256Before"] == each["sha256After"] for each in migration["disks"])
    assert migration["disks"][0]["volumeId"] is None
    there = other.snapshot_of_world()
    assert there.machines[str(uid)].power == "RUNNING"
    assert there.ports[port.id] == port
    assert {key: each.content for key, each in there.volumes.items()} == {
        key: each.content for key, each in before.volumes.items()
    }
    assert scene.centre.snapshot_of_world().machines[str(uid)].power == "OFF"
    assert used(scene, "h", "other") == [(1, 512, 2), (1, 512, 2)]
    assert [each["status"] for each in found["volumes"]] == ["HELD"]
    assert not {"ATTACH_VOLUME", "DETACH_VOLUME"} & set(found["allowedActions"])
    scene.do_and_work("serverMigrateConfirm", serverId=server)
    found = shown(scene, server)
    assert found["migrations"][0]["status"] == "CONFIRMED"
    assert [each["status"] for each in found["volumes"]] == ["IN_USE"]
    empty = scene.centre.snapshot_of_world()
    assert (empty.machines, empty.volumes, empty.ports, empty.networks) == ({}, {}, {}, {})
    assert used(scene, "h", "other") == [(0, 0, 0), (1, 512, 2)]
    assert scene.used() == quotas
    scene.do_and_work("serverDelete", id=server)
    assert used(scene, "h", "other") == [(0, 0, 0), (0, 0, 1)]  # the volume that stays
