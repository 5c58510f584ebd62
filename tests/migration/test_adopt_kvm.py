"""A machine made with virsh becomes a server, is managed, moves to another hypervisor and back, and is released again,
running, with its definition as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from tests.compute.scene import Scene
from tests.drivers.kvm_foreign import MAC, MIB, machine
from tests.drivers.kvm_host import libvirt_host
from tests.migration.scene import SHOWN
from tests.servers.libvirt_host import LibvirtHost
from tests.world import World
from workers.compute.live import Live

FOREIGN = """query($host: ID!) { foreignMachines(hostId: $host) { nodes { ref name power vcpus ramMib guest obstacles
  disks { key sizeBytes } interfaces { macAddress } } } }"""
LEDGER = b"ledger".ljust(MIB, b"\1")


@pytest.fixture(scope="module")
def kvm() -> Iterator[LibvirtHost]:
    with libvirt_host("adopt") as host:
        yield host


def test_a_machine_made_with_virsh_is_managed_moved_and_released(world: World, kvm: LibvirtHost) -> None:
    scene = Scene.make(world)
    world.services.extras["live"] = Live(world.db, world.hosts)
    world.admin.do("flavorCreate", "flavor { id }", name="small", vcpus=1, ramMib=128, diskGib=1)
    made = world.admin.do("hostRegister", "host { id }", name="kvm", hypervisor="KVM", endpoint=kvm.uri)
    world.work()
    host = made["host"]["id"]
    with machine(kvm) as theirs:
        theirs.paths[1].write_bytes(LEDGER)
        kvm.run(("virsh", "start", theirs.ref))
        definition = kvm.run(("virsh", "dumpxml", "--inactive", theirs.ref))
        assert world.admin.ok(FOREIGN, host=host)["foreignMachines"]["nodes"] == [
            {
                "ref": theirs.ref, "name": "theirs", "power": "RUNNING", "vcpus": 1, "ramMib": 128, "obstacles": [],
                "guest": "http://debian.org/debian/12", "interfaces": [{"macAddress": MAC}],
                "disks": [{"key": "hda", "sizeBytes": MIB}, {"key": "hdb", "sizeBytes": MIB}],
            }
        ]  # fmt: skip
        adopted = world.admin.do(
            "serverAdopt", "server { id } job { id }", hostId=host, machineRef=theirs.ref, tenantId=scene.tenant,
            networks=[{"macAddress": MAC, "networkId": scene.network, "fixedIp": "10.0.0.77"}],
        )  # fmt: skip
        world.work()
        assert world.job(adopted["job"]["id"]).status.value == "SUCCEEDED", world.job(adopted["job"]["id"]).error
        server = adopted["server"]["id"]
        found = world.admin.ok(SHOWN, id=server)["server"]
        assert (found["name"], found["status"], found["inPlace"]) == ("theirs", "ACTIVE", True)
        assert (found["vcpus"], found["ramMib"], found["addresses"]) == (1, 128, ["10.0.0.77"])
        assert world.admin.ok(FOREIGN, host=host)["foreignMachines"]["nodes"] == []
        scene.do_and_work("serverStop", id=server, gracefulTimeoutS=0)
        assert "shut off" in kvm.run(("virsh", "domstate", theirs.ref))
        scene.do_and_work("serverStart", id=server)

        scene.do_and_work("serverMigrate", serverId=server, toHypervisor="SIM", gracefulTimeoutS=0)
        (migration,) = world.admin.ok(SHOWN, id=server)["server"]["migrations"]
        digests = [hashlib.sha256(each).hexdigest() for each in (bytes(MIB), LEDGER)]
        assert [each["sha256After"] for each in migration["disks"]] == digests
        assert "shut off" in kvm.run(("virsh", "domstate", theirs.ref))
        scene.do_and_work("serverMigrateRevert", serverId=server)
        assert "running" in kvm.run(("virsh", "domstate", theirs.ref))

        scene.do_and_work("serverDelete", id=server)
        assert "running" in kvm.run(("virsh", "domstate", theirs.ref))
        assert kvm.run(("virsh", "dumpxml", "--inactive", theirs.ref)) == definition
        assert [each["ref"] for each in world.admin.ok(FOREIGN, host=host)["foreignMachines"]["nodes"]] == [theirs.ref]
