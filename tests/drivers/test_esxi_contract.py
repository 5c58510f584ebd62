"""The driver contract against the vSphere simulator, whose tasks take their time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest

from drivers.api import Capability, Deadline
from drivers.contract import DriverContract, Elsewhere, Rig
from drivers.esxi import DRIVER
from tests.drivers.esxi_host import (
    CLUSTER,
    SECONDS,
    config_of,
    connect,
    content_of,
    finished,
    image,
    machine_of,
    program_in,
    simulated,
)
from tests.drivers.matrix import Published
from tests.migration.theirs import machine
from tests.servers.esxsim import EsxSim


class TestEsxi(Published, DriverContract):
    """All that ``drivers/api.py`` promises, kept by the ESXi driver."""

    @pytest.fixture(scope="class")
    @classmethod
    def rig(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        with simulated(program_in(tmp_path_factory)) as sim:
            driver = connect(sim)
            yield Rig(
                driver,
                DRIVER,
                image(tmp_path_factory.mktemp("image")),
                connect=lambda: connect(sim),
                seconds=SECONDS,
                boot_seconds=60.0,
                stop_behind_our_back=lambda machine_id: stop(sim, machine_id),
                foreign=lambda: foreign(sim),
                lacks=frozenset({Capability.RELOCATE}),
            )
            driver.close()


class TestVCenter(Published, DriverContract):
    """The same through vCenter: a host of a cluster, a resource pool and a folder of the operator's, disks shared with
    the cluster's other host, networks as distributed port groups.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def rig(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        with simulated(program_in(tmp_path_factory), mode="cluster") as sim:
            here, there = (config_of(sim, host=f"DC0_C0_H{number}", **CLUSTER) for number in range(2))
            driver = DRIVER.connect(here, Deadline(SECONDS))
            yield Rig(
                driver,
                DRIVER,
                image(tmp_path_factory.mktemp("image")),
                connect=lambda: DRIVER.connect(here, Deadline(SECONDS)),
                seconds=SECONDS,
                boot_seconds=60.0,
                stop_behind_our_back=lambda machine_id: stop(sim, machine_id),
                elsewhere=Elsewhere(there, lambda: DRIVER.connect(there, Deadline(SECONDS)), here),
                foreign=lambda: foreign(sim, "DC0_C0_H0"),
            )
            driver.close()


@contextmanager
def foreign(sim: EsxSim, host: str | None = None) -> Iterator[str]:
    """A machine of another client's."""
    with machine(sim, on=host) as theirs:
        yield theirs.ref


def stop(sim: EsxSim, machine_id: UUID) -> None:
    """Power it off as another client would."""
    finished(machine_of(content_of(sim), machine_id).PowerOffVM_Task())
