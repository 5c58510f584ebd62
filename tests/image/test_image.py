from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from gateway.image import transfer
from gateway.image.formats import MIB, ImageFormat
from gateway.kernel import noun
from gateway.kernel.access import Role
from gateway.metering import usage
from gateway.metering.usage import Period
from resolvers.kernel.context import Context
from resolvers.kernel.feed import Feed
from resolvers.schema import schema
from tests.image import corpus
from tests.image.cloud import IMAGE, Died, Images, dying, sha256
from tests.world import START, World
from workers.image.image import store


@pytest.fixture
def folk(world: World) -> Images:
    return Images.open(world)


@pytest.fixture
def qcow2(tmp_path: Path) -> bytes:
    folder = tmp_path / "made"
    folder.mkdir()
    return corpus.disk(folder, ImageFormat.QCOW2).read_bytes()


def test_a_file_uploaded_whole_becomes_an_image(folk: Images, qcow2: bytes) -> None:
    made = folk.create(sha256=sha256(qcow2).upper(), tags=["a", "b", "a"], minDiskGib=1)
    assert (made["status"], made["downloadUrl"], made["upload"]["offset"]) == ("QUEUED", None, 0)
    assert folk.used() == {"IMAGES": 1, "IMAGE_GIB": 0}
    answer = folk.put(made["upload"]["url"], qcow2)
    assert answer.status_code == 202
    told = answer.json()
    assert (told["id"], told["status"], told["receivedBytes"]) == (made["id"], "CHECKING", len(qcow2))
    checking = folk.get(made["id"])
    assert (checking["status"], checking["upload"]) == ("CHECKING", None)
    assert checking["activeJob"] == {"id": told["jobId"], "kind": "image.accept"}
    folk.world.work()
    found = folk.get(made["id"])
    assert found["status"] == "ACTIVE"
    assert (found["format"], found["sizeBytes"], found["virtualSizeBytes"]) == ("QCOW2", len(qcow2), 10 * MIB)
    assert (found["sha256"], found["receivedBytes"], found["tags"]) == (sha256(qcow2), len(qcow2), ["a", "b"])
    assert folk.used() == {"IMAGES": 1, "IMAGE_GIB": 1}
    assert folk.web.get(found["downloadUrl"]).content == qcow2


def test_what_is_declared_is_kept_to(folk: Images, qcow2: bytes) -> None:
    wrong_hash = folk.create(sha256="0" * 64)
    wrong_format = folk.create(format="VMDK", sizeBytes=len(qcow2))
    for made, reason in ((wrong_hash, "CHECKSUM_MISMATCH"), (wrong_format, "FORMAT_MISMATCH")):
        job = folk.put(made["upload"]["url"], qcow2).json()["jobId"]
        folk.world.work()
        found = folk.get(made["id"])
        assert (found["status"], found["format"], found["downloadUrl"]) == ("ERROR", None, None)
        kept = folk.world.job(job)
        assert kept.error is not None
        assert (kept.status.value, kept.error["code"], kept.error["data"]) == (
            "FAILED", "IMAGE_REFUSED", {"reason": reason},
        )  # fmt: skip
        assert found["statusReason"] == kept.error["message"]
        told = folk.alice.ok(
            "query($id: ID!) { job(id: $id) { error { code ... on ImageRefused { reason } } } }", id=job
        )["job"]["error"]
        assert told == {"code": "IMAGE_REFUSED", "reason": reason}
    assert folk.used() == {"IMAGES": 0, "IMAGE_GIB": 0}
    assert folk.files() == []


HOSTILE = {each.name: each for each in corpus.HOSTILE}


@pytest.mark.parametrize(
    "name",
    [
        "qcow2_marked_corrupt", "vmdk_monolithic_flat", "vmdk_parent_hint", "vmdk_8_eib", "vdi_parent", "gzip_bomb",
        "luks", "polyglot_qcow2_and_iso", "web_page", "iso_cut",
    ],
)  # fmt: skip
def test_hostile_files_never_become_images(folk: Images, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    data = HOSTILE[name].make(folder).read_bytes()
    made = folk.create()
    answer = folk.put(made["upload"]["url"], data)
    assert answer.status_code in (202, 422)
    if answer.status_code == 422:
        assert (answer.json()["code"], answer.json()["reason"]) == ("IMAGE_REFUSED", HOSTILE[name].code)
    else:
        folk.world.work()
        error = folk.world.job(answer.json()["jobId"]).error
        assert error is not None
        assert (error["code"], error["data"]["reason"]) == ("IMAGE_REFUSED", HOSTILE[name].code)
    found = folk.get(made["id"])
    assert (found["status"], bool(found["statusReason"]), found["downloadUrl"]) == ("ERROR", True, None)
    assert folk.used() == {"IMAGES": 0, "IMAGE_GIB": 0}
    assert folk.files() == []
    assert folk.put(made["upload"]["url"], data).json()["code"] == "INVALID_STATE"


def test_a_hostile_head_ends_the_upload_early(folk: Images) -> None:
    made = folk.create()
    data = b"\x1f\x8b\x08" + bytes(8 * MIB)
    answer = folk.put(made["upload"]["url"], data)
    assert (answer.status_code, answer.json()["reason"]) == (422, "COMPRESSED")
    assert (folk.get(made["id"])["status"], folk.files()) == ("ERROR", [])


# ------------------------------------------------------------------------------------------------ quota


def limit(folk: Images, **limits: int) -> None:
    wanted = [{"resource": name, "limit": count} for name, count in limits.items()]
    folk.world.admin.do("quotaSet", "__typename", tenantId=folk.tenant, limits=wanted)


def test_quota_follows_what_is_declared_and_what_is_there(folk: Images, qcow2: bytes) -> None:
    limit(folk, IMAGES=2, IMAGE_GIB=3)
    big = folk.create(sizeBytes=2 << 30)
    assert folk.used() == {"IMAGES": 1, "IMAGE_GIB": 2}
    assert folk.alice.refused("imageCreate", name="x", sizeBytes=(1 << 30) + 1) == [("QUOTA_EXCEEDED", None)]
    small = folk.active(qcow2)
    assert folk.used() == {"IMAGES": 2, "IMAGE_GIB": 3}
    assert folk.alice.refused("imageCreate", name="x") == [("QUOTA_EXCEEDED", None)]
    for image in (big["id"], small):
        folk.alice.do("imageDelete", "job { id }", id=image)
    folk.world.work()
    assert folk.used() == {"IMAGES": 0, "IMAGE_GIB": 0}


def test_an_upload_cannot_pass_the_quota(folk: Images, qcow2: bytes) -> None:
    limit(folk, IMAGE_GIB=0)
    made = folk.create()
    pieces = iter([qcow2])
    for body in (qcow2, pieces):
        answer = folk.put(made["upload"]["url"], body)
        assert (answer.status_code, answer.json()["code"], answer.json()["resource"]) == (
            413, "QUOTA_EXCEEDED", "IMAGE_GIB",
        )  # fmt: skip
    assert folk.get(made["id"])["status"] in ("QUEUED", "RECEIVING")
    assert folk.used() == {"IMAGES": 1, "IMAGE_GIB": 0}


def test_usage_is_counted_from_active_to_the_end(folk: Images, qcow2: bytes) -> None:
    image = folk.active(qcow2)
    period = Period(START, START + timedelta(days=30))
    folk.world.clock.advance(hours=1)
    folk.alice.do("imageDelete", "job { id }", id=image)
    folk.world.work()
    with folk.world.db.read() as session:
        (line,) = usage.lines(session, folk.tenant_row.id, period)
        before = line.amount_us
        folk.world.clock.advance(hours=1)
        (line,) = usage.lines(session, folk.tenant_row.id, period)
    assert (line.resource.value, line.amount_us) == ("IMAGE_BYTES", before)
    assert 3600 <= before / len(qcow2) / 1e6 < 3602


# ------------------------------------------------------------------------------------------------ changing


def test_update(folk: Images, qcow2: bytes) -> None:
    image = folk.active(qcow2, protected=True, description="old", tags=["a"])
    changed = folk.alice.do(
        "imageUpdate", IMAGE, id=image, name="new", description=None, tags=["x", "y", "x"], minRamMib=64, minDiskGib=2
    )["image"]
    assert (changed["name"], changed["description"], changed["tags"]) == ("new", "", ["x", "y"])
    assert (changed["minRamMib"], changed["minDiskGib"], changed["protected"]) == (64, 2, True)
    assert folk.alice.refused("imageUpdate", id=image, name="z", expectedVersion=1) == [
        ("STALE_VERSION", ["expectedVersion"])
    ]
    assert folk.alice.refused("imageUpdate", id=image, visibility="PUBLIC") == [("FORBIDDEN", ["visibility"])]
    assert folk.alice.refused("imageCreate", name="x", visibility="PUBLIC") == [("FORBIDDEN", ["visibility"])]
    assert folk.alice.refused("imageDelete", id=image) == [("INVALID_STATE", ["id"])]
    folk.alice.do("imageUpdate", "__typename", id=image, protected=False)
    folk.alice.do("imageDelete", "job { id }", id=image)
    assert folk.alice.refused("imageUpdate", id=image, name="late") == [("INVALID_STATE", ["id"])]


def test_a_retried_create_is_one_image(folk: Images) -> None:
    first, again = (folk.create(idempotencyKey="k") for _ in range(2))
    assert first["id"] == again["id"]
    assert folk.used()["IMAGES"] == 1


LIST = "query($filter: ImageFilter) { images(filter: $filter) { nodes { name } totalCount } }"


def names(folk: Images, **wanted: object) -> list[str]:
    found = folk.alice.ok(LIST, filter=wanted)["images"]
    assert found["totalCount"] == len(found["nodes"])
    return [each["name"] for each in found["nodes"]]


def test_lists_are_filtered(folk: Images, qcow2: bytes) -> None:
    folk.alice.do("imageCreate", "__typename", name="one", tags=["t"])
    folk.alice.do("imageCreate", "__typename", name="two", visibility="SHARED")
    folk.active(qcow2)
    assert names(folk) == ["one", "two", "disk"]
    assert names(folk, name="one") == ["one"]
    assert names(folk, tag="t") == ["one"]
    assert names(folk, status=["ACTIVE"]) == ["disk"]
    assert names(folk, visibility=["SHARED", "PUBLIC"]) == ["two"]
    assert names(folk, tenantId=folk.tenant) == ["one", "two", "disk"]
    assert names(folk, tenantId=noun.public(folk.world.tenant())) == []


# ------------------------------------------------------------------------------------------------ who may


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        ("PRIVATE", {"member", "reader"}),
        ("SHARED", {"member", "reader", "friend"}),
        ("PUBLIC", {"member", "reader", "friend", "stranger"}),
    ],
)
def test_who_sees_and_uses_an_image(folk: Images, qcow2: bytes, visibility: str, seen: set[str]) -> None:
    world = folk.world
    friends, strangers = world.tenant(), world.tenant()
    people = {
        "member": folk.alice,
        "reader": world.member(folk.tenant_row, Role.READER),
        "friend": world.member(friends),
        "stranger": world.member(strangers),
    }
    image = folk.active(qcow2, visibility="SHARED")
    folk.alice.do("imageMemberAdd", "__typename", imageId=image, tenantId=noun.public(friends))
    world.admin.do("imageUpdate", "__typename", id=image, visibility=visibility)
    for name, person in people.items():
        found = folk.get(image, person)
        listed = person.ok("{ images { nodes { id } } }")["images"]["nodes"]
        assert (found is not None, listed) == (name in seen, [{"id": image}] if name in seen else [])
        made = person.ask("volumeCreate", "volume { image { id } }", name="v", imageId=image)
        if name == "reader":
            assert [each["code"] for each in made["userErrors"]] == ["FORBIDDEN"]
        elif name in seen:
            assert made["volume"] == {"image": {"id": image}}
        else:
            assert [each["code"] for each in made["userErrors"]] == ["NOT_FOUND"]
        if found is not None:
            assert folk.web.get(found["downloadUrl"]).content == qcow2
        if name in ("friend", "stranger"):
            code = "FORBIDDEN" if name in seen else "NOT_FOUND"
            assert person.refused("imageUpdate", id=image, name="mine") == [(code, ["id"])]
            assert person.refused("imageDelete", id=image) == [(code, ["id"])]
    assert folk.get(image)["name"] == "disk"


def test_the_other_tenant_sees_nothing(folk: Images) -> None:
    eve = folk.world.member(folk.world.tenant())
    made = folk.create()
    before = folk.get(made["id"])
    assert folk.get(made["id"], eve) is None
    assert eve.ok("query($id: ID!) { node(id: $id) { id } }", id=made["id"])["node"] is None
    other = noun.public(folk.world.tenant())
    for mutation, given in {
        "imageUpdate": {"id": made["id"], "name": "x"},
        "imageDelete": {"id": made["id"]},
    }.items():
        assert eve.refused(mutation, **given) == [("NOT_FOUND", ["id"])]
    for mutation in ("imageMemberAdd", "imageMemberRemove"):
        assert eve.refused(mutation, imageId=made["id"], tenantId=other) == [("NOT_FOUND", ["imageId"])]
    assert eve.refused("imageCreate", name="x", tenantId=folk.tenant) == [("NOT_FOUND", ["tenantId"])]
    after = folk.get(made["id"])
    assert before | {"upload": None} == after | {"upload": None}


def test_readers_and_others_get_no_upload_link(folk: Images) -> None:
    made = folk.create(visibility="SHARED")
    reader = folk.world.member(folk.tenant_row, Role.READER)
    assert folk.get(made["id"], reader)["upload"] is None
    friends = folk.world.tenant()
    friend = folk.world.member(friends)
    folk.alice.do("imageMemberAdd", "__typename", imageId=made["id"], tenantId=noun.public(friends))
    assert folk.get(made["id"], friend)["upload"] is None
    assert folk.get(made["id"], folk.world.admin)["upload"] is not None
    assert reader.refused("imageDelete", id=made["id"]) == [("FORBIDDEN", None)]


def test_members_come_and_go(folk: Images, qcow2: bytes) -> None:
    world = folk.world
    friends = world.tenant()
    friend, boss = world.member(friends), world.member(friends, Role.MANAGER)
    tenant = noun.public(friends)
    image = folk.active(qcow2)
    assert folk.alice.refused("imageMemberAdd", imageId=image, tenantId=tenant) == [("INVALID_STATE", ["imageId"])]
    folk.alice.do("imageUpdate", "__typename", id=image, visibility="SHARED")
    assert folk.alice.refused("imageMemberAdd", imageId=image, tenantId=folk.tenant) == [("INVALID", ["tenantId"])]
    assert folk.alice.refused("imageMemberAdd", imageId=image, tenantId=image) == [("NOT_FOUND", ["tenantId"])]
    wanted = "imageMember { id tenantId tenant { id } image { id } }"
    first, again = (
        folk.alice.do("imageMemberAdd", wanted, imageId=image, tenantId=tenant)["imageMember"] for _ in range(2)
    )
    assert first == again
    assert (first["tenantId"], first["tenant"], first["image"]) == (tenant, None, {"id": image})
    members = "query($id: ID!) { image(id: $id) { members { tenantId } } }"
    assert folk.alice.ok(members, id=image)["image"]["members"] == [{"tenantId": tenant}]
    assert friend.ok(members, id=image)["image"]["members"] == [{"tenantId": tenant}]
    asked = "query($id: ID!) { imageMember(id: $id) { tenantId } }"
    assert friend.ok(asked, id=first["id"])["imageMember"] == {"tenantId": tenant}
    assert world.member(world.tenant()).ok(asked, id=first["id"])["imageMember"] is None
    assert friend.refused("imageMemberRemove", imageId=image, tenantId=tenant) == [("FORBIDDEN", ["imageId"])]
    boss.do("imageMemberRemove", "__typename", imageId=image, tenantId=tenant)
    assert folk.get(image, friend) is None
    folk.alice.do("imageMemberAdd", "__typename", imageId=image, tenantId=tenant)
    folk.alice.do("imageMemberRemove", "__typename", imageId=image, tenantId=tenant)
    folk.alice.do("imageMemberRemove", "__typename", imageId=image, tenantId=tenant)
    assert folk.get(image, friend) is None


def test_a_tenant_with_shared_images_can_be_deleted(folk: Images) -> None:
    made, friends = folk.create(visibility="SHARED"), folk.world.tenant()
    folk.alice.do("imageMemberAdd", "__typename", imageId=made["id"], tenantId=noun.public(friends))
    folk.world.admin.do("tenantDelete", "__typename", id=noun.public(friends))
    found = folk.alice.ok("query($id: ID!) { image(id: $id) { members { id } } }", id=made["id"])
    assert found["image"]["members"] == []


def test_members_are_loaded_with_one_statement(folk: Images) -> None:
    for _ in range(3):
        made = folk.create(visibility="SHARED")
        for _ in range(2):
            folk.alice.do("imageMemberAdd", "__typename", imageId=made["id"], tenantId=noun.public(folk.world.tenant()))
    sent: list[str] = []
    sa.event.listen(folk.world.db._read, "before_cursor_execute", lambda *given: sent.append(given[2]))
    found = folk.alice.ok("{ images { nodes { members { tenantId tenant { name } } } } }")["images"]["nodes"]
    assert [len(each["members"]) for each in found] == [2, 2, 2]
    assert len([each for each in sent if each.startswith("SELECT")]) == 4


# ------------------------------------------------------------------------------------------------ faults


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
