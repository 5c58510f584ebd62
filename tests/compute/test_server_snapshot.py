"""Snapshots of whole servers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlmodel import select

from drivers import registry, sim
from drivers.api import Capability, Deadline, Refused
from gateway.kernel.access import Role
from gateway.metering.usage import Interval, Metered
from tests.compute.scene import Scene
from tests.statements import counted
from tests.world import World

SHOW = (
    "query($id: ID!) { serverSnapshot(id: $id) { name status statusReason withMemory quiesced current sizeGib "
    "parent { id } children { id } server { id } } }"
)
OF_SERVER = (
    "query($id: ID!) { server(id: $id) { status allowedActions volumes { id status } "
    "snapshots { totalCount nodes { id current parent { id } } } } }"
)
HELD_BACK = {"ATTACH_VOLUME", "DETACH_VOLUME", "ATTACH_PORT", "DETACH_PORT", "RESIZE", "RELOCATE"}


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


def take(scene: Scene, server: str, name: str = "n", **given: Any) -> str:
    """Take a snapshot and carry it out; its id."""
    made = scene.alice.do(
        "serverSnapshotCreate", "serverSnapshot { id status } job { id }", serverId=server, name=name, **given
    )
    assert made["serverSnapshot"]["status"] == "CREATING"
    scene.world.work()
    kept = scene.world.job(made["job"]["id"])
    assert kept.status.value == "SUCCEEDED", kept.error
    snapshot: str = made["serverSnapshot"]["id"]
    return snapshot


def show(scene: Scene, snapshot: str) -> dict[str, Any]:
    found: dict[str, Any] = scene.alice.ok(SHOW, id=snapshot)["serverSnapshot"]
    return found


def of_server(scene: Scene, server: str) -> dict[str, Any]:
    found: dict[str, Any] = scene.alice.ok(OF_SERVER, id=server)["server"]
    return found


def tree(scene: Scene, server: str) -> list[tuple[str, str | None, bool]]:
    """Id, parent and whether it is the current one, oldest first."""
    nodes = of_server(scene, server)["snapshots"]["nodes"]
    return [(each["id"], each["parent"] and each["parent"]["id"], each["current"]) for each in nodes]


def root(scene: Scene, server: str) -> UUID:
    """The server's root disk."""
    ((volume, _),) = scene.centre.snapshot_of_world().machines[str(scene.world.uid(server))].disks.items()
    return UUID(volume)


def used(scene: Scene) -> tuple[int, int]:
    """Server snapshots and GiB that are taken of the quotas."""
    asked = "query($id: ID!) { tenant(id: $id) { quotas { resource used } } }"
    quotas = scene.world.admin.ok(asked, id=scene.tenant)["tenant"]["quotas"]
    told = {each["resource"]: each["used"] for each in quotas}
    return told["SERVER_SNAPSHOTS"], told["VOLUME_GIB"]


def metered(scene: Scene) -> list[int]:
    """The sizes of snapshots that are being counted."""
    with scene.world.db.read() as session:
        open_ones = select(Interval.amount).where(Interval.resource == Metered.SNAPSHOT_GIB, Interval.ended_at == None)  # noqa: E711 - SQL
        return list(session.exec(open_ones))


def room(scene: Scene) -> int:
    """What is promised of the host's disk."""
    return scene.world.host_row("h").used_disk_gib


def test_a_server_goes_back_and_its_disk_with_it(scene: Scene) -> None:
    """Write A, snapshot, write B, go back: A. Without memory it is off, and nobody is told that somebody stopped it."""
    server = scene.server()
    before = room(scene)
    scene.centre.write(root(scene, server), b"A")
    content = scene.centre.content(root(scene, server))
    snapshot = take(scene, server)
    assert show(scene, snapshot) == {
        "name": "n", "status": "AVAILABLE", "statusReason": None, "withMemory": False, "quiesced": False,
        "current": True, "sizeGib": 3, "parent": None, "children": [], "server": {"id": server},
    }  # fmt: skip
    assert (used(scene), metered(scene), room(scene) - before) == ((1, 3), [3], 3)
    scene.centre.write(root(scene, server), b"B")
    assert scene.centre.content(root(scene, server)) != content
    scene.do_and_work("serverSnapshotRevert", id=snapshot)
    assert scene.centre.content(root(scene, server)) == content
    assert scene.status(server) == "STOPPED"
    reason = scene.alice.ok("query($id: ID!) { server(id: $id) { statusReason } }", id=server)["server"]
    assert reason == {"statusReason": None}
    scene.world.reconcile("servers", "server_snapshots")
    assert scene.status(server) == "STOPPED"
    scene.do_and_work("serverStart", id=server)
    scene.do_and_work("serverSnapshotDelete", id=snapshot)
    assert show(scene, snapshot) is None
    assert (used(scene), metered(scene), room(scene)) == ((0, 0), [], before)


def test_what_ran_runs_on(scene: Scene) -> None:
    server = scene.server()
    snapshot = take(scene, server, withMemory=True)
    assert show(scene, snapshot)["withMemory"] is True
    scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
    scene.do_and_work("serverSnapshotRevert", id=snapshot)
    assert scene.status(server) == "ACTIVE"
    scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
    off = take(scene, server, withMemory=True)
    assert (show(scene, off)["withMemory"], show(scene, off)["sizeGib"]) == (False, 2)


def test_a_guest_that_is_asked_holds_still_and_one_that_cannot_is_told(scene: Scene) -> None:
    server = scene.server()
    assert show(scene, take(scene, server, quiesce=True))["quiesced"] is True
    scene.centre.ignore_quiesce(scene.world.uid(server))
    assert show(scene, take(scene, server, quiesce=True))["quiesced"] is False
    wanted = {"serverId": server, "name": "n", "quiesce": True, "withMemory": True}
    assert scene.alice.refused("serverSnapshotCreate", **wanted) == [("INVALID", None)]


def test_the_middle_of_a_tree_goes_alone(scene: Scene) -> None:
    server = scene.server()
    one, two, three = (take(scene, server, name) for name in ("one", "two", "three"))
    assert tree(scene, server) == [(one, None, False), (two, one, False), (three, two, True)]
    scene.do_and_work("serverSnapshotRevert", id=two)
    four = take(scene, server, "four")
    assert tree(scene, server) == [(one, None, False), (two, one, False), (three, two, False), (four, two, True)]
    assert {each["id"] for each in show(scene, two)["children"]} == {three, four}
    scene.do_and_work("serverSnapshotDelete", id=two)
    assert tree(scene, server) == [(one, None, False), (three, one, False), (four, one, True)]
    scene.do_and_work("serverSnapshotDelete", id=four)
    assert tree(scene, server) == [(one, None, True), (three, one, False)]
    scene.do_and_work("serverSnapshotRevert", id=three)
    assert tree(scene, server) == [(one, None, False), (three, one, True)]


def test_devices_and_size_stay_while_there_are_snapshots(scene: Scene) -> None:
    server = scene.server(networks=[{"networkId": scene.network}], volumes=[{"sizeGib": 1}])
    larger = scene.world.admin.do("flavorCreate", "flavor { id }", name="big", vcpus=2, ramMib=1024, diskGib=2)
    free = scene.alice.do("volumeCreate", "volume { id }", name="v", sizeGib=1)["volume"]["id"]
    port = scene.alice.ok("query($id: ID!) { server(id: $id) { ports { id } } }", id=server)["server"]["ports"][0]["id"]
    scene.world.work()
    snapshot = take(scene, server)
    seen = of_server(scene, server)
    (held,) = seen["volumes"]
    assert held["status"] == "HELD"
    assert HELD_BACK.isdisjoint(seen["allowedActions"])
    assert {"SNAPSHOT", "REVERT"} <= set(seen["allowedActions"])
    before = scene.rows()
    refused = scene.alice.refused
    assert refused("volumeAttach", serverId=server, volumeId=free) == [("IN_USE", ["serverId"])]
    assert refused("volumeDetach", volumeId=held["id"]) == [("IN_USE", ["volumeId"])]
    assert refused("volumeExtend", id=held["id"], sizeGib=9) == [("INVALID_STATE", ["id"])]
    assert refused("snapshotCreate", volumeId=held["id"], name="s") == [("INVALID_STATE", ["volumeId"])]
    assert refused("volumeDelete", id=held["id"]) == [("IN_USE", ["id"])]
    assert refused("portAttach", serverId=server, networkId=scene.network) == [("IN_USE", ["serverId"])]
    assert refused("portDetach", portId=port, evenIfLast=True) == [("IN_USE", ["portId"])]
    assert refused("serverResize", serverId=server, flavorId=larger["flavor"]["id"]) == [("IN_USE", ["serverId"])]
    assert refused("serverMigrate", serverId=server, toHypervisor="SIM") == [("IN_USE", ["serverId"])]
    answer = scene.alice.ok(
        "mutation($input: ServerMigrateInput!) { serverMigrate(input: $input) { userErrors "
        "{ ... on InUse { blockers } } } }", input={"serverId": server, "toHypervisor": "SIM"},
    )  # fmt: skip
    assert answer["serverMigrate"]["userErrors"] == [{"blockers": [snapshot]}]
    assert scene.rows() == before
    scene.do_and_work("serverSnapshotDelete", id=snapshot)
    seen = of_server(scene, server)
    assert [each["status"] for each in seen["volumes"]] == ["IN_USE"]
    assert set(seen["allowedActions"]) >= HELD_BACK
    scene.do_and_work("volumeDetach", volumeId=held["id"])


def test_a_server_goes_with_its_snapshots_and_the_volume_that_stays_is_free(scene: Scene) -> None:
    before = scene.centre.snapshot_of_world()
    server = scene.server(volumes=[{"sizeGib": 1}])
    kept = of_server(scene, server)["volumes"][0]["id"]
    take(scene, server, withMemory=True)
    last = take(scene, server)
    scene.do_and_work("serverDelete", id=server)
    assert show(scene, last) is None
    assert (used(scene), metered(scene), room(scene)) == ((0, 1), [], 1)
    world = scene.centre.snapshot_of_world()
    assert (world.machines, world.machine_snapshots) == (before.machines, {})
    assert scene.alice.ok("query($id: ID!) { volume(id: $id) { status } }", id=kept)["volume"] == {
        "status": "AVAILABLE"
    }  # fmt: skip
    scene.do_and_work("volumeExtend", id=kept, sizeGib=2)


def test_one_that_cannot_be_made_shows_why_and_holds_nothing(scene: Scene) -> None:
    server = scene.server(volumes=[{"sizeGib": 1}])
    before = room(scene)
    scene.centre.fail("machine_snapshots.make", Refused)
    made = scene.alice.do("serverSnapshotCreate", "serverSnapshot { id }", serverId=server, name="n")
    scene.world.work()
    snapshot = made["serverSnapshot"]["id"]
    found = show(scene, snapshot)
    assert (found["status"], found["statusReason"]) == ("ERROR", "a fault was ordered here")
    assert (metered(scene), room(scene)) == ([], before)
    assert of_server(scene, server)["volumes"][0]["status"] == "IN_USE"
    assert scene.alice.refused("serverSnapshotRevert", id=snapshot) == [("INVALID_STATE", ["id"])]
    assert used(scene)[0] == 1
    scene.do_and_work("serverSnapshotDelete", id=snapshot)
    assert used(scene) == (0, 1)


def test_one_removed_behind_our_back_is_told(scene: Scene) -> None:
    server = scene.server()
    one, two, three = (take(scene, server) for _ in range(3))
    scene.world.reconcile("server_snapshots")
    assert tree(scene, server) == [(one, None, False), (two, one, False), (three, two, True)]
    driver = registry.get("SIM").connect(_config(scene), Deadline(5))
    for gone in (two, three):
        driver.remove_machine_snapshot(scene.world.uid(server), scene.world.uid(gone), Deadline(5))  # type: ignore[attr-defined]  # sim has it
    driver.close()
    before = room(scene)
    scene.world.reconcile("server_snapshots")
    for gone in (two, three):
        found = show(scene, gone)
        assert (found["status"], found["statusReason"]) == ("ERROR", "It is gone from its host.")
    assert tree(scene, server)[0] == (one, None, True)
    assert (room(scene), len(metered(scene))) == (before - 6, 1)
    scene.do_and_work("serverSnapshotDelete", id=one)
    assert set(of_server(scene, server)["allowedActions"]) >= HELD_BACK
    for gone in (two, three):
        scene.do_and_work("serverSnapshotDelete", id=gone)
    assert used(scene) == (0, 0)


def _config(scene: Scene) -> Any:
    from drivers.api import HostConfig

    return HostConfig("h", "sim://h", scene.world.settings.state_dir, {"store": "memory"})


def test_what_is_refused_changes_nothing(scene: Scene) -> None:
    server = scene.server(volumes=[{"sizeGib": 1}])
    volume = of_server(scene, server)["volumes"][0]["id"]
    refused = scene.alice.refused
    snapshot = take(scene, server)
    scene.do_and_work("serverSuspend", id=server)
    before = scene.rows()
    assert refused("serverSnapshotCreate", serverId=server, name="n") == [("INVALID_STATE", ["serverId"])]
    assert scene.rows() == before
    scene.do_and_work("serverSnapshotRevert", id=snapshot)
    assert scene.status(server) == "STOPPED"
    scene.do_and_work("serverSnapshotDelete", id=snapshot)
    limits = [{"resource": "SERVER_SNAPSHOTS", "limit": 0}]
    scene.world.admin.do("quotaSet", "quotas { id }", tenantId=scene.tenant, limits=limits)
    before = scene.rows()
    assert refused("serverSnapshotCreate", serverId=server, name="n") == [("QUOTA_EXCEEDED", None)]
    assert scene.rows() == before
    limits = [{"resource": "SERVER_SNAPSHOTS", "limit": 9}]
    scene.world.admin.do("quotaSet", "quotas { id }", tenantId=scene.tenant, limits=limits)
    scene.alice.do("volumeDetach", "job { id }", volumeId=volume)
    assert refused("serverSnapshotCreate", serverId=server, name="n") == [("INVALID_STATE", ["serverId"])]
    scene.world.work()
    wanted = {"serverId": server, "name": "n"}
    made = scene.alice.do("serverSnapshotCreate", "serverSnapshot { id }", **wanted)["serverSnapshot"]["id"]
    assert refused("serverSnapshotDelete", id=made) == [("INVALID_STATE", ["id"])]
    assert refused("serverSnapshotRevert", id=made) == [("INVALID_STATE", ["id"])]


def test_a_host_without_room_for_it_is_told(scene: Scene) -> None:
    server = scene.server()
    large = scene.alice.do("volumeCreate", "job { id }", name="v", sizeGib=96)
    scene.world.work()
    assert scene.world.job(large["job"]["id"]).status.value == "SUCCEEDED"
    made = scene.alice.do("serverSnapshotCreate", "serverSnapshot { id } job { id }", serverId=server, name="n")
    scene.world.work()
    kept = scene.world.job(made["job"]["id"])
    assert (kept.status.value, (kept.error or {})["code"]) == ("FAILED", "NO_VALID_HOST")
    assert scene.centre.snapshot_of_world().machine_snapshots == {}


def test_others_see_nothing_and_readers_change_nothing(scene: Scene) -> None:
    server = scene.server()
    snapshot = take(scene, server)
    stranger = scene.world.member(scene.world.tenant())
    reader = scene.world.member(scene.tenant_row, Role.READER)
    assert stranger.ok(SHOW, id=snapshot) == {"serverSnapshot": None}
    everything = "query { serverSnapshots { totalCount nodes { id } } }"
    assert stranger.ok(everything)["serverSnapshots"] == {"totalCount": 0, "nodes": []}
    assert reader.ok(everything)["serverSnapshots"]["nodes"] == [{"id": snapshot}]
    of_this = "query($id: ID!) { serverSnapshots(filter: {serverId: $id}) { totalCount } }"
    assert reader.ok(of_this, id=server)["serverSnapshots"] == {"totalCount": 1}
    assert stranger.ok(of_this, id=server)["serverSnapshots"] == {"totalCount": 0}
    before = scene.rows()
    for who, code in ((stranger, "NOT_FOUND"), (reader, "FORBIDDEN")):
        path = ["id"] if code == "NOT_FOUND" else None
        assert who.refused("serverSnapshotRevert", id=snapshot) == [(code, path)]
        assert who.refused("serverSnapshotDelete", id=snapshot) == [(code, path)]
        where = ["serverId"] if code == "NOT_FOUND" else None
        assert who.refused("serverSnapshotCreate", serverId=server, name="n") == [(code, where)]
    assert scene.rows() == before


def test_a_hypervisor_that_cannot_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lesser = sim.driver_type("SIM", without=frozenset({Capability.MACHINE_SNAPSHOT}))
    monkeypatch.setitem(registry._found()[0], "SIM", lesser)
    scene = Scene.make(world)
    server = scene.server()
    before = scene.rows()
    assert scene.alice.refused("serverSnapshotCreate", serverId=server, name="n") == [("UNSUPPORTED", ["serverId"])]
    assert scene.rows() == before


def test_the_same_key_takes_one(scene: Scene) -> None:
    server = scene.server()
    given = {"serverId": server, "name": "n", "idempotencyKey": "k"}
    first = scene.alice.do("serverSnapshotCreate", "serverSnapshot { id } job { id }", **given)
    assert scene.alice.do("serverSnapshotCreate", "serverSnapshot { id } job { id }", **given) == first
    scene.world.work()
    assert used(scene)[0] == 1


def test_a_list_asks_as_often_however_long_it_is(scene: Scene) -> None:
    asked = "query { serverSnapshots { nodes { name server { name } parent { name } children { name } } } }"
    server = scene.server()
    for _ in range(2):
        take(scene, server)
    with counted(scene.world.db) as two:
        scene.alice.ok(asked)
    for _ in range(3):
        take(scene, server)
    with counted(scene.world.db) as five:
        assert len(scene.alice.ok(asked)["serverSnapshots"]["nodes"]) == 5
    assert len(five) == len(two)
