"""The first half of the demo: everything a server needs, made through the public API."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.client import Client, JobFailed, Problem
from gateway.demo import terrain
from gateway.demo.leftovers import JOB_S, Leftovers
from gateway.demo.stage import Stage, megabytes

_HOSTS: Final = "{ hosts(first: 100, filter: { enabled: true }) { nodes { name hypervisor status accelerator } } }"
_SUBNETS: Final = (
    "query($after: String) { subnets(first: 100, after: $after) { nodes { cidr } pageInfo { hasNextPage endCursor } } }"
)
_FLAVORS: Final = (
    "{ flavors(first: 100, orderBy: { field: RAM_MIB }) { nodes { id name vcpus ramMib diskGib deletedAt } } }"
)
_IMAGE: Final = (
    """query($id: ID!) { image(id: $id) { status statusReason format virtualSizeBytes sha256 activeJob { id } } }"""
)
RULES: Final = (("ICMP", None), ("TCP", 22), ("TCP", 80))
_PREFERENCE: Final = ("KVM", "ESXI", "SIM")
_LEAST_RAM_MIB: Final = 128


@dataclass(slots=True)
class Ground:
    """What was made. Ids are the API's; ``hypervisor`` is where the server is to run."""

    client: Client
    stage: Stage
    left: Leftovers
    name: str
    hypervisor: str = ""
    tenant: str = ""
    network: str = ""
    group: str = ""
    image: str = ""
    volume: str = ""
    keypair: str = ""
    flavor: dict[str, Any] | None = None

    def wait(self, job: dict[str, Any] | None) -> None:
        """Wait for a job, if there is one."""
        if job is not None:
            self.client.follow(job["id"], deadline_s=JOB_S)


def choose_hypervisor(ground: Ground) -> None:
    """The best kind of host that answers: real ones before simulated ones."""
    with ground.stage.act("Look at the hosts") as act:
        found = ground.client.run(_HOSTS)
        online = [each for each in found["hosts"]["nodes"] if each["status"] == "ONLINE"]
        kinds = {each["hypervisor"] for each in online}
        act.note = ", ".join(f"{each['name']} ({each['accelerator'] or each['hypervisor']})" for each in online[:5])
    ground.hypervisor = next((each for each in _PREFERENCE if each in kinds), "")
    if not ground.hypervisor:
        raise Problem(
            "NO_VALID_HOST", "No host is online: see `stratograph doctor`, or register one with hostRegister."
        )


def make_tenant(ground: Ground) -> None:
    """A tenant of the demo's own: when it can be deleted, nothing was left in it."""
    with ground.stage.act("Make a tenant") as act:
        made = ground.left.make(
            f"tenant {ground.name}", "tenantCreate", "", job=False,
            name=ground.name, description="Made by `stratograph demo`.",
        )  # fmt: skip
        ground.tenant = made["tenant"]["id"]
        act.note = ground.tenant


def make_network(ground: Ground) -> None:
    """A network with one subnet in a range that is free here, and a security group that lets the demo in."""
    client, stage, left = ground.client, ground.stage, ground.left
    with stage.act("Make a network with a subnet") as act:
        cidr = str(terrain.free_range(_known_ranges(client)))
        made = left.make(
            "network with its subnet", "networkCreate", "", name=f"{ground.name}-net", tenantId=ground.tenant
        )
        ground.network = made["network"]["id"]
        ground.wait(client.do("subnetCreate", "job { id }", networkId=ground.network, cidr=cidr)["job"])
        act.note = cidr
    with stage.act("Make a security group") as act:
        made = left.make(
            "security group", "securityGroupCreate", "", job=False, name=f"{ground.name}-in", tenantId=ground.tenant
        )
        ground.group = made["securityGroup"]["id"]
        for protocol, port in RULES:
            ports = {} if port is None else {"portMin": port, "portMax": port}
            rule = {"direction": "INGRESS", "protocol": protocol, "securityGroupId": ground.group, **ports}
            ground.wait(client.do("securityGroupRuleAdd", "job { id }", **rule)["job"])
        act.note = "from anywhere: " + ", ".join(f"{name} {port or ''}".strip() for name, port in RULES)


def _known_ranges(client: Client) -> list[str]:
    found: list[str] = []
    after: str | None = None
    while True:
        page = client.run(_SUBNETS, after=after)["subnets"]
        found += [each["cidr"] for each in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


def make_image(ground: Ground, given: Path | None) -> None:
    """Upload the guest image and wait until the cloud has inspected it."""
    client, stage = ground.client, ground.stage
    with ExitStack() as stack:
        if given is None and ground.hypervisor != "SIM":
            raise Problem(
                "INVALID", "A real guest needs a real image: give --image FILE (`make guest` builds a tiny one)."
            )
        path = given if given is not None else stack.enter_context(terrain.small_disk())
        try:
            size_bytes = path.stat().st_size
        except OSError as error:
            raise Problem("INVALID", f"The image cannot be read: {error}") from None
        made = ground.left.make(
            "image", "imageCreate", "image { upload { url } }",
            name=f"{ground.name}-{path.name}", tenantId=ground.tenant, sizeBytes=str(size_bytes),
        )["image"]  # fmt: skip
        ground.image = made["id"]
        with stage.bar(f"Upload the image {path.name}") as tell:
            client.upload(made["upload"]["url"], path, tell)
    with stage.act("Have the image inspected") as act:
        image = client.run(_IMAGE, id=ground.image)["image"]
        if image["activeJob"] is not None:
            try:
                ground.wait(image["activeJob"])
            except JobFailed as failed:
                raise Problem("IMAGE_REFUSED", failed.message) from failed
        image = client.run(_IMAGE, id=ground.image)["image"]
        if image["status"] != "ACTIVE":
            raise Problem("IMAGE_REFUSED", image["statusReason"] or f"The image is {image['status']}.")
        act.note = (
            f"{image['format']}, disk of {megabytes(int(image['virtualSizeBytes']))}, SHA-256 {image['sha256'][:16]}…"
        )


def make_rest(ground: Ground) -> str:
    """A data volume, a keypair and a flavor that is large enough; the private key."""
    client, stage = ground.client, ground.stage
    with stage.act("Make a data volume") as act:
        made = ground.left.make(
            "volume", "volumeCreate", "job { id }",
            name=f"{ground.name}-data", sizeGib=1, tenantId=ground.tenant, hypervisor=ground.hypervisor,
        )  # fmt: skip
        ground.volume = made["volume"]["id"]
        ground.wait(made["job"])
        act.note = "1 GiB"
    with stage.act("Generate a keypair") as act:
        pair = ground.left.make(
            "keypair", "keypairCreate", "keypair { fingerprint } privateKey", job=False, name=ground.name
        )
        ground.keypair = pair["keypair"]["id"]
        act.note = f"Ed25519, {pair['keypair']['fingerprint']}"
    with stage.act("Choose a flavor") as act:
        known = client.run(_FLAVORS)["flavors"]["nodes"]
        fitting = [each for each in known if each["deletedAt"] is None and each["ramMib"] >= _LEAST_RAM_MIB]
        if not fitting:
            raise Problem("NOT_FOUND", "There is no flavor with 128 MiB or more: make one with flavorCreate.")
        ground.flavor = min(fitting, key=lambda each: (each["ramMib"], each["vcpus"], each["diskGib"]))
        act.note = "{name}: {vcpus} vCPU, {ramMib} MiB, {diskGib} GiB".format(**ground.flavor)
    return str(pair["privateKey"])
