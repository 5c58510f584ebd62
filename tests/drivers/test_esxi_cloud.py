"""A tenant's servers on a simulated ESXi host and on a sim host side by side, through the same GraphQL mutations."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.kernel import noun
from gateway.kernel.access import Role
from tests.compute.scene import CONTENT, active_image
from tests.drivers.esxi_host import config_of, content_of, machine_of, program_in, simulated
from tests.servers.esxsim import PASSWORD, USER, EsxSim
from tests.world import Client, World

SERVER = "query($id: ID!) { server(id: $id) { status hypervisor } }"
PLAN = """query($input: ServerCreateInput!) { serverCreatePlan(input: $input) { decision {
  counts { constraint hosts } verdicts { fits host { name } reasons { constraint message } } } } }"""


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory)) as made:
        yield made


class Mixed:
    """One tenant, one ESXi host, one sim host."""

    def __init__(self, world: World, sim: EsxSim) -> None:
        self.world, self.sim = world, sim
        config = config_of(sim)
        world.admin.do(
            "hostRegister", "host { id }", name="esx", hypervisor="ESXI", endpoint=config.endpoint,
            options=[{"key": key, "value": value} for key, value in config.options.items()],
            username=USER, secret=PASSWORD,
        )  # fmt: skip
        world.work()
        world.host("simulated", vcpus=4, ram_mib=4096, disk_gib=100)
        tenant = world.tenant()
        self.tenant = noun.public(tenant)
        self.manager: Client = world.member(tenant, Role.MANAGER)
        made = world.admin.do("flavorCreate", "flavor { id }", name="small", vcpus=1, ramMib=256, diskGib=1)
        self.flavor = made["flavor"]["id"]
        self.network = self.manager.do("networkCreate", "network { id }", name="net")["network"]["id"]
        self.manager.do(
            "subnetCreate", "subnet { id }", networkId=self.network, cidr="10.0.0.0/24", dnsServers=["10.0.0.53"]
        )
        self.image = active_image(world, tenant)

    def ask(self, hypervisor: str | None, *, security: bool) -> dict[str, Any]:
        port = self.manager.do("portCreate", "port { id }", networkId=self.network, portSecurity=security)
        wanted = {"name": "s", "flavorId": self.flavor, "imageId": self.image, "hypervisor": hypervisor}
        return {**wanted, "networks": [{"portId": port["port"]["id"]}], "userData": "#cloud-config\n{}\n"}

    def server(self, hypervisor: str, *, security: bool) -> str:
        asked = self.ask(hypervisor, security=security)
        made = self.manager.do("serverCreate", "server { id } job { id }", **asked)
        self.finish(made)
        server: str = made["server"]["id"]
        assert self.manager.ok(SERVER, id=server)["server"] == {"status": "ACTIVE", "hypervisor": hypervisor}
        return server

    def act(self, mutation: str, **given: Any) -> None:
        self.finish(self.manager.do(mutation, "job { id }", **given))

    def finish(self, made: dict[str, Any]) -> None:
        self.world.work()
        kept = self.world.job(made["job"]["id"])
        assert kept.status.value == "SUCCEEDED", kept.error


@pytest.fixture
def mixed(world: World, sim: EsxSim) -> Mixed:
    return Mixed(world, sim)


def test_one_tenant_on_two_hypervisors(mixed: Mixed) -> None:
    """The same mutations for both; on the ESXi host another client sees what became of them."""
    servers = {kind: mixed.server(kind, security=kind == "SIM") for kind in ("ESXI", "SIM")}
    vm = machine_of(content_of(mixed.sim), mixed.world.uid(servers["ESXI"]))
    assert vm.runtime.powerState == "poweredOn"
    assert (vm.config.hardware.numCPU, vm.config.hardware.memoryMB) == (1, 256)
    disks = list(mixed.sim.daemon.folder.glob("*/stratograph/*/volumes/*/disk-flat.vmdk"))
    assert len(disks) == 1
    assert disks[0].stat().st_size == 1 << 30
    with disks[0].open("rb") as file:
        assert file.read(len(CONTENT)) == CONTENT
    for kind, server in servers.items():
        volume = mixed.manager.do("volumeCreate", "volume { id } job { id }", name="data", sizeGib=1, hypervisor=kind)[
            "volume"
        ]["id"]
        mixed.world.work()
        mixed.act("volumeAttach", volumeId=volume, serverId=server)
        mixed.act("serverStop", id=server, gracefulTimeoutS=0)
        mixed.act("serverStart", id=server)
        mixed.act("serverReboot", id=server, hard=True)
        mixed.act("volumeDetach", volumeId=volume)
        mixed.act("volumeExtend", id=volume, sizeGib=2)
        made = mixed.manager.do("snapshotCreate", "snapshot { id } job { id }", name="before", volumeId=volume)
        mixed.finish(made)
        mixed.act("snapshotDelete", id=made["snapshot"]["id"])
        _another_port_and_back(mixed, server, security=kind == "SIM")
        _there_and_back(mixed, server)
        mixed.act("serverDelete", id=server)
        mixed.act("volumeDelete", id=volume)
    assert machine_of(content_of(mixed.sim), mixed.world.uid(servers["ESXI"])) is None
    assert not list(mixed.sim.daemon.folder.glob("*/stratograph/*/volumes/*"))
    assert not list(mixed.sim.daemon.folder.glob("*/stratograph/*/machines/*"))


def _another_port_and_back(mixed: Mixed, server: str, *, security: bool) -> None:
    wanted = {"networkId": mixed.network, "portSecurity": security}
    port = mixed.manager.do("portCreate", "port { id macAddress }", **wanted)["port"]
    mixed.act("portAttach", serverId=server, portId=port["id"])
    vm = machine_of(content_of(mixed.sim), mixed.world.uid(server))
    if vm is not None:
        macs = [each.macAddress for each in vm.config.hardware.device if hasattr(each, "macAddress")]
        assert (len(macs), macs.count(port["macAddress"])) == (2, 1)
    mixed.act("portDetach", portId=port["id"], delete=True)


def _there_and_back(mixed: Mixed, server: str) -> None:
    """Three snapshots; the server goes back to the first, which runs on, the middle goes, the others go with it."""
    asked = "serverSnapshot { id } job { id }"
    names = ("first", "middle", "last")
    taken = [
        mixed.manager.do("serverSnapshotCreate", asked, serverId=server, name=name, withMemory=name == "first")
        for name in names
    ]
    for each in taken:
        mixed.finish(each)
    first, middle, last = (each["serverSnapshot"]["id"] for each in taken)
    mixed.act("serverSnapshotRevert", id=last)
    assert mixed.manager.ok(SERVER, id=server)["server"]["status"] == "STOPPED"
    mixed.act("serverSnapshotRevert", id=first)
    assert mixed.manager.ok(SERVER, id=server)["server"]["status"] == "ACTIVE"
    mixed.act("serverSnapshotDelete", id=middle)
    tree = "query { serverSnapshots { nodes { id current parent { id } } } }"
    assert mixed.manager.ok(tree)["serverSnapshots"]["nodes"] == [
        {"id": first, "current": True, "parent": None}, {"id": last, "current": False, "parent": {"id": first}},
    ]  # fmt: skip


def test_a_guest_without_dhcp_is_told_its_address(mixed: Mixed) -> None:
    server = mixed.server("ESXI", security=False)
    vm = machine_of(content_of(mixed.sim), mixed.world.uid(server))
    told = {each.key: each.value for each in vm.config.extraConfig}
    assert told["guestinfo.metadata.encoding"] == "gzip+base64"
    metadata = json.loads(unpacked(told["guestinfo.metadata"]))
    assert metadata["instance-id"] == server
    assert metadata["network.encoding"] == "gzip+base64"
    network = json.loads(unpacked(metadata["network"]))
    (nic,) = network["ethernets"].values()
    assert "dhcp4" not in nic
    assert [each.partition("/")[2] for each in nic["addresses"]] == ["24"]
    assert nic["nameservers"] == {"addresses": ["10.0.0.53"]}
    assert nic["routes"] == [{"to": "default", "via": "10.0.0.1"}]
    assert unpacked(told["guestinfo.userdata"]) == b"#cloud-config\n{}\n"
    mixed.act("serverStop", id=server, gracefulTimeoutS=0)
    told = {each.key: each.value for each in vm.config.extraConfig}
    assert (told["guestinfo.userdata"], told["guestinfo.userdata.encoding"]) == ("", "")
    mixed.act("serverDelete", id=server)


def test_the_plan_names_what_an_esxi_host_cannot_do(mixed: Mixed) -> None:
    """Port security needs packet rules; the plan says so before anything is made, and the sim host takes it."""
    asked = mixed.ask("ESXI", security=True)
    plan = mixed.world.admin.ok(PLAN, input={**asked, "tenantId": mixed.tenant})["serverCreatePlan"]["decision"]
    (esx,) = [each for each in plan["verdicts"] if each["host"]["name"] == "esx"]
    assert not esx["fits"]
    assert any("SECURITY_GROUPS" in reason["message"] for reason in esx["reasons"])
    made = mixed.manager.do("serverCreate", "server { id } job { id }", **{**asked, "hypervisor": None})
    mixed.finish(made)
    server = made["server"]["id"]
    assert mixed.manager.ok(SERVER, id=server)["server"]["hypervisor"] == "SIM"
    mixed.act("serverDelete", id=server)


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))
