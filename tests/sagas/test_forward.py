from __future__ import annotations

from gateway.jobs.job import FORWARD
from tests.compute.scene import Scene
from tests.world import World
from workers.main import load_all
from workers.saga import SAGAS


def test_kinds_tell_which_sagas_only_go_forward() -> None:
    load_all()
    ours = {kind: saga for kind, saga in SAGAS.items() if not kind.startswith("test.")}  # tests have sagas of their own
    assert {kind for kind, saga in ours.items() if saga.forward} == {kind for kind in ours if kind.endswith(FORWARD)}


def test_a_deletion_cannot_be_cancelled_and_says_so(world: World) -> None:
    scene = Scene.make(world)
    server = scene.server()
    job = scene.alice.do("serverDelete", "job { id cancellable }", id=server)["job"]
    assert job["cancellable"] is False
    assert scene.alice.refused("jobCancel", id=job["id"]) == [("INVALID_STATE", ["id"])]
    scene.world.work()
    assert scene.world.job(job["id"]).status.value == "SUCCEEDED"
