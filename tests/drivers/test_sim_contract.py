"""The sim driver passes the driver contract: in a file, in memory, and as hosts that lack what a driver may lack."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers.api import VERBS, Capability, Deadline, DiskFormat, DriverType, HostConfig, ImageSpec, Power
from drivers.contract import DriverContract, DriverWideContract, Elsewhere, Rig
from drivers.sim import DRIVER, DataCentre, data_centre, driver_type
from drivers.sim.guest import LOGIN
from drivers.sim.records import ForeignRecord
from tests.drivers.matrix import Published

BARE = driver_type(
    "SIM_BARE",
    frozenset(Capability) - {Capability.MACHINES, Capability.VOLUMES, Capability.NETWORKS},
)
MACHINES_ONLY = driver_type(
    "SIM_MACHINES",
    frozenset({Capability.VOLUMES, Capability.NETWORKS, Capability.VOLUME_SNAPSHOT}),
)
EMPTY = driver_type("SIM_EMPTY", frozenset(Capability))


def image_in(folder: Path) -> ImageSpec:
    data = b"not a boot sector, and nobody will run it\n" * 4096
    path = folder / "image.raw"
    path.write_bytes(data)
    return ImageSpec(uuid4(), path, DiskFormat.RAW, len(data), 4 * 1024 * 1024, hashlib.sha256(data).hexdigest())


def _disk(number: int) -> dict[str, object]:
    return {"key": f"disk-{number}", "size_bytes": 65536, "content": f"content-{number}"}


def rig_of(kind: DriverType, folder: Path, **options: str) -> tuple[Rig, DataCentre]:
    name = f"contract-{uuid4()}"
    config = HostConfig(name, f"sim://{name}", folder, options)
    other = HostConfig(f"{name}-other", f"sim://{name}-other", folder, options)
    centre = data_centre(name, None if options.get("store") == "memory" else folder)

    def stop(machine_id: UUID) -> None:
        centre.stop(machine_id)

    @contextmanager
    def foreign() -> Iterator[str]:
        ref = f"vm-{uuid4()}"
        disks: list[dict[str, object]] = [
            {"key": f"disk-{at}", "size_bytes": 65536, "content": f"c{at}"} for at in range(2)
        ]
        nics: list[dict[str, object]] = [{"mac": "00:50:56:00:00:01", "network": "VM Network"}]
        there = ForeignRecord(ref, "theirs", 1, 64, Power.OFF.value, guest="Other", disks=disks, nics=nics)
        centre.plant(there)
        yield ref
        with centre.store.write(Deadline(10)) as transaction:
            transaction.delete(ForeignRecord, ref)

    ready = LOGIN.encode() if Capability.CONSOLE_LOG in kind.verbs else None
    driver = kind.connect(config, Deadline(10))
    rig = Rig(
        driver,
        kind,
        image_in(folder),
        connect=lambda: kind.connect(config, Deadline(10)),
        boot_seconds=10,
        ready=ready,
        stop_behind_our_back=stop,
        foreign=foreign,
        elsewhere=Elsewhere(other, lambda: kind.connect(other, Deadline(10)), config),
    )
    return rig, centre


def lend(kind: DriverType, folder: Path, **options: str) -> Iterator[Rig]:
    """A rig whose host is as empty afterwards as before, except for the shared image."""
    rig, centre = rig_of(kind, folder, **options)
    before = centre.snapshot_of_world()
    yield rig
    assert centre.snapshot_of_world().without_images().difference(before) == []
    rig.driver.close()
    centre.clear()


class TestInAFile(Published, DriverContract):
    @pytest.fixture(scope="class")
    @classmethod
    def rig(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        yield from lend(DRIVER, tmp_path_factory.mktemp("sim"))


class TestInMemory(DriverContract):
    @pytest.fixture(scope="class")
    @classmethod
    def rig(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        yield from lend(DRIVER, tmp_path_factory.mktemp("sim"), store="memory")


class TestBare(DriverContract):
    """Machines, volumes and networks, and nothing that a driver may lack."""

    @pytest.fixture(scope="class")
    @classmethod
    def rig(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        yield from lend(BARE, tmp_path_factory.mktemp("sim"), store="memory")


class TestMachinesOnly(DriverWideContract):
    @pytest.fixture(scope="class")
    @classmethod
    def rig(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        yield from lend(MACHINES_ONLY, tmp_path_factory.mktemp("sim"), store="memory")


class TestEmpty(DriverWideContract):
    @pytest.fixture(scope="class")
    @classmethod
    def rig(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        yield from lend(EMPTY, tmp_path_factory.mktemp("sim"), store="memory")


def test_the_bare_kind_lacks_what_may_be_lacking() -> None:
    assert {Capability.MACHINES, Capability.VOLUMES, Capability.NETWORKS} == BARE.capabilities
    assert DRIVER.capabilities == frozenset(Capability)
    assert DRIVER.verbs == frozenset(VERBS)
