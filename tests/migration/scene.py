"""What tests of adoption and migration share: two simulated hosts, and on one of them a machine that others made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from drivers.sim import DataCentre
from drivers.sim.records import ForeignRecord
from tests.compute.scene import Scene
from tests.world import World
from workers.compute.live import Live

REF = "vm-17"
MAC = "00:50:56:12:34:56"
OTHER_MAC = "00:50:56:12:34:57"
SHOWN = """query($id: ID!) { server(id: $id) { name status statusReason vcpus ramMib diskGib firmware devices
  adopted managed inPlace allowedActions flavor { name } host { name } ports { macAddress } addresses
  volumes { name status device sizeGib }
  migrations { id status statusReason seen verified wasRunning host { name } notes { kind }
    disks { volumeId device sizeBytes sha256Before sha256After } } } }"""


@dataclass(slots=True)
class Moving:
    """A tenant on the host ``h``, another host ``other``, and the machine ``REF`` on the first."""

    scene: Scene
    other: DataCentre

    @classmethod
    def make(cls, world: World, *, foreign: ForeignRecord | None = None) -> Moving:
        """Set everything up."""
        scene = Scene.make(world)
        # Disks of the smallest size: each is read and hashed a few times, as a host's would be.
        made = world.admin.do("flavorCreate", "flavor { id }", name="tiny", vcpus=1, ramMib=256, diskGib=1)
        scene.flavor = made["flavor"]["id"]
        world.services.extras["live"] = Live(world.db, world.hosts)
        scene.centre.plant(foreign or machine())
        return cls(scene, world.host("other", vcpus=4, ram_mib=4096, disk_gib=100))

    @property
    def world(self) -> World:
        """The world they are in."""
        return self.scene.world

    @property
    def centre(self) -> DataCentre:
        """The host where things begin."""
        return self.scene.centre

    def host_id(self, name: str = "h") -> str:
        """A host's public id."""
        found = self.world.admin.ok("query($n: String) { hosts(filter: {name: $n}) { nodes { id } } }", n=name)
        return str(found["hosts"]["nodes"][0]["id"])

    def adopted(self, **given: Any) -> str:
        """The machine, adopted; its server's id."""
        wanted = {"hostId": self.host_id(), "machineRef": REF, "tenantId": self.scene.tenant, **given}
        made = self.world.admin.do("serverAdopt", "server { id } job { id }", **wanted)
        self.world.work()
        job = self.world.job(made["job"]["id"])
        assert job.status.value == "SUCCEEDED", job.error
        return str(made["server"]["id"])

    def shown(self, server: str) -> dict[str, Any]:
        """What an operator sees of a server."""
        found: dict[str, Any] = self.world.admin.ok(SHOWN, id=server)["server"]
        return found

    def used(self) -> list[tuple[int, int, int]]:
        """What is claimed of the two hosts."""
        rows = [self.world.host_row(name) for name in ("h", "other")]
        return [(row.used_vcpus, row.used_ram_mib, row.used_disk_gib) for row in rows]


def machine(power: str = "RUNNING", **given: Any) -> ForeignRecord:
    """A machine of two small disks and two interfaces."""
    disks: list[dict[str, object]] = [_disk(2000), _disk(2001)]
    nics: list[dict[str, object]] = [{"mac": mac, "network": "VM Network"} for mac in (MAC, OTHER_MAC)]
    return ForeignRecord(REF, "accounts", 1, 256, power, guest="debian12_64Guest", disks=disks, nics=nics, **given)


def _disk(key: int) -> dict[str, object]:
    return {"key": str(key), "size_bytes": 65536, "content": f"content-of-{key}"}
