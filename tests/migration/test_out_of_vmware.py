"""The whole way: a machine that others made on (simulated) ESXi is adopted, carried to KVM, and really boots there.

Its disk is the tiny guest's, as VMware would have it: behind a paravirtual SCSI controller and a vmxnet3 card, which
the guest finds again in QEMU. Nothing of its disk is changed: both checksums are of the same bytes, read from both
hosts.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from drivers.api import Deadline
from gateway.kernel import noun
from resolvers.image.routes import routes
from tests.drivers.esxi_host import config_of, content_of, machine_of, program_in, simulated
from tests.drivers.kvm_host import SECONDS, connect, libvirt_host, wait_for
from tests.guest.agent import AGENT
from tests.guest.image import guest_image
from tests.migration.scene import SHOWN
from tests.migration.theirs import MAC, MIB, Theirs, machine
from tests.servers.esxsim import PASSWORD, USER, EsxSim
from tests.servers.libvirt_host import LibvirtHost
from tests.world import Client, World

READY = "SG: READY"
REF = "query($host: ID!) { foreignMachines(hostId: $host) { nodes { ref name power obstacles disks { sizeBytes } } } }"
CONSOLE = "query($id: ID!) { server(id: $id) { consoleLog } }"


@pytest.fixture(scope="module")
def esxi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory), machines=0) as made:
        yield made


@pytest.fixture(scope="module")
def kvm() -> Iterator[LibvirtHost]:
    with libvirt_host("way-out") as host:
        yield host


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny guest's disk as a host has it: every byte that the guest sees."""
    raw = tmp_path_factory.mktemp("guest") / "guest.raw"
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(guest_image()), str(raw)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return raw


@pytest.fixture
def theirs(esxi: EsxSim, disk: Path) -> Iterator[Theirs]:
    sizes = (-(-disk.stat().st_size // MIB), 1)
    with machine(esxi, sizes, name="accounts") as made:
        with disk.open("rb") as source, made.flats[0].open("r+b") as flat:
            while piece := source.read(MIB):
                if piece.strip(b"\0"):
                    flat.seek(source.tell() - len(piece))
                    flat.write(piece)
        made.flats[1].write_bytes(b"ledger".ljust(MIB, b"\1"))
        yield made


class Way:
    """A tenant, the two hosts, and the machine that is to move."""

    def __init__(self, world: World, esxi: EsxSim, kvm: LibvirtHost) -> None:
        self.world = world
        config = config_of(esxi)
        options = [{"key": key, "value": value} for key, value in config.options.items()]
        self.esxi = self._host("esx", "ESXI", config.endpoint, options=options, username=USER, secret=PASSWORD)
        self.kvm = self._host("kvm", "KVM", kvm.uri)
        tenant = world.tenant()
        self.tenant = noun.public(tenant)
        self.alice: Client = world.member(tenant)
        world.admin.do("flavorCreate", "flavor { id }", name="small", vcpus=1, ramMib=128, diskGib=1)
        self.network = self.alice.do("networkCreate", "network { id }", name="net")["network"]["id"]
        self.alice.do("subnetCreate", "subnet { id }", networkId=self.network, cidr="10.87.0.0/24")

    def _host(self, name: str, kind: str, endpoint: str, **given: Any) -> str:
        made = self.world.admin.do(
            "hostRegister", "host { id }", name=name, hypervisor=kind, endpoint=endpoint, **given
        )  # fmt: skip
        self.world.work()
        assert self.world.host_row(name).status.value == "ONLINE", self.world.host_row(name).status_reason
        return str(made["host"]["id"])

    def done(self, client: Client, mutation: str, **given: Any) -> str:
        """Ask for it and carry it out; the server's id."""
        made = client.do(mutation, "server { id } job { id }", **given)
        self.world.work()
        job = self.world.job(made["job"]["id"])
        assert job.status.value == "SUCCEEDED", (job.error, job.steps)
        return str(made["server"]["id"])

    def downloaded_ledger(self) -> bytes:
        """The machine's second disk, as its owner gets it while the machine is off."""
        (volume,) = self.alice.ok("{ volumes { nodes { id } } }")["volumes"]["nodes"]
        made = self.alice.do("imageCapture", "image { id } job { id }", name="i", volumeId=volume["id"], format="RAW")
        self.world.work()
        assert self.world.job(made["job"]["id"]).status.value == "SUCCEEDED", self.world.job(made["job"]["id"]).error
        asked = "query($id: ID!) { image(id: $id) { downloadUrl } }"
        url = self.alice.ok(asked, id=made["image"]["id"])["image"]["downloadUrl"]
        app = Starlette(routes=routes(self.world.db, self.world.settings))
        content: bytes = TestClient(app, base_url=self.world.settings.url).get(url).content
        return content

    def shown(self, server: str) -> dict[str, Any]:
        """What an operator sees of it."""
        found: dict[str, Any] = self.world.admin.ok(SHOWN, id=server)["server"]
        return found


def test_a_machine_leaves_vmware_and_boots_on_kvm(
    world: World, esxi: EsxSim, kvm: LibvirtHost, theirs: Theirs, tmp_path: Path
) -> None:
    way = Way(world, esxi, kvm)
    nics = [{"macAddress": MAC, "networkId": way.network, "fixedIp": "10.87.0.17"}]
    server = way.done(
        world.admin, "serverAdopt", hostId=way.esxi, machineRef=theirs.ref, tenantId=way.tenant, networks=nics
    )
    assert theirs.vm.config.instanceUuid == str(world.uid(server))
    assert way.downloaded_ledger() == theirs.flats[1].read_bytes()
    way.done(way.alice, "serverStart", id=server)
    assert theirs.vm.runtime.powerState == "poweredOn"
    way.done(
        way.alice, "serverMigrate", serverId=server, toHypervisor="KVM", gracefulTimeoutS=0, expectOnConsole=READY,
        expectTimeoutS=120, copyWhile="RUNNING",
    )  # fmt: skip
    found = way.shown(server)
    (migration,) = found["migrations"]
    assert (found["status"], found["host"]["name"], found["devices"]) == ("ACTIVE", "kvm", "VMWARE")
    assert migration["verified"] == "BOOTED"
    assert READY in migration["seen"]
    assert f"it asked for the address of {MAC}" in migration["seen"]
    digest = hashlib.sha256(theirs.flats[0].read_bytes()).hexdigest()
    ledger = hashlib.sha256(theirs.flats[1].read_bytes()).hexdigest()
    carried = [(each["device"], each["sha256Before"], each["sha256After"]) for each in migration["disks"]]
    assert carried == [("vda", digest, digest), ("vdb", ledger, ledger)]
    assert (found["ports"], found["addresses"]) == ([{"macAddress": MAC}], ["10.87.0.17"])
    assert (theirs.vm.runtime.powerState, theirs.vm.snapshot) == ("poweredOff", None)
    with closing(connect(kvm, tmp_path)) as driver:
        assert not driver.guest_signs(world.uid(server), Deadline(SECONDS)).agent
        kvm.run(("curl", "-sSf", "-m", "30", "--data-binary", AGENT, "http://10.87.0.17/cgi-bin/run"), seconds=40)
        wait_for(
            lambda: driver.guest_signs(world.uid(server), Deadline(SECONDS)).agent, SECONDS, "the guest's agent answers"
        )
    way.done(way.alice, "serverMigrateConfirm", serverId=server)
    assert machine_of(content_of(esxi), world.uid(server)) is None
    assert len(theirs.vm.layoutEx.file) or theirs.vm.config.hardware.device  # handed back, with all it had
    way.done(way.alice, "serverDelete", id=server)
    assert kvm.run(("virsh", "list", "--all", "--name")).strip() == ""
