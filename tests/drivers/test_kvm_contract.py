"""The driver contract against a real libvirtd and QEMU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers.contract import DriverContract, Rig
from drivers.kvm import DRIVER
from tests.drivers.kvm_foreign import machine
from tests.drivers.kvm_host import connect, image, libvirt_host
from tests.drivers.matrix import Published
from tests.servers.libvirt_host import LibvirtHost


class TestKvm(Published, DriverContract):
    """All that ``drivers/api.py`` promises, kept by the KVM driver."""

    @pytest.fixture(scope="class")
    @classmethod
    def rig(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
        scratch: Path = tmp_path_factory.mktemp("scratch")
        with libvirt_host("contract") as host:
            driver = connect(host, scratch)
            yield Rig(
                driver,
                DRIVER,
                image(),
                connect=lambda: connect(host, scratch),
                seconds=60.0,
                boot_seconds=120.0,
                ready=b"SG: READY",
                stop_behind_our_back=lambda machine_id: _stop(host, str(machine_id)),
                foreign=lambda: _foreign(host),
            )
            driver.close()


@contextmanager
def _foreign(host: LibvirtHost) -> Iterator[str]:
    with machine(host) as theirs:
        yield theirs.ref


def _stop(host: LibvirtHost, machine_id: str) -> None:
    host.run(("virsh", "destroy", machine_id))
