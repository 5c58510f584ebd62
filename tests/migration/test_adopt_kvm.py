"""A machine made with virsh becomes a server, is managed, moves to another hypervisor and back, and is released again,
running, with its definition as it was.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from drivers.kvm import names
from resolvers.image.routes import routes
from tests.compute.scene import Scene
from tests.drivers.kvm_foreign import MAC, MIB, machine
from tests.drivers.kvm_host import libvirt_host
from tests.image.cloud import Images
from tests.migration.scene import SHOWN
from tests.servers.libvirt_host import LibvirtHost
from tests.world import World
from workers.compute.live import Live

FOREIGN = """query($host: ID!) { foreignMachines(hostId: $host) { nodes { ref name power vcpus ramMib guest obstacles
  disks { key sizeBytes } interfaces { macAddress } } } }"""
LEDGER = b"ledger".ljust(MIB, b"\1")


CAPTURE = "image { id } job { id }"


@pytest.fixture(scope="module")
def kvm() -> Iterator[LibvirtHost]:
    with libvirt_host("adopt") as host:
        yield host


@pytest.fixture(scope="module")
def other() -> Iterator[LibvirtHost]:
    with libvirt_host("elsewhere") as host:
        yield host


def scene_with(world: World, **hosts: LibvirtHost) -> tuple[Scene, str]:
    """A tenant, hosts of these names, and the id of the first of them."""
    scene = Scene.make(world)
    world.services.extras["live"] = Live(world.db, world.hosts)
    world.admin.do("flavorCreate", "flavor { id }", name="tiny", vcpus=1, ramMib=128, diskGib=1)
    made = [
        world.admin.do("hostRegister", "host { id }", name=name, hypervisor="KVM", endpoint=host.uri)["host"]["id"]
        for name, host in hosts.items()
    ]
    world.work()
    return scene, made[0]


def test_a_machine_made_with_virsh_is_managed_moved_and_released(
    world: World, kvm: LibvirtHost, other: LibvirtHost
) -> None:
    scene, host = scene_with(world, kvm=kvm, elsewhere=other)
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

        scene.do_and_work(
            "serverMigrate", serverId=server, toHypervisor="KVM", gracefulTimeoutS=0, expectTimeoutS=1
        )  # nothing will be heard of a guest that has nothing on its disks
        (migration,) = world.admin.ok(SHOWN, id=server)["server"]["migrations"]
        assert (migration["verified"], migration["seen"]) == (
            "NOT_VERIFIED", "The hypervisor says that it runs; nothing was heard of its guest.",
        )  # fmt: skip
        digests = [hashlib.sha256(each).hexdigest() for each in (bytes(MIB), LEDGER)]
        assert [each["sha256After"] for each in migration["disks"]] == digests
        assert "shut off" in kvm.run(("virsh", "domstate", theirs.ref))
        assert other.run(("virsh", "list", "--name")).strip() == names.of(world.uid(server))
        scene.do_and_work("serverMigrateRevert", serverId=server)
        assert other.run(("virsh", "list", "--all", "--name")).strip() == ""
        assert "running" in kvm.run(("virsh", "domstate", theirs.ref))

        scene.do_and_work("serverDelete", id=server)
        assert "running" in kvm.run(("virsh", "domstate", theirs.ref))
        assert kvm.run(("virsh", "dumpxml", "--inactive", theirs.ref)) == definition
        assert [each["ref"] for each in world.admin.ok(FOREIGN, host=host)["foreignMachines"]["nodes"]] == [theirs.ref]


def test_bytes_go_into_a_volume_and_come_out_of_it(world: World, kvm: LibvirtHost, tmp_path: Path) -> None:
    """Up as an image and into a volume of a real host; out of it as an image, and down: the same bytes."""
    scene, _ = scene_with(world, kvm=kvm)
    folk = Images(world, TestClient(Starlette(routes=routes(world.db, world.settings))), scene.tenant_row, scene.alice)
    up = folk.active(LEDGER, sizeBytes=MIB, sha256=hashlib.sha256(LEDGER).hexdigest())
    made = scene.alice.do("volumeCreate", "volume { id } job { id }", name="v", imageId=up, hypervisor="KVM")
    world.work()
    assert world.job(made["job"]["id"]).status.value == "SUCCEEDED"
    volume = made["volume"]["id"]
    scene.do_and_work("snapshotCreate", volumeId=volume, name="n")
    snapshot = scene.alice.ok("{ snapshots { nodes { id } } }")["snapshots"]["nodes"][0]["id"]
    taken = scene.alice.do("imageCapture", CAPTURE, name="out", volumeId=volume, idempotencyKey="once")
    again = scene.alice.do("imageCapture", CAPTURE, name="out", volumeId=volume, idempotencyKey="once")
    assert again == taken
    assert scene.alice.ok("{ volumes { nodes { status } } }")["volumes"]["nodes"] == [{"status": "HELD"}]
    assert scene.alice.refused("volumeDelete", id=volume) == [("INVALID_STATE", ["id"])]
    assert scene.alice.refused("imageCapture", name="more", volumeId=volume) == [("INVALID_STATE", ["volumeId"])]
    world.work()
    assert world.job(taken["job"]["id"]).status.value == "SUCCEEDED", world.job(taken["job"]["id"]).error
    assert scene.alice.ok("{ volumes { nodes { status } } }")["volumes"]["nodes"] == [{"status": "AVAILABLE"}]
    found = folk.get(taken["image"]["id"])
    content = folk.web.get(found["downloadUrl"]).content
    assert (found["format"], found["virtualSizeBytes"]) == ("QCOW2", 1 << 30)
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    before, after = tmp_path / "before.raw", tmp_path / "after.qcow2"
    before.write_bytes(LEDGER.ljust(2 * MIB, b"\0"))
    after.write_bytes(content)
    compare = ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(before), str(after)]
    subprocess.run(compare, check=True, timeout=60, capture_output=True)  # what is longer of one is zeros
    copied = scene.alice.do("imageCapture", CAPTURE, name="copy", snapshotId=snapshot)
    world.work()
    assert world.job(copied["job"]["id"]).status.value == "SUCCEEDED", world.job(copied["job"]["id"]).error
    after.write_bytes(folk.web.get(folk.get(copied["image"]["id"])["downloadUrl"]).content)
    subprocess.run(compare, check=True, timeout=60, capture_output=True)
    scene.do_and_work("snapshotDelete", id=snapshot)
    scene.do_and_work("volumeDelete", id=volume)
