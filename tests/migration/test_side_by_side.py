"""One tenant, three hypervisors: the same mutations have the same answers on sim, KVM and (simulated) ESXi, but for
what the published matrix says; and one placement chooses among hosts of all kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from drivers import registry
from gateway.kernel import noun
from gateway.kernel.access import Role
from tests.compute.scene import active_image
from tests.drivers.esxi_host import config_of, program_in, simulated
from tests.drivers.kvm_host import libvirt_host
from tests.drivers.matrix import in_graph
from tests.migration.behaviours import Behaviours
from tests.servers.esxsim import PASSWORD, USER, EsxSim
from tests.servers.libvirt_host import LibvirtHost
from tests.world import Client, World
from workers.compute.live import Live

KINDS = ("SIM", "KVM", "ESXI")
SERVER = """query($id: ID!) { server(id: $id) { status allowedActions hypervisor vcpus ramMib diskGib
  ports { macAddress } addresses volumes { name status device sizeGib } } }"""
PLAN = """query($input: ServerCreateInput!) { serverCreatePlan(input: $input) {
  possible decision { counts { constraint hosts }
    verdicts { fits host { hypervisor } reasons { constraint message } } } } }"""


@pytest.fixture(scope="module")
def esxi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory)) as made:
        yield made


@pytest.fixture(scope="module")
def kvm() -> Iterator[LibvirtHost]:
    with libvirt_host("side-by-side") as host:
        yield host


class Cloud:
    """A tenant, and a host of each kind."""

    def __init__(self, world: World, esxi: EsxSim, kvm: LibvirtHost) -> None:
        self.world = world
        self.hosts: dict[str, str] = {}
        config = config_of(esxi)
        options = [{"key": key, "value": value} for key, value in config.options.items()]
        self._host("esx", "ESXI", config.endpoint, options=options, username=USER, secret=PASSWORD)
        self._host("kvm", "KVM", kvm.uri)
        world.host("sim", vcpus=4, ram_mib=4096, disk_gib=100)
        self.hosts["SIM"] = noun.public(world.host_row("sim"))
        tenant = world.tenant()
        self.tenant = noun.public(tenant)
        self.boss: Client = world.member(tenant, Role.MANAGER)
        made = world.admin.do("flavorCreate", "flavor { id }", name="small", vcpus=1, ramMib=64, diskGib=1)
        self.flavor = made["flavor"]["id"]
        self.image = active_image(world, tenant)

    def _host(self, name: str, kind: str, endpoint: str, **given: Any) -> None:
        made = self.world.admin.do(
            "hostRegister", "host { id }", name=name, hypervisor=kind, endpoint=endpoint, **given
        )
        self.hosts[kind] = made["host"]["id"]
        self.world.work()
        assert self.world.host_row(name).status.value == "ONLINE", self.world.host_row(name).status_reason

    def network(self, cidr: str) -> str:
        """A network of its own."""
        made: str = self.boss.do("networkCreate", "network { id }", name="net")["network"]["id"]
        self.boss.do("subnetCreate", "subnet { id }", networkId=made, cidr=cidr)
        return made

    def wish(self, kind: str | None, network: str, *, security: bool) -> dict[str, Any]:
        """A server with one port, with or without packet rules."""
        port = self.boss.do("portCreate", "port { id }", networkId=network, portSecurity=security)["port"]["id"]
        wanted = {"name": "s", "flavorId": self.flavor, "imageId": self.image, "networks": [{"portId": port}]}
        return {**wanted, "hypervisor": kind, "volumes": [{"sizeGib": 1}]}

    def done(self, mutation: str, **given: Any) -> tuple[str, str | None]:
        """How a mutation's job ends: its status, and the code of its error."""
        made = self.boss.do(mutation, "job { id }", **given)
        self.world.work()
        job = self.world.job(made["job"]["id"])
        return job.status.value, (job.error or {}).get("code")

    def life(self, kind: str, network: str) -> list[object]:
        """What a server's owner sees from its making to its end."""
        made = self.boss.do("serverCreate", "server { id } job { id }", **self.wish(kind, network, security=False))
        self.world.work()
        server = made["server"]["id"]
        told: list[object] = [self.world.job(made["job"]["id"]).status.value, self._seen(server)]
        volume = self.boss.do("volumeCreate", "volume { id }", name="data", sizeGib=1, hypervisor=kind)["volume"]["id"]
        self.world.work()
        for mutation, given in (
            ("serverStop", {"id": server, "gracefulTimeoutS": 0}),
            ("volumeAttach", {"volumeId": volume, "serverId": server}),
            ("serverStart", {"id": server}),
            ("serverReboot", {"id": server, "hard": True}),
            ("serverStop", {"id": server, "gracefulTimeoutS": 0}),
            ("volumeDetach", {"volumeId": volume}),
            ("volumeExtend", {"id": volume, "sizeGib": 2}),
        ):
            told += [mutation, self.done(mutation, **given), self._seen(server)]
        again = [self.boss.refused("serverReboot", id=server), self.boss.refused("volumeDetach", volumeId=volume)]
        return [*told, again, self.done("serverDelete", id=server), self.done("volumeDelete", id=volume)]

    def _seen(self, server: str) -> dict[str, Any]:
        """What is seen of it, without what is another's by nature: the hypervisor, addresses and what it can do."""
        found: dict[str, Any] = self.boss.ok(SERVER, id=server)["server"]
        found["allowedActions"] = sorted(set(found["allowedActions"]) - {"SUSPEND", "PAUSE"})
        kept = {key: value for key, value in found.items() if key not in ("hypervisor", "ports", "addresses")}
        return {**kept, "ports": len(found["ports"]), "addresses": len(found["addresses"])}


@pytest.fixture
def cloud(world: World, esxi: EsxSim, kvm: LibvirtHost) -> Cloud:
    return Cloud(world, esxi, kvm)


def test_a_server_lives_the_same_life_everywhere(cloud: Cloud) -> None:
    lives = {kind: cloud.life(kind, cloud.network(f"10.9{at}.0.0/24")) for at, kind in enumerate(KINDS)}
    assert lives["SIM"][0] == "SUCCEEDED"
    assert lives["KVM"] == lives["SIM"]
    assert lives["ESXI"] == lives["SIM"]


def test_the_graph_refuses_exactly_what_the_matrix_says_is_missing(cloud: Cloud) -> None:
    """On a real libvirt with QEMU, the vSphere simulator and a sim host, by asking for everything."""
    cloud.world.services.extras["live"] = Live(cloud.world.db, cloud.world.hosts)
    published = in_graph(cloud.world)
    for at, kind in enumerate(KINDS):
        cidr = f"10.8{at}.0.0/24"
        network = cloud.network(cidr)
        wish = {**cloud.wish(kind, network, security=False), "volumes": []}
        made = cloud.boss.do("serverCreate", "server { id } job { id }", **wish)
        cloud.world.work()
        server = made["server"]["id"]
        assert cloud.boss.ok(SERVER, id=server)["server"]["status"] == "ACTIVE"
        found = Behaviours(cloud.world, cloud.boss, kind, cloud.hosts[kind], server, network, cidr)
        found.all()
        can, missing = (each & found.doors for each in published[kind])
        assert (kind, sorted(found.works), sorted(found.lacks)) == (kind, sorted(can), sorted(missing))


def test_the_plan_names_what_a_kind_lacks_as_the_matrix_says(cloud: Cloud) -> None:
    network = cloud.network("10.99.0.0/24")
    wish = cloud.wish(None, network, security=True)
    plan = cloud.world.admin.ok(PLAN, input={**wish, "tenantId": cloud.tenant})["serverCreatePlan"]
    fits = {each["host"]["hypervisor"]: each["fits"] for each in plan["decision"]["verdicts"]}
    has = {kind: "SECURITY_GROUPS" in registry.get(kind).capabilities for kind in KINDS}
    assert fits == has
    reasons = {each["host"]["hypervisor"]: each["reasons"] for each in plan["decision"]["verdicts"]}
    assert reasons["ESXI"] == [{"constraint": "CAPABILITY", "message": "the host lacks SECURITY_GROUPS"}]
    assert plan["possible"]
    there = cloud.boss.ok(PLAN, input={**wish, "hypervisor": "ESXI"})["serverCreatePlan"]
    assert not there["possible"]
    assert {each["constraint"]: each["hosts"] for each in there["decision"]["counts"]} == {
        "CAPABILITY": 1, "HYPERVISOR": 2,
    }  # fmt: skip
    assert there["decision"]["verdicts"] is None  # hosts are the operators' to see
    made = cloud.boss.do("serverCreate", "server { id }", **{**wish, "hypervisor": "ESXI"})
    cloud.world.work()
    server = cloud.boss.ok(SERVER, id=made["server"]["id"])["server"]
    assert (server["status"], server["hypervisor"]) == ("ERROR", None)  # nothing was begun anywhere


def test_one_placement_takes_hosts_of_all_kinds(cloud: Cloud) -> None:
    network = cloud.network("10.98.0.0/24")
    plan = cloud.world.admin.ok(
        PLAN, input={**cloud.wish(None, network, security=False), "tenantId": cloud.tenant}
    )["serverCreatePlan"]  # fmt: skip
    assert {each["host"]["hypervisor"] for each in plan["decision"]["verdicts"] if each["fits"]} == set(KINDS)
