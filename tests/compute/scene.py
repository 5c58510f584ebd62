"""A tenant with all that a server needs: host, flavor, network, image, a member."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from sqlmodel import SQLModel, func, select

from drivers.sim import DataCentre
from gateway.identity.tenant import Tenant
from gateway.image.formats import ImageFormat
from gateway.image.image import Image, ImageStatus
from gateway.kernel import noun
from tests.world import Client, World
from workers.image.image import store

CONTENT = b"a disk image".ljust(1 << 20, b"\0")


@dataclass(slots=True)
class Scene:
    """Ids are public ids."""

    world: World
    centre: DataCentre
    tenant_row: Tenant
    tenant: str
    alice: Client
    flavor: str
    network: str
    image: str

    @classmethod
    def make(cls, world: World) -> Scene:
        """Set everything up."""
        centre = world.host("h", vcpus=4, ram_mib=4096, disk_gib=100)
        tenant = world.tenant()
        alice = world.member(tenant)
        flavor = world.admin.do("flavorCreate", "flavor { id }", name="small", vcpus=1, ramMib=512, diskGib=2)
        network = alice.do("networkCreate", "network { id }", name="net")["network"]["id"]
        alice.do("subnetCreate", "subnet { id }", networkId=network, cidr="10.0.0.0/24")
        image = active_image(world, tenant)
        return cls(world, centre, tenant, noun.public(tenant), alice, flavor["flavor"]["id"], network, image)

    def create(self, **given: Any) -> dict[str, Any]:
        """Ask for a server; ids of server and job."""
        wanted = {"name": "s", "flavorId": self.flavor, "imageId": self.image, **given}
        return self.alice.do("serverCreate", "server { id } job { id }", **wanted)

    def server(self, **given: Any) -> str:
        """A server that is made; its id."""
        made = self.create(**given)
        self.world.work()
        server: str = made["server"]["id"]
        assert self.status(server) == "ACTIVE"
        return server

    def status(self, server: str) -> str:
        """What status a server shows."""
        found = self.alice.ok("query($id: ID!) { server(id: $id) { status } }", id=server)
        return str(found["server"]["status"])

    def do_and_work(self, mutation: str, **given: Any) -> str:
        """Send a mutation and carry its job out, which must succeed; the job's id."""
        job: str = self.alice.do(mutation, "job { id }", **given)["job"]["id"]
        self.world.work()
        kept = self.world.job(job)
        assert kept.status.value == "SUCCEEDED", kept.error
        return job

    def used(self) -> dict[str, int]:
        """What is taken of the quotas that servers touch."""
        found = self.world.admin.ok("query($id: ID!) { tenant(id: $id) { quotas { resource used } } }", id=self.tenant)[
            "tenant"
        ]["quotas"]
        wanted = ("SERVERS", "VCPUS", "RAM_MIB", "VOLUMES", "VOLUME_GIB", "PORTS")
        told = {each["resource"]: each["used"] for each in found}
        return {name: told[name] for name in wanted}

    def rows(self) -> dict[str, int]:
        """How many rows each table has, but for the audit trail."""
        with self.world.db.read() as session:
            return {
                name: session.exec(select(func.count()).select_from(table)).one()
                for name, table in SQLModel.metadata.tables.items()
                if name != "audit_record"
            }


def active_image(world: World, tenant: Tenant, *, content: bytes = CONTENT) -> str:
    """An image that is ready, with its file in the store."""
    image = Image(
        tenant_id=tenant.id,
        name="disk",
        status=ImageStatus.ACTIVE,
        format=ImageFormat.RAW,
        size_bytes=len(content),
        received_bytes=len(content),
        virtual_size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    world.db.run(lambda session: session.add(image))
    kept = store(world.settings)
    kept.prepare()
    kept.path(image.uid, ImageFormat.RAW).write_bytes(content)
    return noun.public(image)
