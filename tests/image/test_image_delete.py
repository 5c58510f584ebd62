"""Deleting images while others use them, and collecting what is left on hosts."""

from __future__ import annotations

import pytest
from sqlmodel import select

from drivers.api import Transient
from gateway.image.formats import ImageFormat
from gateway.image.image import Image, ImageCopy
from gateway.kernel import noun
from tests.compute.scene import Scene
from tests.image.cloud import Died, dying
from tests.world import World
from workers.image.image import store


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene.make(world)


def rows(scene: Scene) -> list[Image]:
    with scene.world.db.read() as session:
        return list(session.exec(select(Image)))


def copies(scene: Scene) -> list[bool]:
    with scene.world.db.read() as session:
        return list(session.exec(select(ImageCopy.ready)))


def on_host(scene: Scene) -> int:
    return len(scene.centre.snapshot_of_world().images)


def files(scene: Scene) -> list[str]:
    return [path.name for path in store(scene.world.settings).root.iterdir()]


def shown(scene: Scene) -> object:
    found = scene.alice.ok("query($id: ID!) { image(id: $id) { status } images { totalCount } }", id=scene.image)
    return (found["image"], found["images"]["totalCount"])


def test_an_unused_image_leaves_nothing(scene: Scene) -> None:
    server = scene.server()
    scene.do_and_work("serverDelete", id=server)
    assert (copies(scene), on_host(scene)) == ([True], 1)
    job = scene.do_and_work("imageDelete", id=scene.image)
    assert scene.world.job(job).told[0].message == "Removed from 1 hosts."
    assert (rows(scene), copies(scene), on_host(scene), files(scene)) == ([], [], 0, [])
    assert shown(scene) == (None, 0)


def test_a_server_keeps_working_without_its_image(scene: Scene) -> None:
    server = scene.server()
    scene.do_and_work("imageDelete", id=scene.image)
    assert shown(scene) == (None, 0)
    assert (copies(scene), on_host(scene), files(scene)) == ([True], 1, [])
    asked = "query($id: ID!) { server(id: $id) { status image { id } } }"
    assert scene.alice.ok(asked, id=server)["server"] == {"status": "ACTIVE", "image": None}
    scene.do_and_work("serverStop", id=server)
    scene.do_and_work("serverStart", id=server)
    assert scene.status(server) == "ACTIVE"
    refused = scene.alice.refused("serverCreate", name="s", flavorId=scene.flavor, imageId=scene.image)
    assert refused == [("NOT_FOUND", ["imageId"])]
    scene.world.clock.advance(hours=2)
    scene.world.reconcile("images")
    assert (len(rows(scene)), on_host(scene)) == (1, 1)
    scene.do_and_work("serverDelete", id=server)
    scene.world.reconcile("images")
    assert (rows(scene), copies(scene), on_host(scene)) == ([], [], 0)


def test_a_volume_keeps_working_without_its_image(scene: Scene) -> None:
    made = scene.alice.do("volumeCreate", "volume { id }", name="v", imageId=scene.image)["volume"]["id"]
    scene.world.work()
    scene.do_and_work("imageDelete", id=scene.image)
    found = scene.alice.ok("query($id: ID!) { volume(id: $id) { status image { id } } }", id=made)["volume"]
    assert found == {"status": "AVAILABLE", "image": None}
    scene.do_and_work("volumeDelete", id=made)
    scene.world.clock.advance(hours=2)
    scene.world.reconcile("images")
    assert (rows(scene), copies(scene), on_host(scene)) == ([], [], 0)


def test_a_host_that_is_away_does_not_hold_up_the_deletion(scene: Scene) -> None:
    scene.do_and_work("serverDelete", id=scene.server())
    scene.centre.down(Transient)
    scene.do_and_work("imageDelete", id=scene.image)
    assert (shown(scene), copies(scene), files(scene)) == ((None, 0), [True], [])
    scene.centre.up()
    scene.world.reconcile("images")
    assert on_host(scene) == 1  # asked lately
    scene.world.clock.advance(hours=2)
    scene.world.reconcile("images")
    assert (rows(scene), copies(scene), on_host(scene)) == ([], [], 0)


def test_a_host_can_be_removed_with_copies_on_it(scene: Scene) -> None:
    scene.do_and_work("serverDelete", id=scene.server())
    host = noun.public(scene.world.host_row("h"))
    scene.world.admin.do("hostRemove", "__typename", id=host)
    assert copies(scene) == []


def test_a_server_being_made_of_a_deleted_image_fails_whole(scene: Scene) -> None:
    made = scene.create()
    scene.alice.do("imageDelete", "job { id }", id=scene.image)
    scene.world.work()
    assert scene.status(made["server"]["id"]) == "ERROR"
    error = scene.world.job(made["job"]["id"]).error
    assert error is not None
    assert error["code"] == "INVALID_STATE"
    world = scene.centre.snapshot_of_world()
    assert (world.machines, world.volumes, world.images) == ({}, {}, {})
    scene.do_and_work("serverDelete", id=made["server"]["id"])
    scene.world.clock.advance(hours=2)
    scene.world.reconcile("images")
    assert (rows(scene), copies(scene)) == ([], [])


def test_deleting_twice_is_one_job(scene: Scene) -> None:
    one, two = (scene.alice.do("imageDelete", "job { id }", id=scene.image)["job"]["id"] for _ in range(2))
    assert one == two
    scene.world.work()
    assert scene.alice.refused("imageDelete", id=scene.image) == [("NOT_FOUND", ["id"])]


def test_a_copy_that_was_never_noted_as_whole_is_brought_again(scene: Scene) -> None:
    scene.do_and_work("serverDelete", id=scene.server())

    def spoil(session: object) -> None:
        (copy,) = session.exec(select(ImageCopy)).all()  # type: ignore[attr-defined]  # a Session
        copy.ready = False

    scene.world.db.run(spoil)
    scene.server()
    assert copies(scene) == [True]


def test_a_worker_may_die_at_any_commit(scene: Scene) -> None:
    scene.do_and_work("serverDelete", id=scene.server())
    scene.alice.do("imageDelete", "job { id }", id=scene.image)
    deaths = 0
    while True:
        try:
            with dying(scene.world, 2):  # each life gets a commit further
                scene.world.work()
        except Died:
            deaths += 1
            assert deaths < 50
            continue
        break
    assert deaths >= 1
    assert (rows(scene), copies(scene), on_host(scene), files(scene)) == ([], [], 0, [])


def test_a_variant_is_made_once_and_goes_with_the_image(scene: Scene) -> None:
    uid = scene.world.uid(scene.image)
    store(scene.world.settings).path(uid, ImageFormat.VMDK).write_bytes(b"a variant")
    scene.do_and_work("imageDelete", id=scene.image)
    assert files(scene) == []
