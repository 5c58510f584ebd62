"""Images when workers die, files are refused, watchers watch and nobody goes on with an upload."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from gateway.image import transfer
from gateway.image.formats import ImageFormat
from gateway.metering import usage
from resolvers.kernel.context import Context
from resolvers.kernel.feed import Feed
from resolvers.schema import schema
from tests.image.cloud import Died, Images, dying, sha256
from workers.image.image import store


def test_a_worker_may_die_at_any_commit(folk: Images, qcow2: bytes) -> None:
    deaths = 0
    for after in range(20):
        made = folk.create(sha256=sha256(qcow2))
        folk.put(made["upload"]["url"], qcow2)
        try:
            with dying(folk.world, after):
                folk.world.work()
        except Died:
            deaths += 1
        folk.world.work()
        found = folk.get(made["id"])
        assert (found["status"], found["sha256"]) == ("ACTIVE", sha256(qcow2))
        if deaths <= after:
            break
    assert deaths >= 3
    assert folk.used() == {"IMAGES": deaths + 1, "IMAGE_GIB": deaths + 1}
    assert len(folk.files()) == deaths + 1


def test_a_refused_file_is_refused_wherever_the_worker_dies(folk: Images) -> None:
    deaths = 0
    for after in range(20):
        made = folk.create(sha256="0" * 64)
        folk.put(made["upload"]["url"], b"data" * 1000)
        try:
            with dying(folk.world, after):
                folk.world.work()
        except Died:
            deaths += 1
        folk.world.work()
        assert folk.get(made["id"])["status"] == "ERROR"
        assert folk.used() == {"IMAGES": 0, "IMAGE_GIB": 0}
        assert folk.files() == []
        if deaths <= after:
            break
    assert deaths >= 3


def test_a_fault_after_the_effect_is_taken_back(
    folk: Images, qcow2: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    real = transfer.accept

    def broken(*given: Any, **more: Any) -> Any:
        real(*given, **more)
        raise ZeroDivisionError

    def unable(*_given: Any) -> None:
        raise ZeroDivisionError

    for owner, name, instead in ((transfer, "accept", broken), (usage, "opened", unable)):
        made = folk.create()
        job = folk.put(made["upload"]["url"], qcow2).json()["jobId"]
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, instead)
            folk.world.work()
        kept = folk.world.job(job)
        assert kept.error is not None
        assert (kept.status.value, kept.error["code"]) == ("FAILED", "INTERNAL")
        found = folk.get(made["id"])
        assert (found["status"], found["format"], found["sizeBytes"]) == ("ERROR", None, None)
        assert (folk.used(), folk.files()) == ({"IMAGES": 0, "IMAGE_GIB": 0}, [])


def test_changes_are_pushed(folk: Images, qcow2: bytes) -> None:
    made = folk.create()

    async def watch() -> list[str]:
        feed = Feed(folk.world.db)
        feed.start()
        try:
            context = Context(folk.alice.subject, replace(folk.world.services, feed=feed))
            document = "subscription($id: ID!) { imageChanged(id: $id) { status receivedBytes } }"
            stream = await schema().subscribe(document, variable_values={"id": made["id"]}, context_value=context)
            seen: list[str] = []
            async with asyncio.timeout(30):
                async for each in stream:
                    assert each.data is not None, each.errors
                    seen.append(each.data["imageChanged"]["status"])
                    if seen == ["QUEUED"]:
                        await asyncio.to_thread(folk.patch, made["upload"]["url"], qcow2[:1000], 0)
                    elif seen[-1] == "RECEIVING" and each.data["imageChanged"]["receivedBytes"] == 1000:
                        folk.world.crank.rung.clear()
                        await asyncio.to_thread(
                            folk.patch, made["upload"]["url"], qcow2[1000:], 1000, Upload_Length=str(len(qcow2))
                        )
                    elif seen[-1] == "CHECKING":
                        await asyncio.to_thread(folk.world.work)
                    elif seen[-1] == "ACTIVE":
                        await asyncio.to_thread(folk.alice.do, "imageDelete", "__typename", id=made["id"])
                        await asyncio.to_thread(folk.world.work)
            return seen
        finally:
            await feed.stop()

    seen = asyncio.run(watch())
    order = ["QUEUED", "RECEIVING", "CHECKING", "ACTIVE", "DELETING"]
    assert sorted(seen, key=order.index) == seen
    assert set(seen) >= {"QUEUED", "RECEIVING", "CHECKING", "ACTIVE"}


def test_cancelling_a_check_takes_it_back(folk: Images, qcow2: bytes) -> None:
    made = folk.create()
    job = folk.put(made["upload"]["url"], qcow2).json()["jobId"]
    folk.alice.do("jobCancel", "__typename", id=job)
    folk.world.work()
    assert folk.world.job(job).status.value == "CANCELLED"
    assert folk.get(made["id"])["status"] == "ERROR"
    assert folk.used() == {"IMAGES": 0, "IMAGE_GIB": 0}
    (left,) = store(folk.world.settings).root.iterdir()
    os.utime(left, (0, 0))
    folk.world.reconcile("images")
    assert folk.files() == []


def test_uploads_that_nobody_goes_on_with_are_collected(folk: Images) -> None:
    silent, stalled, fresh = (folk.create() for _ in range(3))
    folk.patch(stalled["upload"]["url"], b"x" * 1000, 0)
    folk.world.clock.advance(hours=29)
    folk.world.reconcile("images")
    assert folk.get(silent["id"])["status"] == "QUEUED"
    folk.alice.do("imageUpdate", "__typename", id=fresh["id"], name="still wanted")
    folk.world.clock.advance(hours=2)
    folk.world.reconcile("images")
    assert (folk.get(silent["id"]), folk.get(stalled["id"])) == (None, None)
    assert folk.get(fresh["id"])["status"] == "QUEUED"
    assert folk.used() == {"IMAGES": 1, "IMAGE_GIB": 0}
    assert folk.files() == []


def test_what_nobody_knows_leaves_the_store(folk: Images, qcow2: bytes) -> None:
    image = folk.active(qcow2)
    kept = store(folk.world.settings)
    uid = folk.world.uid(image)
    files = {
        "unknown": kept.path(uuid4(), ImageFormat.RAW),
        "late upload": kept.upload_path(uid),
        "old variant": kept.path(uid, ImageFormat.RAW),
        "killed conversion": kept.root / f"{uid}.raw.0123456789abcdef.partial",
    }
    for path in files.values():
        path.write_bytes(b"x")
    variant = kept.path(uid, ImageFormat.VMDK)
    variant.write_bytes(b"x")
    folk.world.reconcile("images")
    assert len(folk.files()) == 6
    old = time.time() - 8 * 86400
    for path in (*files.values(), kept.path(uid, ImageFormat.QCOW2)):
        os.utime(path, (old, old))
    folk.world.reconcile("images")
    assert folk.files() == [f"{uid}.qcow2", f"{uid}.vmdk"]
