"""Servers that stand still and go on."""

from __future__ import annotations

from typing import Any

import pytest
from sqlmodel import select

from drivers import registry, sim
from drivers.api import Capability
from gateway.metering.usage import Interval, Metered
from tests.compute.scene import Scene
from tests.world import World

RUNS = {Metered.VCPU, Metered.RAM_MIB}
GET = "query($id: ID!) { server(id: $id) { status statusReason allowedActions } }"


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


def test_a_suspended_server_goes_on_and_is_not_metered_meanwhile(scene: Scene) -> None:
    server = scene.server()
    before = scene.used()
    assert metered(scene) == {"VCPU", "RAM_MIB"}
    scene.do_and_work("serverSuspend", id=server)
    scene.do_and_work("serverSuspend", id=server)
    found = scene.alice.ok(GET, id=server)["server"]
    assert (found["status"], found["statusReason"]) == ("SUSPENDED", None)
    assert found["allowedActions"] == ["START", "STOP", "DELETE", "UPDATE", "RESUME", "REVERT"]
    assert metered(scene) == set()
    assert scene.used() == before
    scene.world.reconcile("servers")
    assert scene.status(server) == "SUSPENDED"
    assert scene.alice.refused("serverPause", id=server) == [("INVALID_STATE", ["id"])]
    assert scene.alice.refused("serverReboot", id=server) == [("INVALID_STATE", ["id"])]
    scene.do_and_work("serverResume", id=server)
    assert scene.status(server) == "ACTIVE"
    assert metered(scene) == {"VCPU", "RAM_MIB"}
    scene.do_and_work("serverResume", id=server)
    assert scene.status(server) == "ACTIVE"


def test_a_paused_server_goes_on(scene: Scene) -> None:
    server = scene.server()
    scene.do_and_work("serverPause", id=server)
    allowed = ["STOP", "DELETE", "UPDATE", "UNPAUSE", "REVERT", "OPEN_CONSOLE"]
    assert scene.alice.ok(GET, id=server)["server"]["allowedActions"] == allowed
    assert scene.alice.refused("serverResume", id=server) == [("INVALID_STATE", ["id"])]
    scene.do_and_work("serverUnpause", id=server)
    assert scene.status(server) == "ACTIVE"


@pytest.mark.parametrize("still", ["serverSuspend", "serverPause"])
def test_what_stands_still_can_be_stopped_and_deleted(scene: Scene, still: str) -> None:
    before = scene.centre.snapshot_of_world()
    server = scene.server()
    scene.do_and_work(still, id=server)
    scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
    assert scene.status(server) == "STOPPED"
    assert scene.alice.refused("serverResume", id=server) == [("INVALID_STATE", ["id"])]
    scene.do_and_work("serverStart", id=server)
    scene.do_and_work(still, id=server)
    scene.do_and_work("serverDelete", id=server)
    assert scene.centre.snapshot_of_world().machines == before.machines


def test_letting_go_on_does_not_start_what_went_off_meanwhile(scene: Scene) -> None:
    server = scene.server()
    scene.do_and_work("serverSuspend", id=server)
    job = scene.alice.do("serverResume", "job { id }", id=server)["job"]["id"]
    scene.centre.stop(scene.world.uid(server))
    scene.world.work()
    kept = scene.world.job(job)
    assert (kept.status.value, (kept.error or {})["code"]) == ("FAILED", "INVALID_STATE")
    assert not any(each.power == "RUNNING" for each in scene.centre.snapshot_of_world().machines.values())


def test_a_hypervisor_that_cannot_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of a kind that lacks it, as an ESXi host lacks pause, is refused before anything is ordered."""
    lesser = sim.driver_type("SIM", without=frozenset({Capability.PAUSE, Capability.SUSPEND}))
    monkeypatch.setitem(registry._found()[0], "SIM", lesser)
    scene = Scene.make(world)
    server = scene.server()
    for mutation, capability in (("serverPause", "PAUSE"), ("serverSuspend", "SUSPEND")):
        answer: dict[str, Any] = scene.alice.ok(
            f"mutation($input: {mutation[0].upper()}{mutation[1:]}Input!) {{ {mutation}(input: $input) {{ userErrors "
            "{ code path ... on Unsupported { capability hypervisor } } } }",
            input={"id": server},
        )[mutation]
        wanted = {"code": "UNSUPPORTED", "path": ["id"], "capability": capability, "hypervisor": "SIM"}
        assert answer["userErrors"] == [wanted]
    assert scene.status(server) == "ACTIVE"


def metered(scene: Scene) -> set[str]:
    """What is being counted now."""
    with scene.world.db.read() as session:
        counted = session.exec(select(Interval)).all()
    return {each.resource.value for each in counted if each.ended_at is None and each.resource in RUNS}
