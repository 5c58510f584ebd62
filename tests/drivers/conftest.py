"""What tests of the ESXi driver share: the simulator, and a volume that stands on an image. A file may have its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers.api import Deadline, Driver, ImageSpec, VolumeSpec
from tests.drivers.esxi_host import MIB, SECONDS, connect, image, program_in, simulated
from tests.servers.esxsim import EsxSim


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulator's program."""
    return program_in(tmp_path_factory)


@pytest.fixture(scope="module")
def sim(program: Path) -> Iterator[EsxSim]:
    """An ESXi host whose tasks take a moment."""
    with simulated(program) as made:
        made.delay("*", 5)
        yield made


@pytest.fixture(scope="module")
def driver(sim: EsxSim) -> Iterator[Driver]:
    """The driver, connected to it."""
    opened = connect(sim)
    yield opened
    opened.close()


@pytest.fixture
def base(tmp_path: Path) -> ImageSpec:
    """An image of one MiB."""
    return image(tmp_path, MIB)


@pytest.fixture
def standing(driver: Driver, base: ImageSpec) -> Iterator[tuple[ImageSpec, UUID]]:
    """A volume that stands on an image."""
    volume = uuid4()
    driver.volumes.ensure_image(base, Deadline(SECONDS))
    driver.volumes.ensure(VolumeSpec(volume, MIB, image_id=base.id), Deadline(SECONDS))
    yield base, volume
    driver.volumes.remove(volume, Deadline(SECONDS))
    driver.volumes.remove_image(base.id, Deadline(SECONDS))
