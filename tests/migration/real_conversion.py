"""A guest that is really converted: a Debian on (simulated) ESXi goes to KVM through virt-v2v, and boots on virtio.

Takes minutes, because virt-v2v works in an appliance and nothing here has hardware virtualization: `make convert` runs
it, `make test` does not look for it. Both the appliance and the guest are emulated.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.drivers.esxi_host import content_of, machine_of
from tests.migration.test_out_of_vmware import Way, esxi, kvm  # noqa: F401 - two are fixtures
from tests.migration.theirs import MAC, MIB, machine
from tests.servers.esxsim import EsxSim
from tests.servers.libvirt_host import LibvirtHost
from tests.world import World
from workers.compute import v2v

SCRIPT = Path(__file__).parents[1] / "guest" / "foreign.sh"
READY = "SG: READY root=/dev/vda1 swap=/dev/vda2 net=virtio_net"
"""Its file system table says sda: swap is on only where virt-v2v put that right."""


@pytest.fixture(scope="module")
def disk() -> Path:
    """The disk of an installed Debian."""
    done = subprocess.run([SCRIPT], check=False, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    return Path(done.stdout.strip())


@pytest.mark.timeout(3600)
def test_a_converted_guest_boots_on_virtio(
    world: World,
    esxi: EsxSim,  # noqa: F811 - the fixture
    kvm: LibvirtHost,  # noqa: F811 - the fixture
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "LIBGUESTFS_BACKEND_SETTINGS" not in os.environ:
        monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")  # a /dev/kvm that is there may not work
    assert v2v.require()
    way = Way(world, esxi, kvm)
    world.admin.do("flavorCreate", "flavor { id }", name="theirs", vcpus=1, ramMib=512, diskGib=2)
    with machine(esxi, (-(-disk.stat().st_size // MIB),), name="accounts", ram_mib=512) as theirs:
        command = ["cp", "--sparse=always", str(disk), str(theirs.flats[0])]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        before = hashlib.sha256(theirs.flats[0].read_bytes()).hexdigest()
        nics = [{"macAddress": MAC, "networkId": way.network, "fixedIp": "10.87.0.17"}]
        server = way.done(
            world.admin, "serverAdopt", hostId=way.esxi, machineRef=theirs.ref, tenantId=way.tenant, networks=nics
        )
        way.done(way.alice, "serverStart", id=server)
        way.done(
            way.alice, "serverMigrate", serverId=server, toHypervisor="KVM", gracefulTimeoutS=0,
            conversion="VIRT_V2V", expectOnConsole=READY, expectTimeoutS=900,
        )  # fmt: skip
        found = way.shown(server)
        (migration,) = found["migrations"]
        (carried,) = migration["disks"]
        assert (found["status"], found["host"]["name"], found["devices"]) == ("ACTIVE", "kvm", "OWN")
        assert migration["verified"] == "BOOTED"
        assert READY in migration["seen"]
        assert (carried["device"], carried["sha256Before"]) == ("vda", before)
        assert carried["sha256After"] != before
        assert hashlib.sha256(theirs.flats[0].read_bytes()).hexdigest() == before  # what it came from was left alone
        (name,) = kvm.run(("virsh", "list", "--name")).split()
        definition = kvm.run(("virsh", "dumpxml", name))
        assert "<target dev='vda' bus='virtio'/>" in definition
        assert "<model type='virtio'/>" in definition.partition("<interface")[2].partition("</interface>")[0]
        way.done(way.alice, "serverMigrateConfirm", serverId=server)
        assert machine_of(content_of(esxi), world.uid(server)) is None
        way.done(way.alice, "serverDelete", id=server)
        assert kvm.run(("virsh", "list", "--all", "--name")).strip() == ""
        assert not list((world.settings.state_dir / "migrations").glob("*"))
