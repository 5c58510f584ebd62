from __future__ import annotations

from typing import Any

import pytest

from drivers.api import HostAtFault, Refused, Transient
from gateway.kernel.access import Role
from tests.compute.scene import Scene
from tests.world import World

GET = """query($id: ID!) { volume(id: $id) { status statusReason sizeGib device server { id } snapshot { id }
  image { id } jobs { nodes { kind status } } } }"""


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


def volume(scene: Scene, **given: Any) -> str:
    """A volume that is made; its id."""
    made = scene.alice.do("volumeCreate", "volume { id }", **{"name": "v", "sizeGib": 2, **given})
    scene.world.work()
    found: str = made["volume"]["id"]
    assert look(scene, found)["status"] == "AVAILABLE"
    return found


def look(scene: Scene, volume_id: str) -> dict[str, Any]:
    """What the owner sees of a volume."""
    found: dict[str, Any] = scene.alice.ok(GET, id=volume_id)["volume"]
    return found


def test_a_blank_volume_lives_and_dies(scene: Scene) -> None:
    made = volume(scene)
    assert scene.used()["VOLUMES"] == 1
    assert scene.used()["VOLUME_GIB"] == 2
    assert scene.world.host_row("h").used_disk_gib == 2
    scene.do_and_work("volumeDelete", id=made)
    assert look(scene, made) is None
    assert (scene.used()["VOLUMES"], scene.used()["VOLUME_GIB"]) == (0, 0)
    assert scene.world.host_row("h").used_disk_gib == 0
    assert scene.centre.snapshot_of_world().volumes == {}


def test_a_volume_is_attached_and_detached_while_the_guest_runs(scene: Scene) -> None:
    server, made = scene.server(), volume(scene)
    attached = scene.alice.do(
        "volumeAttach", "volume { status device server { id } } server { id } job { id }",
        volumeId=made, serverId=server,
    )  # fmt: skip
    assert attached["volume"] == {"status": "ATTACHING", "device": "vdb", "server": {"id": server}}
    scene.world.work()
    assert look(scene, made)["status"] == "IN_USE"
    assert scene.alice.refused("volumeDelete", id=made) == [("IN_USE", ["id"])]
    assert scene.alice.refused("volumeAttach", volumeId=made, serverId=server) == [("INVALID_STATE", ["volumeId"])]
    scene.do_and_work("volumeDetach", volumeId=made)
    found = look(scene, made)
    assert (found["status"], found["device"], found["server"]) == ("AVAILABLE", None, None)


def test_the_content_stays_over_detach_and_attach(scene: Scene) -> None:
    server, made = scene.server(), volume(scene)
    scene.centre.write(scene.world.uid(made), b"hello")
    content = scene.centre.content(scene.world.uid(made))
    for _ in range(2):
        scene.do_and_work("volumeAttach", volumeId=made, serverId=server)
        scene.do_and_work("serverReboot", id=server, hard=True)
        scene.do_and_work("volumeDetach", volumeId=made)
    assert scene.centre.content(scene.world.uid(made)) == content


def test_a_guest_that_does_not_let_go_keeps_its_volume(scene: Scene) -> None:
    server, made = scene.server(), volume(scene)
    scene.do_and_work("volumeAttach", volumeId=made, serverId=server)
    scene.centre.fail("machines.detach", Refused, times=None)
    job = scene.alice.do("volumeDetach", "job { id }", volumeId=made)["job"]["id"]
    scene.world.work()
    assert scene.world.job(job).status.value == "FAILED"
    assert look(scene, made)["status"] == "IN_USE"
    scene.centre.heal()
    scene.do_and_work("volumeDetach", volumeId=made)
    assert look(scene, made)["status"] == "AVAILABLE"


@pytest.mark.parametrize("attached", [False, True])
def test_a_volume_grows_and_never_shrinks(scene: Scene, attached: bool) -> None:  # noqa: FBT001 - a parameter of the test
    server, made = scene.server(), volume(scene)
    if attached:
        scene.do_and_work("volumeAttach", volumeId=made, serverId=server)
    scene.do_and_work("volumeExtend", id=made, sizeGib=5)
    assert look(scene, made)["sizeGib"] == 5
    assert look(scene, made)["status"] == ("IN_USE" if attached else "AVAILABLE")
    assert scene.used()["VOLUME_GIB"] == 5
    assert scene.world.host_row("h").used_disk_gib == 5 + 2
    assert scene.alice.refused("volumeExtend", id=made, sizeGib=5) == [("INVALID", ["sizeGib"])]
    (found,) = [v for k, v in scene.centre.snapshot_of_world().volumes.items() if str(k) == str(scene.world.uid(made))]
    assert found is not None


def test_an_extension_that_fails_gives_everything_back(scene: Scene) -> None:
    made = volume(scene)
    scene.centre.fail("volumes.extend", Refused, times=1)
    job = scene.alice.do("volumeExtend", "job { id }", id=made, sizeGib=9)["job"]["id"]
    scene.world.work()
    assert scene.world.job(job).status.value == "FAILED"
    assert (look(scene, made)["sizeGib"], look(scene, made)["status"]) == (2, "AVAILABLE")
    assert scene.used()["VOLUME_GIB"] == 2
    assert scene.world.host_row("h").used_disk_gib == 2
    too_big = scene.alice.do("volumeExtend", "job { id }", id=made, sizeGib=1000)["job"]["id"]
    scene.world.work()
    assert scene.world.job(too_big).error["code"] == "NO_VALID_HOST"  # type: ignore[index]  # a failed job has one
    assert scene.used()["VOLUME_GIB"] == 2


def test_a_snapshot_outlives_its_volume_and_gives_new_ones(scene: Scene) -> None:
    made = volume(scene)
    scene.centre.write(scene.world.uid(made), b"before")
    content = scene.centre.content(scene.world.uid(made))
    taken = scene.alice.do("snapshotCreate", "snapshot { id status }", volumeId=made, name="s")["snapshot"]
    assert taken["status"] == "CREATING"
    scene.world.work()
    scene.centre.write(scene.world.uid(made), b"after")
    scene.do_and_work("volumeDelete", id=made)
    ask = "query($id: ID!) { snapshot(id: $id) { status sizeGib volume { id } } }"
    assert scene.alice.ok(ask, id=taken["id"])["snapshot"] == {"status": "AVAILABLE", "sizeGib": 2, "volume": None}
    too_small = scene.alice.refused("volumeCreate", name="x", snapshotId=taken["id"], sizeGib=1)
    assert too_small == [("INVALID", ["sizeGib"])]
    copy = volume(scene, snapshotId=taken["id"], sizeGib=3)
    assert scene.centre.content(scene.world.uid(copy)) == content
    scene.do_and_work("snapshotDelete", id=taken["id"])
    assert look(scene, copy)["status"] == "AVAILABLE"
    assert scene.alice.ok(ask, id=taken["id"])["snapshot"] is None
    scene.do_and_work("volumeDelete", id=copy)
    assert scene.world.host_row("h").used_disk_gib == 0


def test_a_volume_from_an_image_boots_a_server(scene: Scene) -> None:
    boot = volume(scene, imageId=scene.image)
    server = scene.server(imageId=None, bootVolumeId=boot)
    found = look(scene, boot)
    assert (found["status"], found["device"]) == ("IN_USE", "vda")
    assert scene.alice.refused("volumeDetach", volumeId=boot) == [("INVALID", ["volumeId"])]
    scene.do_and_work("serverDelete", id=server)
    assert look(scene, boot)["status"] == "AVAILABLE"


def test_a_host_at_fault_is_left_for_another(scene: Scene) -> None:
    scene.world.host("h-two", disk_gib=50)
    scene.centre.fail("volumes.ensure", HostAtFault, times=1)
    volume(scene)
    assert scene.world.host_row("h").used_disk_gib == 0
    assert scene.world.host_row("h-two").used_disk_gib == 2


def test_a_failed_volume_shows_why_and_can_be_deleted(scene: Scene) -> None:
    scene.centre.fail("volumes.ensure", Refused, times=1)
    made = scene.alice.do("volumeCreate", "volume { id }", name="v", sizeGib=2)["volume"]["id"]
    scene.world.work()
    found = look(scene, made)
    assert (found["status"], found["jobs"]["nodes"]) == ("ERROR", [{"kind": "volume.create", "status": "FAILED"}])
    assert found["statusReason"]
    assert scene.world.host_row("h").used_disk_gib == 0
    scene.do_and_work("volumeDelete", id=made)
    assert scene.used()["VOLUMES"] == 0


def test_a_deletion_waits_for_its_host(scene: Scene) -> None:
    made = volume(scene)
    scene.centre.fail("volumes.remove", Transient, times=8)
    scene.do_and_work("volumeDelete", id=made)
    assert look(scene, made) is None


def test_a_volume_on_another_host_cannot_be_attached(scene: Scene) -> None:
    server = scene.server()
    scene.world.admin.do("hostUpdate", "host { id }", id=host_id(scene, "h"), enabled=False)
    scene.world.host("h-far")
    made = volume(scene)
    assert scene.alice.refused("volumeAttach", volumeId=made, serverId=server) == [("NO_VALID_HOST", ["volumeId"])]
    assert look(scene, made)["status"] == "AVAILABLE"


def host_id(scene: Scene, name: str) -> str:
    """A host's id."""
    found = scene.world.admin.ok("query($n: String) { hosts(filter: {name: $n}) { nodes { id } } }", n=name)
    return str(found["hosts"]["nodes"][0]["id"])


def test_other_tenants_see_nothing_and_change_nothing(scene: Scene) -> None:
    made = volume(scene)
    mallory = scene.world.member(scene.world.tenant(), Role.MANAGER)
    assert mallory.ok(GET, id=made)["volume"] is None
    assert mallory.ok("{ volumes { totalCount } }")["volumes"]["totalCount"] == 0
    before = scene.rows()
    assert mallory.refused("volumeDelete", id=made) == [("NOT_FOUND", ["id"])]
    assert mallory.refused("volumeExtend", id=made, sizeGib=9) == [("NOT_FOUND", ["id"])]
    assert mallory.refused("snapshotCreate", volumeId=made, name="x") == [("NOT_FOUND", ["volumeId"])]
    reader = scene.world.member(scene.tenant_row, Role.READER)
    assert reader.refused("volumeDelete", id=made) == [("FORBIDDEN", None)]
    assert scene.rows() == {**before, **{k: scene.rows()[k] for k in ("user_account", "membership", "event")}}
    assert look(scene, made)["status"] == "AVAILABLE"


def test_quota_is_exact(scene: Scene) -> None:
    scene.world.admin.do(
        "quotaSet", "__typename", tenantId=scene.tenant, limits=[{"resource": "VOLUME_GIB", "limit": 5}]
    )
    volume(scene)
    assert scene.alice.refused("volumeCreate", name="v", sizeGib=4) == [("QUOTA_EXCEEDED", None)]
    volume(scene, sizeGib=3)
    assert scene.used()["VOLUME_GIB"] == 5
