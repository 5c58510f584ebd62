"""What the tests of the KVM driver share: a libvirt host, a connection to it, the tiny guest and parts of machines."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import pytest

from drivers.api import (
    Deadline,
    Direction,
    DiskFormat,
    DiskSpec,
    HostConfig,
    ImageSpec,
    MachineSpec,
    NetworkSpec,
    NicSpec,
    PortSpec,
    Power,
    PowerAction,
    RuleSpec,
    Seed,
    SubnetSpec,
    VolumeSpec,
)
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


RULES_WEB = (
    RuleSpec(Direction.INGRESS, 4, "tcp", 80, 80),
    RuleSpec(Direction.INGRESS, 4, "icmp"),
    RuleSpec(Direction.EGRESS, 4),
)
SECONDS = 60.0
BOOT_SECONDS = 120.0


@dataclass
class Guest:
    """A tiny guest on a host, with the means to look into it from outside."""

    host: LibvirtHost
    driver: KvmDriver
    spec: MachineSpec
    port: PortSpec

    @property
    def address(self) -> str:
        """The address its port has."""
        return self.port.addresses[0]

    def console(self) -> str:
        """All that it said on its serial port."""
        return self.driver.console_log(self.spec.id, 1024 * 1024, Deadline(SECONDS)).decode(errors="replace")

    def power(self, action: PowerAction) -> Power:
        """Carry out a power action."""
        return self.driver.machines.power(self.spec.id, action, Deadline(SECONDS)).power

    def boot(self) -> str:
        """Start it, wait until it is up and answer with what it said in that line."""
        before = self.console().count("SG: READY")
        assert self.power(PowerAction.ON) is Power.RUNNING
        return self.says("SG: READY", before + 1)

    def says(self, marker: str, times: int = 1) -> str:
        """Wait until it said this so often; the rest of that line."""
        wait_for(lambda: self.console().count(marker) >= times, BOOT_SECONDS, f"the guest says {marker!r}")
        wait_for(lambda: "\n" in self._after(marker, times), SECONDS, "the line is whole")
        return self._after(marker, times).splitlines()[0].strip()

    def shell(self, script: str) -> str:
        """Run a script in the guest by its web server; what it printed."""
        url = f"http://{self.address}/cgi-bin/run"
        return self.host.run(("curl", "-s", "-S", "-f", "-m", "30", "--data-binary", script, url), seconds=40)

    def reached_from_host(self) -> bool:
        """Whether its web server answers the host."""
        return "host=" in self.host.run(("curl", "-s", "-m", "2", f"http://{self.address}/"), check=False)

    def _after(self, marker: str, times: int) -> str:
        return self.console().split(marker)[times] if self.console().count(marker) >= times else ""


def network_spec(number: int, **changes: object) -> NetworkSpec:
    """A network 10.55.<number>.0/24 with gateway and leases."""
    subnet = SubnetSpec(uuid4(), f"10.55.{number}.0/24", f"10.55.{number}.1", dhcp=True, dns_servers=("10.55.0.53",))
    return NetworkSpec(uuid4(), "tests", (replace(subnet, **changes),))  # type: ignore[arg-type]  # the caller's own names


def port_spec(network: NetworkSpec, last_byte: int, rules: tuple[RuleSpec, ...] | None = RULES_WEB) -> PortSpec:
    """A port with the address that ends so."""
    prefix = network.subnets[0].cidr.rsplit(".", 1)[0]
    identity = uuid4()
    mac = "52:54:00:{:02x}:{:02x}:{:02x}".format(*identity.bytes[-3:])
    return PortSpec(identity, network.id, mac, (f"{prefix}.{last_byte}",), f"guest-{last_byte}", rules)


def machine_spec(volume: UUID, port: PortSpec | None = None, ram_mib: int = 128) -> MachineSpec:
    """A machine with that boot volume, on that port."""
    identity = uuid4()
    name = port.hostname if port and port.hostname else "guest"
    seed = Seed(
        {"meta-data": f"instance-id: {identity}\nlocal-hostname: {name}\n".encode(), "user-data": b"#!/bin/sh\ntrue\n"}
    )
    nics = (NicSpec(port.id, port.network_id, port.mac),) if port else ()
    return MachineSpec(identity, name, 1, ram_mib, (DiskSpec(volume, "vda"),), nics, seed, marks={"project": "p-1"})


def make_guest(host: LibvirtHost, driver: KvmDriver, port: PortSpec) -> Guest:
    """A guest with a boot volume and a port, off."""
    driver.volumes.ensure_image(image(), Deadline(SECONDS))
    volume = uuid4()
    driver.volumes.ensure(VolumeSpec(volume, image().virtual_size_bytes, image_id=image().id), Deadline(SECONDS))
    driver.networks.ensure_port(port, Deadline(SECONDS))
    spec = machine_spec(volume, port)
    driver.machines.ensure(spec, Deadline(SECONDS))
    return Guest(host, driver, spec, port)
