"""The people and the file that most tests of images begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.image.formats import ImageFormat
from tests.image import corpus
from tests.image.cloud import Images
from tests.world import World


@pytest.fixture
def folk(world: World) -> Images:
    return Images.open(world)


@pytest.fixture
def qcow2(tmp_path: Path) -> bytes:
    folder = tmp_path / "made"
    folder.mkdir()
    return corpus.disk(folder, ImageFormat.QCOW2).read_bytes()
