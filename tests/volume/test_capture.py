"""Disks that become images: who may, what has to stand still, what comes out, and what is left when it fails."""

from __future__ import annotations

from typing import Any

import pytest
from sqlmodel import select

from drivers.api import Refused
from gateway.compute.host import Host
from gateway.image.image import Image
from tests.image.cloud import Images, sha256
from tests.migration.scene import Moving, machine
from tests.world import World

SHOWN = """query($id: ID!) { image(id: $id) { status format sizeBytes virtualSizeBytes sha256 visibility tags
  downloadUrl } }"""
MADE = "image { id status } job { id }"
CONTENT = b"stratograph-sim:content-of-2001\n".ljust(65536, b"\0")
"""What a simulated disk of that content is in a file."""


@pytest.fixture
def off(world: World) -> tuple[Moving, str]:
    """An adopted server that is off, with two disks of 64 KiB."""
    moving = Moving.make(world, foreign=machine("OFF"))
    return moving, moving.adopted()


def shown(moving: Moving, image: str) -> dict[str, Any]:
    found: dict[str, Any] = moving.scene.alice.ok(SHOWN, id=image)["image"]
    return found


def volumes(moving: Moving) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = moving.scene.alice.ok("{ volumes { nodes { id status sizeGib } } }")["volumes"][
        "nodes"
    ]
    return found


def captured(moving: Moving, **given: Any) -> tuple[str, str, str | None]:
    """The image that was asked for, how its job ended, and the code of its error."""
    made = moving.scene.alice.do("imageCapture", MADE, **{"name": "taken", "format": "RAW", **given})
    assert made["image"]["status"] == "RECEIVING"
    moving.world.work()
    job = moving.world.job(made["job"]["id"])
    return made["image"]["id"], job.status.value, (job.error or {}).get("code")


def test_a_disk_is_downloaded_as_it_is(off: tuple[Moving, str]) -> None:
    moving, server = off
    (volume,) = volumes(moving)
    image, ended, _ = captured(moving, volumeId=volume["id"], tags=["ledger"])
    assert ended == "SUCCEEDED"
    found = shown(moving, image)
    assert (found["status"], found["format"], found["visibility"], found["tags"]) == (
        "ACTIVE", "RAW", "PRIVATE", ["ledger"],
    )  # fmt: skip
    assert (found["sizeBytes"], found["virtualSizeBytes"], found["sha256"]) == (65536, 65536, sha256(CONTENT))
    folk = Images.open(moving.world)
    answer = folk.web.get(found["downloadUrl"])
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert volumes(moving) == [volume]
    root, ended, _ = captured(moving, serverId=server)
    assert ended == "SUCCEEDED"
    assert folk.web.get(shown(moving, root)["downloadUrl"]).content.startswith(b"stratograph-sim:content-of-2000\n")
    converted, ended, _ = captured(moving, serverId=server, format="QCOW2")
    found = shown(moving, converted)
    assert (ended, found["format"], found["virtualSizeBytes"]) == ("SUCCEEDED", "QCOW2", 65536)
    assert not list((moving.world.settings.state_dir / "captures").iterdir())


def test_what_somebody_writes_to_stays(world: World) -> None:
    moving = Moving.make(world)
    scene = moving.scene
    server = scene.server(volumes=[{"sizeGib": 1}])
    (volume,) = volumes(moving)
    alice = scene.alice
    assert alice.refused("imageCapture", name="i", serverId=server) == [("INVALID_STATE", ["serverId"])]
    assert alice.refused("imageCapture", name="i", volumeId=volume["id"]) == [("INVALID_STATE", ["volumeId"])]
    assert volumes(moving) == [volume]
    assert alice.refused("imageCapture", name="i") == [("INVALID", None)]
    assert alice.refused("imageCapture", name="i", volumeId=volume["id"], serverId=server) == [("INVALID", None)]
    assert alice.refused("imageCapture", name="i", serverId=server, format="ISO") == [("INVALID", None)]
    stranger = world.member(world.tenant())
    rows = scene.rows()
    for source in ({"volumeId": volume["id"]}, {"serverId": server}):
        assert stranger.refused("imageCapture", name="i", **source) == [("NOT_FOUND", [next(iter(source))])]
    assert scene.rows() == rows
    snapshot = alice.do("snapshotCreate", "snapshot { id }", volumeId=volume["id"], name="n")["snapshot"]["id"]
    assert alice.refused("imageCapture", name="i", snapshotId=snapshot) == [("INVALID_STATE", ["snapshotId"])]
    world.work()
    assert stranger.refused("imageCapture", name="i", snapshotId=snapshot) == [("NOT_FOUND", ["snapshotId"])]


def test_what_fails_leaves_the_disk_and_the_quota_as_they_were(off: tuple[Moving, str]) -> None:
    moving, server = off
    (volume,) = volumes(moving)
    before, quotas = moving.centre.snapshot_of_world(), moving.scene.used()
    moving.centre.fail("transport.export_disk", Refused)
    image, ended, code = captured(moving, volumeId=volume["id"])
    assert (ended, code) == ("FAILED", "HYPERVISOR_ERROR")
    assert shown(moving, image)["status"] == "ERROR"
    assert volumes(moving) == [volume]
    assert (moving.centre.snapshot_of_world(), moving.scene.used()) == (before, quotas)
    assert not list((moving.world.settings.state_dir / "captures").iterdir())
    made = moving.scene.alice.do("imageCapture", MADE, name="gone", volumeId=volume["id"])
    moving.scene.alice.do("imageDelete", "job { id }", id=made["image"]["id"])
    moving.world.work()
    assert volumes(moving) == [volume]
    assert moving.scene.alice.ok(SHOWN, id=made["image"]["id"])["image"] is None

    def clear(session: Any) -> None:
        host = session.get(Host, 1)
        host.capabilities = [each for each in host.capabilities if each != "DISK_TRANSPORT"]

    moving.world.db.run(clear)
    assert moving.scene.alice.refused("imageCapture", name="i", serverId=server) == [("UNSUPPORTED", None)]
    with moving.world.db.read() as session:
        assert len(session.exec(select(Image)).all()) == 2  # the scene's own, and the one in ERROR
