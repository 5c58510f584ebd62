"""A machine's screen on KVM: without a port anywhere, of older machines too, and by a local socket only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import libvirt
import pytest

from drivers.api import (
    AdoptionSpec,
    Capability,
    Deadline,
    DiskSpec,
    HostConfig,
    PowerAction,
    Refused,
    Transient,
    Unsupported,
    VolumeSpec,
    capabilities,
)
from drivers.contracts.console import ask, shown
from drivers.kvm import DRIVER
from drivers.kvm.console import has_screens
from drivers.kvm.driver import KvmDriver
from drivers.kvm.link import Link
from tests.drivers.kvm_foreign import machine
from tests.drivers.kvm_host import SECONDS, connect, libvirt_host, machine_spec, wait_for
from tests.servers.libvirt_host import LibvirtHost

SIZES = {(640, 480), (720, 400)}
"""Of a VGA before its BIOS ran, and in text mode."""
LISTENERS = ("ss", "-Hltn", "sport >= 5900 and sport < 6000")


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("qemu:///system", True),
        ("qemu+unix:///system?socket=/run/x", True),
        ("qemu+tls://rack1-7.example/system", False),
        ("qemu+ssh://root@rack1-7.example/system", False),
        ("qemu+tcp://rack1-7.example/system", False),
        ("qemu://rack1-7.example/system", False),
    ],
)
def test_a_host_that_is_reached_by_network_shows_no_screen(endpoint: str, local: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a parameter
    """It says so before anybody asks, and refuses by name without a word to the host."""
    assert has_screens(endpoint) is local
    driver = KvmDriver(Link(HostConfig("far", endpoint, tmp_path, {"allow_plain_tcp": "true"})))
    assert (Capability.GRAPHICAL_CONSOLE in capabilities(driver, DRIVER)) is local
    if not local:
        with pytest.raises(Unsupported) as refused:
            driver.open_console(uuid4(), Deadline(SECONDS))
        assert refused.value.capability is Capability.GRAPHICAL_CONSOLE


@pytest.fixture(scope="module")
def host() -> Iterator[LibvirtHost]:
    with libvirt_host("screen") as made:
        yield made


@pytest.fixture
def driver(host: LibvirtHost, tmp_path: Path) -> Iterator[KvmDriver]:
    made = connect(host, tmp_path)
    yield made
    made.close()


def looked_at(driver: KvmDriver, machine: UUID) -> None:
    """Its screen is there."""
    with driver.open_console(machine, Deadline(SECONDS)) as line:
        line.settimeout(SECONDS)
        assert shown(line) in SIZES


def test_no_port_is_open_for_it_and_older_machines_show_theirs(host: LibvirtHost, driver: KvmDriver) -> None:
    volume = uuid4()
    driver.volumes.ensure(VolumeSpec(volume, 1 << 20), Deadline(SECONDS))
    spec = machine_spec(volume)
    driver.machines.ensure(spec, Deadline(SECONDS))
    driver.machines.power(spec.id, PowerAction.ON, Deadline(SECONDS))
    with driver.open_console(spec.id, Deadline(SECONDS)) as line:
        line.settimeout(SECONDS)
        assert shown(line) in SIZES
        assert host.run(LISTENERS) == ""
        (daemon,) = host.pids("^libvirtd -d")
        host.run(("kill", "-9", str(daemon)))
        assert len(ask(line)) == 4  # it is between QEMU and us: libvirtd is not on the way
    host.run(("libvirtd", "-d", "-p", "/run/libvirt/libvirtd.pid"))
    wait_for(lambda: _off(driver, spec.id), SECONDS, "libvirtd is back, and the machine is off")

    raw = libvirt.open(host.uri)
    domain = raw.lookupByUUIDString(str(spec.id))
    older = domain.XMLDesc().replace("<listen type='none'/>", "<listen type='address' address='127.0.0.1'/>")
    assert raw.defineXML(older).UUIDString() == str(spec.id)
    raw.close()
    driver.machines.power(spec.id, PowerAction.ON, Deadline(SECONDS))
    assert "127.0.0.1:5900" in host.run(LISTENERS)
    looked_at(driver, spec.id)
    driver.machines.remove(spec.id, Deadline(SECONDS))


def test_adopted_machines_show_what_their_owner_gave_them(host: LibvirtHost, driver: KvmDriver) -> None:
    for more, has_one in (("<graphics type='vnc'><listen type='socket'/></graphics>", True), ("", False)):
        with machine(host, more=more) as theirs:
            disks = {"hda": DiskSpec(uuid4(), "vda"), "hdb": DiskSpec(uuid4(), "vdb")}
            spec = AdoptionSpec(theirs.ref, uuid4(), "accounts", disks, {"server": "server_1"})
            driver.adopt(spec, Deadline(SECONDS))
            with pytest.raises(Refused, match="does not run"):
                driver.open_console(spec.id, Deadline(SECONDS))
            driver.machines.power(spec.id, PowerAction.ON, Deadline(SECONDS))
            if has_one:
                looked_at(driver, spec.id)
            else:
                with pytest.raises(Unsupported, match="without a VNC display"):
                    driver.open_console(spec.id, Deadline(SECONDS))
            driver.disown(spec.id, Deadline(SECONDS))


def _off(driver: KvmDriver, machine_id: UUID) -> bool:
    try:
        driver.machines.power(machine_id, PowerAction.OFF, Deadline(SECONDS))
    except Transient:
        return False
    return True
