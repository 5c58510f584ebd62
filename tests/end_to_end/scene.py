"""A tenant of its own with what a server needs, worked through the client; and the questions tests ask of the whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from drivers.sim import DataCentre, data_centre
from gateway.client import Client
from gateway.kernel import ids
from tests.end_to_end.processes import wait_for

JOB_S = 120.0
SERVER = """query($id: ID!) { server(id: $id) { id status statusReason addresses hypervisor launchedAt version
 activeJob { kind } host { name status } consoleLog metrics { cpuTimeNs ramMib }
 ports { id macAddress ipAddresses } volumes { id name device status sizeGib } } }"""
LEFT = """query($id: ID!) {
 servers(filter: { tenantId: $id }) { totalCount } volumes(filter: { tenantId: $id }) { totalCount }
 images(filter: { tenantId: $id }) { totalCount } networks(filter: { tenantId: $id }) { totalCount }
 subnets(filter: { tenantId: $id }) { totalCount } ports(filter: { tenantId: $id }) { totalCount }
 snapshots { totalCount } }"""
LIVE = "{ jobs(filter: { live: true }) { totalCount } }"
HOSTS = "{ hosts { nodes { id name status statusReason usedVcpus usedRamMib usedDiskGib } } }"
NO_USE = {"usedVcpus": 0, "usedRamMib": 0, "usedDiskGib": 0}
GROWING = ("SERVERS", "VCPUS", "RAM_MIB", "VOLUMES", "VOLUME_GIB", "SNAPSHOTS", "PORTS", "NETWORKS", "IMAGES")


@dataclass
class Scene:
    """Ids are the API's."""

    client: Client
    tenant: str
    network: str
    image: str
    flavor: str
    hypervisor: str
    kept: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def make(cls, client: Client, disk: Path, *, cidr: str = "10.77.0.0/24", hypervisor: str = "SIM") -> Scene:
        """A tenant with a network and an image that is ready."""
        tenant = client.do("tenantCreate", "tenant { id }", name=f"t-{uuid4().hex[:12]}")["tenant"]["id"]
        scene = cls(client, tenant, "", "", "", hypervisor)
        scene.network = scene.make_network(cidr)
        made = client.do("imageCreate", "image { id upload { url } }", name="disk", tenantId=tenant)["image"]
        scene.image = made["id"]
        client.upload(made["upload"]["url"], disk)
        scene.settle_image()
        flavors = client.run('{ flavors(filter: { name: "tiny" }) { nodes { id } } }')["flavors"]["nodes"]
        scene.flavor = flavors[0]["id"]
        return scene

    def make_network(self, cidr: str) -> str:
        """A network with one subnet."""
        network: str = self.client.do("networkCreate", "network { id }", name="net", tenantId=self.tenant)["network"][
            "id"
        ]
        self.wait(self.client.do("subnetCreate", "job { id }", networkId=network, cidr=cidr))
        return network

    def settle_image(self) -> None:
        """Wait until the uploaded image is ACTIVE."""
        ask = "query($id: ID!) { image(id: $id) { status statusReason sha256 activeJob { id } } }"
        job = self.client.run(ask, id=self.image)["image"]["activeJob"]
        if job is not None:
            self.client.follow(job["id"], deadline_s=JOB_S)
        found = self.client.run(ask, id=self.image)["image"]
        assert found["status"] == "ACTIVE", found

    def wait(self, payload: dict[str, Any]) -> dict[str, Any] | None:
        """Wait for a payload's job, which must succeed."""
        job = payload["job"]
        return None if job is None else self.client.follow(job["id"], deadline_s=JOB_S)

    def act(self, mutation: str, **given: Any) -> dict[str, Any] | None:
        """Send a mutation and wait for its job."""
        return self.wait(self.client.do(mutation, "job { id }", **given))

    def wanted(self, **given: Any) -> dict[str, Any]:
        """The input of a plain server."""
        return {
            "name": "web", "tenantId": self.tenant, "flavorId": self.flavor, "imageId": self.image,
            "hypervisor": self.hypervisor, "networks": [{"networkId": self.network}], **given,
        }  # fmt: skip

    def ask_server(self, **given: Any) -> tuple[str, str]:
        """Ask for a server: its id and its job's."""
        made = self.client.do("serverCreate", "server { id } job { id }", **self.wanted(**given))
        return made["server"]["id"], made["job"]["id"]

    def make_server(self, **given: Any) -> str:
        """A server that is ACTIVE."""
        server, job = self.ask_server(**given)
        self.client.follow(job, deadline_s=JOB_S)
        assert self.server(server)["status"] == "ACTIVE"
        return server

    def server(self, server: str) -> Any:
        """What is shown of a server; None when it is gone."""
        return self.client.run(SERVER, id=server)["server"]

    def make_volume(self, **given: Any) -> str:
        """A volume that is AVAILABLE."""
        wanted = {"name": "data", "tenantId": self.tenant, "hypervisor": self.hypervisor, **given}
        made = self.client.do("volumeCreate", "volume { id } job { id }", **wanted)
        self.wait(made)
        volume: str = made["volume"]["id"]
        return volume

    def used(self) -> dict[str, int]:
        """What is taken of the tenant's quotas."""
        found = self.client.run("query($id: ID!) { tenant(id: $id) { quotas { resource used } } }", id=self.tenant)
        return {each["resource"]: each["used"] for each in found["tenant"]["quotas"] if each["resource"] in GROWING}

    def dismantle(self) -> None:
        """Delete what :meth:`make` made, and see that nothing at all is left."""
        self.act("imageDelete", id=self.image)
        self.act("networkDelete", id=self.network)
        left = self.client.run(LEFT, id=self.tenant)
        assert {name: each["totalCount"] for name, each in left.items()} == dict.fromkeys(left, 0)
        assert self.used() == dict.fromkeys(GROWING, 0)
        # A reconciler may have asked for another look at the network just before it went.
        wait_for("the end of all jobs", lambda: self.client.run(LIVE)["jobs"]["totalCount"] == 0)
        self.client.do("tenantDelete", "tenant { id }", id=self.tenant)


def small_disk(folder: Path, size_bytes: int = 2 << 20) -> Path:
    """A raw disk file that inspection takes: a boot sector's signature, and content of its own."""
    path = folder / "disk.raw"
    head = hashlib.sha256(str(folder).encode()).digest().ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes(head.ljust(size_bytes, b"\0"))
    return path


def centre_of(state: Path) -> DataCentre:
    """The simulated host that the gateway registers by itself."""
    return data_centre("sim-1", state=state / "sim")


def use_of_hosts(client: Client) -> dict[str, dict[str, int]]:
    """What is taken of each host."""
    found = client.run(HOSTS)["hosts"]["nodes"]
    return {each["name"]: {name: each[name] for name in NO_USE} for each in found}


def machine_id(server: str) -> str:
    """The UUID a server has on its host."""
    return str(ids.decode(server)[1])
