"""The guest image boots, takes its configuration from a NoCloud drive, and tells of everything that happens to it."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.guest.image import SCRIPT, guest_image
from tests.guest.machine import Machine, seed

pytestmark = pytest.mark.timeout(400)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0sWRtiEHKPUpKqrPkJ3mMBDB0bVuKMH1yhFmTkVvTd"
USER_DATA = "#!/bin/sh\necho user data ran on $(hostname)\nexit 3\n"
STATIC_V2 = """\
version: 2
ethernets:
  id0:
    match:
      macaddress: "52:54:00:00:00:11"
    addresses:
      - 10.0.2.77/24
    routes:
      - to: 0.0.0.0/0
        via: 10.0.2.2
    nameservers:
      addresses: [10.0.2.3, 10.0.2.4]
"""
STATIC_V1 = """\
{"version": 1, "config": [{"type": "physical", "name": "eth0", "mac_address": "52:54:00:00:00:11", "subnets":
[{"type": "static", "address": "10.0.2.78/24", "gateway": "10.0.2.2", "dns_nameservers": ["10.0.2.3"]}]}]}
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """A disk of this test's own on top of the image."""
    path = tmp_path / "overlay.qcow2"
    options = ["-f", "qcow2", "-b", str(guest_image()), "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", *options, str(path)], check=True, timeout=60)
    return path


def drive(path: Path) -> list[str]:
    return ["-drive", f"file={path},format=raw,if=virtio,readonly=on"]


def test_the_image_is_small_and_kept() -> None:
    image = guest_image()
    before = image.stat()
    assert before.st_size < 30 * 2**20
    again = subprocess.run([SCRIPT], check=True, capture_output=True, text=True, timeout=300).stdout.strip()
    assert Path(again) == image
    assert image.stat().st_mtime_ns == before.st_mtime_ns


def test_two_at_once_build_one(tmp_path: Path) -> None:
    environment = {**os.environ, "STRATOGRAPH_STATE_DIR": str(tmp_path)}

    def ask(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run([SCRIPT], check=True, capture_output=True, text=True, timeout=300, env=environment)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, range(2))
    assert first.stdout == second.stdout
    assert (first.stderr + second.stderr).count("building the guest image") == 1
    assert sorted(path.name for path in (tmp_path / "guest").iterdir()) == sorted(
        ["lock", Path(first.stdout.strip()).parent.name]
    )


def test_a_guest_boots_reads_its_drive_and_tells_of_its_disks(overlay: Path, tmp_path: Path) -> None:
    files = {
        "meta-data": f"instance-id: i-1\nlocal-hostname: web-1\npublic-keys:\n  - {KEY}\n",
        "user-data": USER_DATA,
    }
    nocloud = seed(tmp_path / "seed.iso", files)
    data = tmp_path / "data.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(data), "16M"], check=True, timeout=60)

    with Machine(tmp_path, overlay, drive(nocloud)) as machine:
        ready = machine.wait_for(r"SG: READY ip=(\S*) host=(\S*) id=(\S*) boots=(\d+) up=[\d.]+")
        assert ready.groups() == ("10.0.2.15", "web-1", "i-1", "1")
        markers = re.findall(r"^SG: (.*)$", machine.text, re.MULTILINE)
        assert "NIC eth0 52:54:00:00:00:11 10.0.2.15/24" in markers
        assert "CIDATA id=i-1 host=web-1" in markers
        assert f"SSHKEY {KEY}" in markers
        assert "USERDATA rc=3" in markers
        assert "user data ran on web-1" in machine.text

        machine.qmp(
            "blockdev-add",
            **{"driver": "qcow2", "node-name": "data", "file": {"driver": "file", "filename": str(data)}},
        )
        machine.qmp("device_add", driver="virtio-blk-pci", drive="data", id="data-disk", serial="vol-7", bus="spare")
        machine.wait_for(r"SG: DISK (vd.) serial=vol-7 size=32768 lines=1", 30)
        machine.qmp("block_resize", **{"node-name": "data", "size": 32 * 2**20})
        machine.wait_for(r"SG: DISKSIZE vd. 65536", 30)
        assert machine.run("grep -c vol-7 /sys/block/vd?/serial | grep -c :1") == "1\nrc=0\n"
        machine.qmp("device_del", id="data-disk")
        machine.wait_for(r"SG: DISKGONE vd.", 30)

        machine.qmp("system_powerdown")
        machine.wait_for_end(60)
        assert "SG: POWERBUTTON" in machine.text

    with Machine(tmp_path, overlay, drive(nocloud)) as machine:
        assert machine.wait_for(r"SG: READY .* boots=(\d+) .*").group(1) == "2"
        assert "SG: USERDATA again" in machine.text
        assert "user data ran" not in machine.text


@pytest.mark.parametrize(
    ("network_config", "address", "name_servers"),
    [(STATIC_V2, "10.0.2.77", "10.0.2.3 10.0.2.4"), (STATIC_V1, "10.0.2.78", "10.0.2.3")],
    ids=["version 2, YAML", "version 1, JSON"],
)
def test_a_static_address_comes_from_the_drive(
    overlay: Path, tmp_path: Path, network_config: str, address: str, name_servers: str
) -> None:
    files = {
        "meta-data": '{"instance-id": "i-2", "local-hostname": "db-1"}',
        "user-data": "",
        "network-config": network_config,
    }
    nocloud = seed(tmp_path / "seed.iso", files)
    with Machine(tmp_path, overlay, drive(nocloud), guest_ip=address) as machine:
        ready = machine.wait_for(r"SG: READY ip=(\S*) host=(\S*) id=(\S*) .*")
        assert ready.groups() == (address, "db-1", "i-2")
        asked = "ip route | grep default; sed 's/nameserver //' /etc/resolv.conf | xargs"
        assert machine.run(asked) == f"default via 10.0.2.2 dev eth0  metric 100 \n{name_servers}\nrc=0\n"


def test_a_guest_boots_under_uefi_without_a_drive(overlay: Path, tmp_path: Path) -> None:
    firmware = Path("/usr/share/ovmf/OVMF.fd")
    assert firmware.exists(), "apt-get install ovmf"
    with Machine(tmp_path, overlay, ["-bios", str(firmware)], ram_mib=256) as machine:
        ready = machine.wait_for(r"SG: READY ip=(\S*) host=(\S*) id=(\S*) .*", 240)
        assert ready.groups() == ("10.0.2.15", "tiny", "none")
        assert machine.run("test -d /sys/firmware/efi") == "rc=0\n"
