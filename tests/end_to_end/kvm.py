"""A cloud whose one host is a real libvirt with QEMU in namespaces of its own, and guests that really boot there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.client import Client
from gateway.kernel import ids
from tests.end_to_end.processes import Cloud, cloud, wait_for
from tests.end_to_end.scene import Scene
from tests.guest.image import guest_image
from tests.servers.libvirt_host import LibvirtHost

BOOT_S = 150.0
HOST = "{ hosts { nodes { id name status statusReason } } }"


@dataclass
class Site:
    """The cloud, its host and an operator's client."""

    cloud: Cloud
    host: LibvirtHost
    client: Client
    host_id: str

    def host_status(self) -> str:
        """What the cloud says of the host."""
        found = self.client.run("query($id: ID!) { host(id: $id) { status } }", id=self.host_id)
        return str(found["host"]["status"])

    def objects(self) -> dict[str, list[str]]:
        """What of ours libvirt has on the host."""
        names = {
            "domains": self._virsh("list", "--all", "--name"),
            "networks": self._virsh("net-list", "--all", "--name"),
            "filters": self._virsh("nwfilter-list"),
            "volumes": self._virsh("vol-list", "stratograph"),
        }
        ours = ("sg-port-", "sg-", "volume-", "image-", "snapshot-", "seed-", "console-", "making-")
        kept = {kind: [each for each in found if each.startswith(ours)] for kind, found in names.items()}
        kept["filters"] = [each for each in kept["filters"] if each != "sg-record"]  # empty, and every port's anchor
        return kept

    def _virsh(self, *argv: str) -> list[str]:
        return self.host.run(("virsh", "-q", *argv), check=False).split()


NOTHING: dict[str, list[str]] = {"domains": [], "networks": [], "filters": [], "volumes": []}


@contextmanager
def site(folder: Path, name: str) -> Iterator[Site]:
    """A running cloud with one isolated host, registered by the public API."""
    with LibvirtHost(name) as host, cloud(folder, drivers="kvm") as here:
        client = here.gateways[0].client()
        for each in client.run(HOST)["hosts"]["nodes"]:  # this machine's own libvirt, where it has one
            client.do("hostRemove", "id", id=each["id"])
        made = client.do(
            "hostRegister", "host { id } job { id }", name=host.name, hypervisor="KVM", endpoint=host.uri,
            options=[{"key": "accelerator", "value": "tcg"}],
        )  # fmt: skip
        client.follow(made["job"]["id"], deadline_s=60)
        found = Site(here, host, client, made["host"]["id"])
        assert found.host_status() == "ONLINE"
        yield found


@dataclass
class Guest:
    """One server whose guest is our tiny image."""

    site: Site
    scene: Scene
    id: str

    @property
    def domain(self) -> str:
        """Its name in libvirt."""
        return f"sg-{ids.decode(self.id)[1].hex}"

    @property
    def shown(self) -> Any:
        """What the API shows of it."""
        return self.scene.server(self.id)

    @property
    def address(self) -> str:
        """Its address, by the API."""
        return str(self.shown["addresses"][0])

    def console(self) -> str:
        """What it wrote on its serial port, by the API."""
        return self.shown["consoleLog"] or ""

    def says(self, marker: str, times: int = 1) -> str:
        """Wait for a marker's n-th line; that line."""
        pattern = re.compile(rf"SG: {marker}.*$", re.MULTILINE)

        def look() -> str | None:
            found: list[str] = pattern.findall(self.console())
            return found[times - 1].strip() if len(found) >= times else None

        return wait_for(f"the guest's {marker}", look, BOOT_S, 0.5)

    def shell(self, script: str) -> str:
        """Run a script in the guest, by its web server, from within its host's network."""
        url = f"http://{self.address}/cgi-bin/run"
        return self.site.host.run(("curl", "-s", "-S", "-m", "20", "--data-binary", script, url))

    def answers(self) -> bool:
        """Whether its web server answers."""
        return "host=" in self.site.host.run(("curl", "-s", "-m", "2", f"http://{self.address}/"), check=False)


def make_scene(at: Site, cidr: str) -> Scene:
    """A tenant with the real guest image."""
    return Scene.make(at.client, guest_image(), cidr=cidr, hypervisor="KVM")


def make_guest(at: Site, scene: Scene, **given: Any) -> Guest:
    """A server that has booted."""
    guest = Guest(at, scene, scene.make_server(**given))
    guest.says("READY")
    return guest


def make_group(scene: Scene, *ports: int) -> tuple[str, dict[int, str]]:
    """A security group that lets in ICMP and those TCP ports: its id, and the rules' by port."""
    client = scene.client
    group = client.do("securityGroupCreate", "securityGroup { id }", name="in", tenantId=scene.tenant)["securityGroup"]
    scene.act("securityGroupRuleAdd", securityGroupId=group["id"], direction="INGRESS", protocol="ICMP")
    return group["id"], {port: allow(scene, group["id"], port) for port in ports}


def allow(scene: Scene, group: str, port: int) -> str:
    """Let a TCP port in; the rule."""
    made = scene.client.do(
        "securityGroupRuleAdd", "rule { id } job { id }",
        securityGroupId=group, direction="INGRESS", protocol="TCP", portMin=port, portMax=port,
    )  # fmt: skip
    scene.wait(made)
    rule: str = made["rule"]["id"]
    return rule
