"""Real guests on a real hypervisor, from the uploaded image to nothing left, by the public API."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from gateway.client import Client, Problem
from tests.compute.screens import Screen, dial
from tests.end_to_end.kvm import BOOT_S, NOTHING, Guest, Site, allow, make_group, make_guest, make_scene, site
from tests.end_to_end.processes import PROGRAM, wait_for
from tests.end_to_end.scene import NO_USE, Scene, use_of_hosts
from tests.guest.image import guest_image

pytestmark = pytest.mark.timeout(600)

CHANGES = "subscription($id: ID!) { serverChanged(id: $id) { status statusReason } }"
USER_DATA = "#!/bin/sh\necho 'SG: HELLO from user data' >/dev/console\n"
SEEN_S = 10.0
CTRL_ALT_DEL = (0xFFE3, 0xFFE9, 0xFFFF)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("kvm"), "e2e") as found:
        yield found


@pytest.fixture
def scene(at: Site) -> Iterator[Scene]:
    """A tenant; afterwards nothing of it may be left, in the cloud or on the host."""
    made = make_scene(at, "10.91.0.0/24")
    yield made
    made.dismantle()
    assert at.objects() == NOTHING
    assert set(map(str, use_of_hosts(at.client).values())) == {str(NO_USE)}


def test_a_guest_from_its_image_to_nothing(at: Site, scene: Scene) -> None:
    volume = scene.make_volume(sizeGib=1)
    pair = at.client.do("keypairCreate", "keypair { id publicKey }", name="kvm")["keypair"]
    group, rules = make_group(scene, 80)
    guest = make_guest(
        at, scene, volumes=[{"volumeId": volume}], keypairId=pair["id"], userData=USER_DATA,
        networks=[{"networkId": scene.network, "securityGroupIds": [group]}],
    )  # fmt: skip
    _came_up(guest, pair["publicKey"])
    _filtered(guest, group, rules[80])
    _rebooted(guest)
    _plugged(guest)
    copy = _stored(guest, volume)
    _driven(guest)
    screen = _seen(at, guest)
    _killed_behind_our_back(at, guest)
    assert screen.end() == (1000, "The console is over")
    _sized(at, guest)

    scene.act("serverDelete", id=guest.id)
    assert guest.shown is None
    scene.act("volumeDelete", id=volume)
    scene.act("volumeDelete", id=copy)
    at.client.do("keypairDelete", "id", id=pair["id"])
    at.client.do("securityGroupDelete", "id", id=group)


def _came_up(guest: Guest, public_key: str) -> None:
    (port,) = guest.shown["ports"]
    assert f"ip={port['ipAddresses'][0]} " in guest.says("READY")
    assert port["macAddress"] in guest.says("NIC eth0")
    assert f"id={guest.id} " in guest.says("CIDATA")
    assert guest.says("SSHKEY") == "SG: SSHKEY " + " ".join(public_key.split()[:2])
    assert guest.says("HELLO") == "SG: HELLO from user data"
    assert guest.says("USERDATA") == "SG: USERDATA rc=0"
    assert "size=2097152 " in guest.says("DISK vdb")
    assert guest.answers()


def _filtered(guest: Guest, group: str, rule: str) -> None:
    """Rules act on a running guest: port 80 is shut, and opened again."""
    guest.scene.act("securityGroupRuleRemove", id=rule)
    wait_for("the rule's end", lambda: not guest.answers())
    allow(guest.scene, group, 80)
    wait_for("the rule's effect", guest.answers)


def _rebooted(guest: Guest) -> None:
    assert "rc=0" in guest.shell("echo kept >/data/vdb/mine && sync")
    guest.scene.act("serverReboot", id=guest.id)
    assert "boots=2 " in guest.says("READY", 2)
    assert guest.says("USERDATA again") == "SG: USERDATA again"
    assert guest.shell("cat /data/vdb/mine") == "kept\nrc=0\n"


def _plugged(guest: Guest) -> None:
    """Another interface while it runs: it gets its own address by DHCP, and gives it up again; a moment, and back."""
    scene = guest.scene
    fields = "port { id macAddress ipAddresses } job { id }"
    made = scene.client.do("portAttach", fields, serverId=guest.id, networkId=scene.network)
    scene.wait(made)
    port = made["port"]
    assert guest.says("NIC eth1").startswith(f"SG: NIC eth1 {port['macAddress']} {port['ipAddresses'][0]}/")
    scene.act("portDetach", portId=port["id"], delete=True)
    taken = scene.client.do(
        "serverSnapshotCreate", "serverSnapshot { id } job { id }", serverId=guest.id, name="s", withMemory=True
    )
    scene.wait(taken)
    assert "rc=0" in guest.shell("echo lost >/data/vdb/mine && sync")
    scene.act("serverSnapshotRevert", id=taken["serverSnapshot"]["id"])
    wait_for("the guest's answer", guest.answers)
    assert guest.shell("cat /data/vdb/mine") == "kept\nrc=0\n"
    scene.act("serverSnapshotDelete", id=taken["serverSnapshot"]["id"])


def _stored(guest: Guest, volume: str) -> str:
    """The data volume out and in again, grown, and copied by a snapshot; the copy."""
    scene = guest.scene
    scene.act("volumeDetach", volumeId=volume)
    guest.says("DISKGONE vdb")
    scene.act("volumeAttach", volumeId=volume, serverId=guest.id)
    guest.says("DISK vdb", 3)
    assert guest.shell("cat /data/vdb/mine") == "kept\nrc=0\n"
    scene.act("volumeExtend", id=volume, sizeGib=2)
    assert guest.says("DISKSIZE vdb") == "SG: DISKSIZE vdb 4194304"
    snapshot = scene.client.do("snapshotCreate", "snapshot { id } job { id }", name="s", volumeId=volume)
    scene.wait(snapshot)
    assert "rc=0" in guest.shell("echo changed >/data/vdb/mine && sync")
    copy = scene.make_volume(name="copy", snapshotId=snapshot["snapshot"]["id"])
    scene.act("snapshotDelete", id=snapshot["snapshot"]["id"])
    scene.act("volumeAttach", volumeId=copy, serverId=guest.id)
    guest.says("DISK vdc")
    assert guest.shell("cat /data/vdc/mine") == "kept\nrc=0\n"
    return copy


def _driven(guest: Guest) -> None:
    job = guest.scene.act("serverStop", id=guest.id)
    assert job is not None
    assert job["steps"][0]["message"] == "The guest shut down."
    assert guest.shown["status"] == "STOPPED"
    assert guest.shown["metrics"] is not None
    guest.scene.act("serverStart", id=guest.id)
    assert "boots=3 " in guest.says("READY", 3)
    assert guest.shell("cat /data/vdc/mine") == "kept\nrc=0\n"


def _seen(at: Site, guest: Guest) -> Screen:
    """Its screen through the gateway, by QEMU's own VNC server; no port of the host is open for it."""
    screens = []
    for client in (at.client, gone := at.cloud.gateways[0].client()):
        made = client.do("serverConsoleCreate", "websocketUrl protocol", id=guest.id)
        assert made["protocol"] == "VNC"
        screen = dial(made["websocketUrl"])
        width, height, title = screen.greet()
        assert (width, height, title) == (720, 400, f"QEMU ({guest.domain})")
        screen.wire.send(struct.pack(">BxHi", 2, 1, 0))  # raw pixels, please
        screen.ask((0, 0, width, height))
        assert len(set(screen.update())) > 1, "something stands there"
        assert dial(made["websocketUrl"]).end()[0] == 4404
        screens.append(screen)
    screens[0].key(*CTRL_ALT_DEL)
    assert "boots=4 " in guest.says("READY", 4)
    gone.do("sessionRevoke", "sessions { id }")
    assert screens[1].end() == (4403, "You may not see it any more")
    assert at.host.run(("ss", "-Hltn", "sport >= 5900 and sport < 6000")) == ""
    return screens[0]


def _sized(at: Site, guest: Guest) -> None:
    """Another size and back while it is off; then the running guest sees its new processors and memory, and its larger
    disk as soon as that is confirmed.
    """
    size = {"vcpus": 2, "ramMib": 192, "diskGib": 2}
    flavor = at.client.do("flavorCreate", "flavor { id }", name="e2e-larger", **size)["flavor"]["id"]
    wanted = {"serverId": guest.id, "flavorId": flavor, "gracefulTimeoutS": 0}
    guest.scene.act("serverStart", id=guest.id)
    guest.scene.act("serverStop", id=guest.id, gracefulTimeoutS=0)
    before = _defined(at, guest)
    guest.scene.act("serverResize", **wanted)
    assert guest.shown["status"] == "VERIFY_RESIZE"
    assert _defined(at, guest) == ["2", "196608"]
    guest.scene.act("serverResizeRevert", serverId=guest.id)
    assert _defined(at, guest) == before
    guest.scene.act("serverStart", id=guest.id)
    guest.scene.act("serverResize", **wanted)
    wait_for("the guest", guest.answers, BOOT_S)
    cpus, ram_bytes, disk_bytes = _size_seen(guest)
    assert (cpus, disk_bytes) == (2, 1 << 30)
    assert 140 << 20 < ram_bytes < 192 << 20
    guest.scene.act("serverResizeConfirm", serverId=guest.id)
    assert _size_seen(guest)[2] == 2 << 30
    assert guest.shell("cat /data/vdc/mine") == "kept\nrc=0\n"
    at.client.do("flavorDelete", "flavor { id }", id=flavor)


def _defined(at: Site, guest: Guest) -> list[str]:
    """The processors and KiB of memory that libvirt has for its next start."""
    text = at.host.run(("virsh", "-q", "dumpxml", "--inactive", guest.domain))
    return [re.findall(rf"<{name}[^>]*>(\d+)</{name}>", text)[0] for name in ("vcpu", "memory")]


def _size_seen(guest: Guest) -> tuple[int, int, int]:
    """What the guest sees: processors, bytes of memory, bytes of its root disk."""
    told = guest.shell("grep -c ^processor /proc/cpuinfo; grep MemTotal /proc/meminfo; cat /sys/block/vda/size")
    cpus, memory, sectors, *_ = told.splitlines()
    return int(cpus), int(memory.split()[1]) << 10, int(sectors) << 9


def _killed_behind_our_back(at: Site, guest: Guest) -> None:
    """What happens to the machine without us is pushed to whoever looks, within seconds."""
    pushed: list[dict[str, Any]] = []
    watch = threading.Thread(target=_watch, args=(at.client, guest.id, pushed), daemon=True)
    watch.start()
    wait_for("the subscription", lambda: pushed)
    at.host.run(("virsh", "-q", "destroy", guest.domain))
    wait_for("the news", lambda: pushed[-1]["status"] == "STOPPED", SEEN_S)
    assert "outside the cloud" in pushed[-1]["statusReason"]
    guest.scene.act("serverStart", id=guest.id)
    wait_for("the news", lambda: pushed[-1]["status"] == "ACTIVE", SEEN_S)
    (qemu,) = at.host.pids(f"guest={guest.domain}")
    at.host.run(("kill", "-9", str(qemu)))
    wait_for("the news", lambda: pushed[-1]["status"] == "CRASHED", SEEN_S)


def _watch(client: Client, server: str, pushed: list[dict[str, Any]]) -> None:
    with suppress(Problem):
        pushed.extend(data["serverChanged"] for data in client.subscribe(CHANGES, {"id": server}))


def test_two_tenants_reach_nothing_of_each_other(at: Site, scene: Scene) -> None:
    """However open their groups are: nothing begins a conversation in a network from outside it."""
    other = make_scene(at, "10.92.0.0/24")
    groups = [make_group(each, 80)[0] for each in (scene, other)]
    mine, theirs = (
        make_guest(at, each, networks=[{"networkId": each.network, "securityGroupIds": [group]}])
        for each, group in zip((scene, other), groups, strict=True)
    )
    for one, another, gateway in ((mine, theirs, "10.91.0.1"), (theirs, mine, "10.92.0.1")):
        assert one.answers(), "the host reaches each"
        assert "rc=0" in one.shell(f"ping -c 1 -W 5 {gateway}")
        assert "rc=1" in one.shell(f"ping -c 2 -W 2 {another.address}")
        assert "rc=0" not in one.shell(f"timeout 4 wget -q -O - http://{another.address}/")
    for guest, group in zip((mine, theirs), groups, strict=True):
        guest.scene.act("serverDelete", id=guest.id)
        guest.scene.client.do("securityGroupDelete", "id", id=group)
    other.dismantle()


def test_libvirt_goes_away_and_comes_back(at: Site, scene: Scene) -> None:
    """Guests run on without it; the cloud says what it does not know, takes a deletion, and carries it out later."""
    server = scene.make_server()
    (daemon,) = at.host.pids("^libvirtd -d")
    at.host.run(("kill", "-9", str(daemon)))
    wait_for("the host's word", lambda: at.host_status() == "OFFLINE", 60)
    wait_for("the server's word", lambda: scene.server(server)["status"] == "UNKNOWN", 60)
    job = at.client.do("serverDelete", "job { id }", id=server)["job"]["id"]
    at.host.run(("libvirtd", "-d", "-p", "/run/libvirt/libvirtd.pid"))
    at.client.follow(job, deadline_s=120)
    wait_for("the host's word", lambda: at.host_status() == "ONLINE", 60)


def test_the_demo_boots_a_guest_and_leaves_nothing(at: Site) -> None:
    gateway = at.cloud.gateways[0]
    done = subprocess.run(
        (PROGRAM, "demo", "--image", guest_image()), env={**os.environ, **gateway.environment},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for told in ("SG: READY", "SG: DEMO user data ran on demo-", "not on this machine", "VCPU", "tenant", "gone"):
        assert told in done.stdout
    assert at.objects() == NOTHING
