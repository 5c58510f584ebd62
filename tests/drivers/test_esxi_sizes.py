"""Other sizes and other hosts for servers on (simulated) ESXi and vCenter, through GraphQL; another client sees what
became of the machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.kernel import noun
from gateway.kernel.access import Role
from tests.compute.scene import active_image
from tests.drivers.esxi_host import CLUSTER, config_of, content_of, machine_of, program_in, simulated
from tests.servers.esxsim import PASSWORD, USER, EsxSim
from tests.world import World

HOSTS = ("DC0_C0_H0", "DC0_C0_H1")
SHOWN = "query($id: ID!) { server(id: $id) { status vcpus ramMib diskGib host { name } } }"
PLAN = """query($input: ServerRelocateInput!) { serverRelocatePlan(input: $input) {
  possible userErrors { ... on Unsupported { capability hypervisor } } } }"""
MIB = 1 << 20


class Vsphere:
    """A tenant with a running server on an endpoint, and its machine as another client sees it."""

    def __init__(self, world: World, sim: EsxSim, *hosts: str) -> None:
        self.world, self.sim = world, sim
        for host in hosts or (None,):
            config = config_of(sim, host=host, **CLUSTER) if host is not None else config_of(sim)
            options = [{"key": key, "value": value} for key, value in config.options.items()]
            made = world.admin.do(
                "hostRegister", "host { id } job { id }", name=host or "esx", hypervisor="ESXI", options=options,
                endpoint=config.endpoint, username=USER, secret=PASSWORD, vcpuRatio=1.0,
            )  # fmt: skip
            self.finish(made)
        tenant = world.tenant()
        self.boss = world.member(tenant, Role.MANAGER)
        self.flavors = {
            name: self.flavor(name, *size) for name, size in (("small", (1, 256, 1)), ("large", (2, 512, 2)))
        }
        image = active_image(world, tenant)
        self.tenant = noun.public(tenant)
        network = self.boss.do("networkCreate", "network { id }", name="net")["network"]["id"]
        self.boss.do("subnetCreate", "__typename", networkId=network, cidr="10.0.0.0/24")
        port = self.boss.do("portCreate", "port { id }", networkId=network, portSecurity=False)["port"]["id"]
        given = {"name": "s", "flavorId": self.flavors["small"], "imageId": image, "networks": [{"portId": port}]}
        made = self.boss.do("serverCreate", "server { id } job { id }", **given)
        self.finish(made)
        self.server: str = made["server"]["id"]
        self.content = content_of(sim)

    def flavor(self, name: str, vcpus: int, ram_mib: int, disk_gib: int) -> str:
        size = {"vcpus": vcpus, "ramMib": ram_mib, "diskGib": disk_gib}
        return str(self.world.admin.do("flavorCreate", "flavor { id }", name=name, **size)["flavor"]["id"])

    def act(self, mutation: str, **given: Any) -> None:
        """Without patience: the simulated guests have no tools that could shut them down."""
        self.finish(self.boss.do(mutation, "job { id }", serverId=self.server, gracefulTimeoutS=0, **given))

    def finish(self, made: dict[str, Any]) -> None:
        self.world.work()
        kept = self.world.job(made["job"]["id"])
        assert kept.status.value == "SUCCEEDED", (kept.error, kept.steps)

    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = self.world.admin.ok(SHOWN, id=self.server)["server"]
        return found

    def machine(self) -> tuple[str, str, int, int, int]:
        """Its host, its power, vCPUs, memory, and the MiB of its disk."""
        vm = machine_of(self.content, self.world.uid(self.server))
        (disk,) = (each for each in vm.config.hardware.device if type(each).__name__ == "vim.vm.device.VirtualDisk")
        hardware = vm.config.hardware
        size = (int(hardware.numCPU), int(hardware.memoryMB), int(disk.capacityInKB) >> 10)
        return str(vm.runtime.host.name), str(vm.runtime.powerState), *size

    def delete(self) -> None:
        self.finish(self.boss.do("serverDelete", "job { id }", id=self.server))
        assert machine_of(self.content, self.world.uid(self.server)) is None
        assert not list(self.sim.daemon.folder.glob("*/stratograph/*/volumes/*"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory)) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory), mode="cluster") as made:
        yield made


def test_a_server_on_esxi_gets_another_size(world: World, alone: EsxSim) -> None:
    at = Vsphere(world, alone)
    host = at.machine()[0]
    for decision, size in (("serverResizeRevert", (1, 256, 1024)), ("serverResizeConfirm", (2, 512, 2048))):
        at.act("serverResize", flavorId=at.flavors["large"])
        assert at.machine() == (host, "poweredOn", 2, 512, 1024)
        assert at.shown()["status"] == "VERIFY_RESIZE"
        at.act(decision)
        assert at.machine() == (host, "poweredOn", *size)
        assert at.shown()["status"] == "ACTIVE"
    lacks = at.boss.ok(PLAN, input={"serverId": at.server})["serverRelocatePlan"]
    assert lacks == {"possible": False, "userErrors": [{"capability": "RELOCATE", "hypervisor": "ESXI"}]}
    at.delete()


def test_a_server_moves_between_the_hosts_of_a_vcenter(world: World, cluster: EsxSim) -> None:
    """As it runs, shut down for it, off; and to where there is room for its new size, and back."""
    at = Vsphere(world, cluster, *HOSTS)
    first = at.shown()["host"]["name"]
    (second,) = set(HOSTS) - {first}
    assert at.machine() == (first, "poweredOn", 1, 256, 1024)
    at.act("serverRelocate")
    assert at.machine() == (second, "poweredOn", 1, 256, 1024)
    assert (at.shown()["status"], at.shown()["host"]["name"]) == ("ACTIVE", second)
    at.act("serverRelocate", live=False)
    assert at.machine()[:2] == (first, "poweredOn")
    at.finish(at.boss.do("serverStop", "job { id }", id=at.server, gracefulTimeoutS=0))
    at.act("serverRelocate")
    assert at.machine()[:2] == (second, "poweredOff")
    host = world.host_row(second)
    ratio = host.used_vcpus / host.vcpus  # from now on it is full
    at.world.admin.do("hostUpdate", "host { id }", id=noun.public(host), vcpuRatio=ratio)
    at.act("serverResize", flavorId=at.flavors["large"])
    assert at.machine() == (first, "poweredOff", 2, 512, 1024)
    at.act("serverResizeRevert")
    assert at.machine() == (second, "poweredOff", 1, 256, 1024)
    at.delete()
