"""Images as they are made, counted, changed and listed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from gateway.image.formats import MIB
from gateway.kernel import noun
from gateway.metering import usage
from gateway.metering.usage import Period
from tests.image import corpus
from tests.image.cloud import IMAGE, Images, sha256
from tests.world import START


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
