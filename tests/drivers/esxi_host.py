"""A simulated ESXi host for tests: slow tasks, a VLAN pool, a small RAW image, and another client's hands on it."""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pyVmomi import vmodl

from drivers.api import Deadline, DiskFile, DiskFormat, Driver, HostConfig, ImageSpec
from drivers.contracts.rig import wait_for
from drivers.esxi import DRIVER
from tests.servers.daemon import PackageMissingError
from tests.servers.esxsim import PASSWORD, USER, EsxSim, build
from tests.servers.shared import run_folder

SECONDS = 60.0
TASK_MS = 20
MIB = 1024**2
CLUSTER = {"dvswitch": "DVS0", "shared": "one", "resource_pool": "DC0_C0_RP1", "folder": "F0"}
"""Options of a host of the mode `cluster`."""
TRANSFER = ("ImportVApp", "POST /nfc", "HttpNfcLeaseComplete", "MoveVirtualDisk_Task", "UnregisterVM")
"""What bringing a disk into a host is made of, in this order."""


def program_in(factory: pytest.TempPathFactory) -> Path:
    """The simulator's program, built once a test run."""
    try:
        return build(run_folder(factory))
    except PackageMissingError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


@contextmanager
def simulated(program: Path, **options: Any) -> Iterator[EsxSim]:
    """One endpoint, whose tasks take their time."""
    sim = EsxSim.create(program, **options)
    try:
        sim.delay("*", TASK_MS)
        yield sim
    finally:
        sim.stop()


def config_of(sim: EsxSim, **options: str) -> HostConfig:
    """How the driver reaches it."""
    given = {"certificate": sim.certificate, "vlan_pool": "100-399", **options}
    return HostConfig("esxi", sim.url, Path(), given, USER, PASSWORD)


def connect(sim: EsxSim, **options: str) -> Driver:
    """An open driver."""
    return DRIVER.connect(config_of(sim, **options), Deadline(SECONDS))


def content(size_bytes: int = 2 * MIB) -> bytes:
    """What a guest reads from the disk of :func:`image`."""
    return hashlib.shake_256(b"image").digest(4096) * (size_bytes // 4096)


def image(folder: Path, size_bytes: int = 2 * MIB) -> ImageSpec:
    """An image with content of its own, as a host takes it: a stream-optimized VMDK."""
    raw, path = folder / "image.raw", folder / "image.vmdk"
    raw.write_bytes(content(size_bytes))
    stream(raw, path)
    made = path.read_bytes()
    return ImageSpec(uuid4(), path, DiskFormat.VMDK, len(made), size_bytes, hashlib.sha256(made).hexdigest())


def file_of(spec: ImageSpec) -> DiskFile:
    """An image's file as a disk in transit."""
    return DiskFile(spec.path, spec.format, spec.size_bytes, spec.virtual_size_bytes, spec.sha256)


def stream(raw: Path, target: Path) -> None:
    """Make a stream-optimized VMDK of a RAW file."""
    options = ["-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run(
        ["qemu-img", "convert", *options, str(raw), str(target)], check=True, capture_output=True, timeout=60
    )


def content_of(sim: EsxSim) -> Any:
    """The service content for another client, logged in."""
    from pyVmomi import vim
    from pyVmomi.SoapAdapter import SoapStubAdapter

    trust = ssl.create_default_context(cadata=sim.certificate)
    stub = SoapStubAdapter(host="127.0.0.1", port=sim.port, version="vim.version.version11", sslContext=trust)
    content: Any = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
    content.sessionManager.Login(USER, PASSWORD)
    return content


def machine_of(content: Any, machine_id: UUID) -> Any:
    """Another client's object of a machine."""
    return content.searchIndex.FindByUuid(None, str(machine_id), True, True)


def finished(task: Any) -> Any:
    """A task's result once it ended well."""
    wait_for(lambda: task.info.state in {"success", "error"}, SECONDS, "the task ends")
    assert task.info.state == "success", task.info.error
    return task.info.result


def carriers(sim: EsxSim) -> list[str]:
    """What is left of carriers: machines on the host, and folders."""
    hosts = [host for each in content_of(sim).rootFolder.childEntity[0].hostFolder.childEntity for host in each.host]
    names = []
    for machine in (each for host in hosts for each in host.vm):
        with suppress(vmodl.fault.ManagedObjectNotFound):  # it went while it was looked at
            names.append(str(machine.name))
    return [name for name in names if name.startswith("stratograph-carrier")] + on_datastore(sim, "*/carriers/*")


def on_datastore(sim: EsxSim, pattern: str) -> list[str]:
    """The names in our folders that fit."""
    return sorted(each.name for each in sim.daemon.folder.glob(f"*/stratograph/{pattern}"))


def flat(sim: EsxSim, volume: UUID) -> bytes:
    """What a guest reads from a volume."""
    (found,) = sim.daemon.folder.glob(f"*/stratograph/*/volumes/{volume}/disk-flat.vmdk")
    return found.read_bytes()
