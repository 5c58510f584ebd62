from __future__ import annotations

from pathlib import Path

import pytest

from gateway.image.formats import MIB, ImageFormat
from tests.image import corpus
from tests.image.cloud import Images, sha256
from tests.world import World


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
