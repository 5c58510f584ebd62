"""What the tests of the KVM driver share: a libvirt host, a connection to it, the tiny guest and parts of machines."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import pytest

from drivers.api import Deadline, DiskFormat, HostConfig, ImageSpec
from drivers.kvm.driver import KvmDriver
from drivers.kvm.driver import connect as connect_kvm
from tests.guest.image import guest_image
from tests.servers.libvirt_host import LibvirtHost, missing


def libvirt_host(name: str) -> LibvirtHost:
    """A host of its own. A machine that cannot start one skips on a laptop and fails in CI."""
    reason = missing()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return LibvirtHost(name)


def connect(host: LibvirtHost, scratch: Path, **options: str) -> KvmDriver:
    """The driver, connected to that host."""
    return connect_kvm(HostConfig(host.name, host.uri, scratch, options), Deadline(30))


@cache
def image() -> ImageSpec:
    """The tiny guest as an image; always with the same id."""
    path = guest_image()
    sizes = json.loads(subprocess.check_output(("qemu-img", "info", "-f", "qcow2", "--output=json", str(path))))
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = uuid5(NAMESPACE_URL, "tiny-guest")
    return ImageSpec(identity, path, DiskFormat.QCOW2, path.stat().st_size, sizes["virtual-size"], checksum)


def wait_for(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Look until it holds; fail with ``what`` after so many seconds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)
