"""Two tenants with one of everything each; whatever text the second can put anywhere holds a word of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.identity.tenant import Tenant
from gateway.kernel import ids, noun
from gateway.kernel.access import Role
from tests.compute.scene import active_image
from tests.world import Client, World

OURS, THEIRS = "ours", "canary-of-the-other-tenant"


@dataclass(slots=True)
class Household:
    """A tenant, those who work there, and the ids of what it has."""

    word: str
    tenant: Tenant
    reader: Client
    member: Client
    manager: Client
    ids: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, world: World, word: str, flavor: str) -> Household:
        """One of everything, made by the tenant's manager."""
        tenant = world.tenant(word)
        reader, member, manager = (world.member(tenant, role) for role in (Role.READER, Role.MEMBER, Role.MANAGER))
        made = cls(word, tenant, reader, member, manager)
        made.ids.append(noun.public(tenant))
        made._fill(world, flavor)
        return made

    def _fill(self, world: World, flavor: str) -> None:
        word = self.word
        network = self._do("networkCreate", "network", name=word, description=word, tags=[word])
        self._do("subnetCreate", "subnet", networkId=network, cidr="10.0.0.0/24", name=word)
        group = self._do("securityGroupCreate", "securityGroup", name=word, description=word)
        self._do("portCreate", "port", networkId=network, name=word, securityGroupIds=[group])
        image = active_image(world, self.tenant)
        self.ids.append(image)
        self.manager.do("imageUpdate", "image { id }", id=image, name=word, description=word, tags=[word])
        self._do("keypairCreate", "keypair", name=word)
        self._do("apiKeyCreate", "apiKey", name=word, role="READER", tenantId=self.ids[0])
        self._do("webhookCreate", "webhook", name=word, url=f"https://{word}.example/hook")
        volume = self._do("volumeCreate", "volume", name=word, description=word, tags=[word], sizeGib=1)
        world.work()
        self._do("snapshotCreate", "snapshot", volumeId=volume, name=word, description=word)
        server = self._do(
            "serverCreate", "server", name=word, description=word, tags=[word], flavorId=flavor, imageId=image,
            networks=[{"networkId": network}], metadata=[{"key": word, "value": word}],
        )  # fmt: skip
        world.work()
        asked = "query($id: ID!) { server(id: $id) { jobs { nodes { id } } ports { id } volumes { id } } }"
        found = self.manager.ok(asked, id=server)["server"]
        self.ids += [each["id"] for each in (*found["jobs"]["nodes"], *found["ports"], *found["volumes"])]

    def _do(self, mutation: str, thing: str, **given: Any) -> str:
        made: str = self.manager.do(mutation, f"{thing} {{ id }}", **given)[thing]["id"]
        self.ids.append(made)
        return made


@dataclass(slots=True)
class Neighbours:
    """Both, what both use (``common``), and every id that a stranger could have picked up."""

    world: World
    ours: Household
    theirs: Household
    common: list[str]
    ids: list[str]

    @classmethod
    def make(cls, world: World) -> Neighbours:
        """Two households in one cloud."""
        world.host("h", vcpus=16, ram_mib=16384, disk_gib=200)
        flavor = world.admin.do("flavorCreate", "flavor { id }", name="small", vcpus=1, ramMib=512, diskGib=2)
        flavor_id = flavor["flavor"]["id"]
        ours, theirs = (Household.make(world, word, flavor_id) for word in (OURS, THEIRS))
        host = world.admin.ok("{ hosts { nodes { id } } }")["hosts"]["nodes"][0]["id"]
        users = [each["id"] for each in world.admin.ok("{ users(first: 100) { nodes { id } } }")["users"]["nodes"]]
        absent = [ids.encode(prefix, ids.system()) for prefix in sorted(noun.BY_PREFIX)]
        return cls(world, ours, theirs, [flavor_id], [*ours.ids, *theirs.ids, flavor_id, host, *users, *absent])

    @property
    def people(self) -> dict[str, Client]:
        """Those who must never see a word of the other tenant."""
        return {
            "nobody": self.world.nobody,
            "reader": self.ours.reader,
            "member": self.ours.member,
            "manager": self.ours.manager,
        }
