from __future__ import annotations

from typing import Any

import pytest

from drivers.api import HostAtFault, Refused, Transient
from gateway.compute.server_state import ServerStatus
from gateway.kernel.access import Role
from tests.compute.scene import Scene
from tests.world import World

SERVER = """server { id name status statusReason vcpus ramMib allowedActions addresses tags metadata { key value }
  flavor { name } image { name } ports { macAddress network { name } } volumes { name device status sizeGib }
  launchedAt activeJob { kind } }"""
GET = f"query($id: ID!) {{ {SERVER.replace('server {', 'server(id: $id) {', 1)} }}"


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


def test_a_server_is_made_and_runs(scene: Scene) -> None:
    made = scene.alice.do(
        "serverCreate", f"{SERVER} job {{ id status }}", name="web", flavorId=scene.flavor, imageId=scene.image,
        networks=[{"networkId": scene.network}], volumes=[{"sizeGib": 3}], tags=["a", "b", "a"],
        metadata=[{"key": "k", "value": "v"}],
    )  # fmt: skip
    assert made["server"]["status"] == "BUILDING"
    assert made["server"]["activeJob"] == {"kind": "server.create"}
    assert made["server"]["tags"] == ["a", "b"]
    scene.world.work()
    job = scene.alice.ok(
        "query($id: ID!) { job(id: $id) { status progress error { code } steps { name status } target { id } } }",
        id=made["job"]["id"],
    )["job"]
    assert job["status"] == "SUCCEEDED"
    assert job["target"] == {"id": made["server"]["id"]}
    assert [each["name"] for each in job["steps"]] == [
        "place", "network", "image", "disks", "machine", "power", "active",
    ]  # fmt: skip
    assert {each["status"] for each in job["steps"]} == {"DONE"}
    server = scene.alice.ok(GET, id=made["server"]["id"])["server"]
    assert server["status"] == "ACTIVE"
    assert server["launchedAt"] is not None
    assert server["addresses"] == ["10.0.0.2"]
    assert server["volumes"] == [{"name": "web-vdb", "device": "vdb", "status": "IN_USE", "sizeGib": 3}]
    assert server["metadata"] == [{"key": "k", "value": "v"}]
    world = scene.centre.snapshot_of_world()
    assert len(world.machines) == 1


def test_deleting_leaves_nothing(scene: Scene) -> None:
    before = scene.centre.snapshot_of_world()
    server = scene.server(volumes=[{"sizeGib": 1, "deleteWithServer": True}, {"sizeGib": 2}])
    scene.do_and_work("serverDelete", id=server)
    assert scene.alice.ok(GET, id=server)["server"] is None
    (kept,) = scene.alice.ok("{ volumes { nodes { id sizeGib status } } }")["volumes"]["nodes"]
    assert (kept["sizeGib"], kept["status"]) == (2, "AVAILABLE")
    assert scene.alice.ok("{ ports { nodes { id } } }")["ports"]["nodes"] == []
    scene.do_and_work("volumeDelete", id=kept["id"])
    scene.world.reconcile()
    after = scene.centre.snapshot_of_world()
    assert (after.machines, after.volumes) == (before.machines, before.volumes)
    assert scene.used() == {"SERVERS": 0, "VCPUS": 0, "RAM_MIB": 0, "VOLUMES": 0, "VOLUME_GIB": 0, "PORTS": 0}
    host = scene.world.host_row("h")
    assert (host.used_vcpus, host.used_ram_mib, host.used_disk_gib) == (0, 0, 0)


def test_stop_start_reboot(scene: Scene) -> None:
    server = scene.server()
    scene.do_and_work("serverStop", id=server)
    found = scene.alice.ok(GET, id=server)["server"]
    assert (found["status"], found["allowedActions"]) == (
        "STOPPED",
        [
            "START", "DELETE", "ATTACH_VOLUME", "DETACH_VOLUME", "UPDATE", "ATTACH_PORT", "DETACH_PORT", "RESIZE",
            "RELOCATE", "SNAPSHOT", "REVERT",
        ],
    )  # fmt: skip
    scene.do_and_work("serverStop", id=server)
    assert scene.alice.refused("serverReboot", id=server) == [("INVALID_STATE", ["id"])]
    scene.do_and_work("serverStart", id=server)
    assert scene.status(server) == "ACTIVE"
    scene.do_and_work("serverReboot", id=server, hard=True)
    assert scene.status(server) == "ACTIVE"


def test_a_guest_that_ignores_shutdown_is_powered_off(scene: Scene) -> None:
    server = scene.server()
    scene.centre.ignore_shutdown()
    job = scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
    assert scene.status(server) == "STOPPED"
    assert scene.world.job(job).told[0].message == "Powered off."


def test_stopped_behind_our_back_is_seen(scene: Scene) -> None:
    server = scene.server()
    scene.centre.stop(scene.world.uid(server))
    scene.world.reconcile("servers")
    found = scene.alice.ok(GET, id=server)["server"]
    assert found["status"] == "STOPPED"
    assert "outside the cloud" in found["statusReason"]
    scene.do_and_work("serverStart", id=server)
    assert scene.alice.ok(GET, id=server)["server"]["statusReason"] is None


def test_a_host_that_goes_away_shows_and_comes_back(scene: Scene) -> None:
    server = scene.server()
    scene.centre.down(Transient)
    scene.world.reconcile("hosts")
    scene.world.reconcile("servers")
    assert scene.status(server) == "UNKNOWN"
    scene.centre.up()
    scene.world.reconcile("hosts")
    scene.world.reconcile("servers")
    assert scene.status(server) == "ACTIVE"


def test_a_host_at_fault_is_left_for_another(scene: Scene) -> None:
    other = scene.world.host("h-other", vcpus=2, ram_mib=4096, disk_gib=50)
    scene.centre.fail("machines.ensure", HostAtFault, times=1)
    before = scene.centre.snapshot_of_world()
    server = scene.server(networks=[{"networkId": scene.network}])
    assert scene.status(server) == "ACTIVE"
    assert len(other.snapshot_of_world().machines) == 1
    assert scene.centre.snapshot_of_world().machines == before.machines
    host = scene.world.host_row("h")
    assert (host.used_vcpus, host.used_ram_mib, host.used_disk_gib) == (0, 0, 0)


def test_a_refusal_by_the_hypervisor_ends_in_error_and_gives_everything_back(scene: Scene) -> None:
    before = scene.centre.snapshot_of_world()
    scene.centre.fail("machines.ensure", Refused, times=1)
    made = scene.create(networks=[{"networkId": scene.network}], volumes=[{"sizeGib": 1}])
    scene.world.work()
    found = scene.alice.ok(GET, id=made["server"]["id"])["server"]
    assert (found["status"], found["ports"], found["volumes"]) == ("ERROR", [], [])
    assert found["statusReason"]
    job = scene.alice.ok("query($id: ID!) { job(id: $id) { status error { code } } }", id=made["job"]["id"])["job"]
    assert job == {"status": "FAILED", "error": {"code": "HYPERVISOR_ERROR"}}
    after = scene.centre.snapshot_of_world()
    assert (after.machines, after.volumes) == (before.machines, before.volumes)
    assert scene.used() == {"SERVERS": 0, "VCPUS": 0, "RAM_MIB": 0, "VOLUMES": 0, "VOLUME_GIB": 0, "PORTS": 0}
    scene.do_and_work("serverDelete", id=made["server"]["id"])
    assert scene.alice.ok(GET, id=made["server"]["id"])["server"] is None
    assert scene.used()["SERVERS"] == 0


def test_no_valid_host_explains(scene: Scene) -> None:
    big = scene.world.admin.do("flavorCreate", "flavor { id }", name="big", vcpus=1, ramMib=6000, diskGib=1)
    made = scene.create(flavorId=big["flavor"]["id"])
    scene.world.work()
    ask = """query($id: ID!) { job(id: $id) { status error { code message ... on NoValidHost { decision {
      considered counts { constraint hosts } smallestChange { message }
      verdicts { host { name } reasons { constraint } } } } } } }"""
    job = scene.alice.ok(ask, id=made["job"]["id"])["job"]
    assert job["status"] == "FAILED"
    assert job["error"]["decision"] == {
        "considered": 1,
        "counts": [{"constraint": "RAM_MIB", "hosts": 1}],
        "smallestChange": {"message": "ask for 1904 MiB of memory less"},
        "verdicts": None,
    }
    told = scene.world.admin.ok(ask, id=made["job"]["id"])["job"]["error"]["decision"]
    assert told["verdicts"] == [{"host": {"name": "h"}, "reasons": [{"constraint": "RAM_MIB"}]}]


def test_the_plan_tells_and_changes_nothing(scene: Scene) -> None:
    plan = """query($input: ServerCreateInput!) { serverCreatePlan(input: $input) { possible addresses
      quota { resource limit used } decision { considered counts { constraint hosts } chosen { name } }
      userErrors { code path } } }"""
    given = {"name": "x", "flavorId": scene.flavor, "imageId": scene.image, "networks": [{"networkId": scene.network}]}
    before = scene.rows()
    told = scene.alice.ok(plan, input=given)["serverCreatePlan"]
    assert told["possible"] is True
    assert told["addresses"] == ["10.0.0.2"]
    assert told["decision"] == {"considered": 1, "counts": [], "chosen": None}
    assert {"resource": "SERVERS", "limit": 20, "used": 1} in told["quota"]
    named = scene.world.admin.ok(plan, input={**given, "tenantId": scene.tenant})["serverCreatePlan"]
    assert named["decision"]["chosen"] == {"name": "h"}
    refused = scene.alice.ok(plan, input={**given, "count": 21})["serverCreatePlan"]
    assert refused["possible"] is False
    assert refused["userErrors"] == [{"code": "QUOTA_EXCEEDED", "path": None}]
    assert scene.rows() == before


def test_other_tenants_see_nothing_and_change_nothing(scene: Scene) -> None:
    server = scene.server()
    mallory = scene.world.member(scene.world.tenant(), Role.MANAGER)
    assert mallory.ok(GET, id=server)["server"] is None
    assert mallory.ok("{ servers { totalCount nodes { id } } }")["servers"] == {"totalCount": 0, "nodes": []}
    assert mallory.ok("query($id: ID!) { node(id: $id) { id } }", id=server)["node"] is None
    for mutation in ("serverStop", "serverStart", "serverReboot", "serverDelete", "serverUpdate"):
        assert mallory.refused(mutation, id=server) == [("NOT_FOUND", ["id"])]
    reader = scene.world.member(scene.tenant_row, Role.READER)
    assert reader.ok(GET, id=server)["server"]["status"] == "ACTIVE"
    assert reader.refused("serverStop", id=server) == [("FORBIDDEN", None)]
    assert scene.status(server) == "ACTIVE"


def test_deleting_while_it_is_being_made(scene: Scene) -> None:
    made = scene.create()
    scene.alice.do("serverDelete", "job { id }", id=made["server"]["id"])
    scene.world.work()
    assert scene.alice.ok(GET, id=made["server"]["id"])["server"] is None
    job = scene.alice.ok("query($id: ID!) { job(id: $id) { status } }", id=made["job"]["id"])["job"]
    assert job["status"] == "CANCELLED"
    assert scene.used()["SERVERS"] == 0
    assert len(scene.centre.snapshot_of_world().machines) == 0


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"name": ""}, ("INVALID", ["name"])),
        ({"name": "a\nb"}, ("INVALID", ["name"])),
        ({"count": 0}, ("INVALID", ["count"])),
        ({"imageId": None}, ("INVALID", None)),
        ({"flavorId": "flavor_00000000000000000000000000"}, ("NOT_FOUND", ["flavorId"])),
        ({"flavorId": "nonsense"}, ("NOT_FOUND", ["flavorId"])),
        ({"networks": [{}]}, ("INVALID", ["networks", "0"])),
        (
            {"networks": [{"networkId": "network_00000000000000000000000000"}]},
            ("NOT_FOUND", ["networks", "0", "networkId"]),
        ),
        ({"userData": "x" * 65537}, ("INVALID", ["userData"])),
        ({"metadata": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}, ("INVALID", ["metadata"])),
        ({"volumes": [{"sizeGib": 1, "volumeId": "volume_00000000000000000000000000"}]}, ("INVALID", ["volumes", "0"])),
    ],
)
def test_wrong_input_changes_nothing(
    scene: Scene, change: dict[str, Any], refusal: tuple[str, list[str] | None]
) -> None:
    given = {"name": "x", "flavorId": scene.flavor, "imageId": scene.image, **change}
    before = scene.rows()
    assert scene.alice.refused("serverCreate", **given) == [refusal]
    assert scene.rows() == before


def test_every_status_has_a_way_out() -> None:
    from gateway.compute.server_state import ALLOWED, Action

    assert all(Action.DELETE in ALLOWED[each] for each in ServerStatus if each is not ServerStatus.DELETING)
