"""What the graph does and refuses on one kind of host: each capability asked for by the mutation that needs it.

What it does not refuse has to succeed, job and all. What it refuses it has to refuse as ``Unsupported``, by the name of
the capability, and leave the server as it was; an address range that lies on the host already is a conflict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from drivers.api import Capability
from tests.world import Client, World

NO_DOOR = {
    Capability.DHCP: "a guest is told its addresses on first boot where nobody leases them",
    Capability.STATE_EVENTS: "the reconcilers look where nobody tells",
    Capability.UEFI: "there is no choice of firmware in the graph",
    Capability.GUEST_SIGNS: "heard by migrations, which boot a guest: tests/migration",
    Capability.RELOCATE: "needs two hosts of a pool: tests/compute",
}
"""Capabilities that no one mutation on one host stands for, and why."""
SHOWN = """query($id: ID!) { server(id: $id) { status devices ports { id } volumes { id device sizeGib } } }"""
LOG = "query($id: ID!) { server(id: $id) { consoleLog } }"
FOREIGN = "query($id: ID!) { foreignMachines(hostId: $id) { nodes { ref } } }"


@dataclass
class Behaviours:
    """One server on one host, and what was found by asking for more and more of it."""

    world: World
    boss: Client
    kind: str
    host: str
    server: str
    network: str
    cidr: str
    works: set[Capability] = field(default_factory=set)
    lacks: set[Capability] = field(default_factory=set)

    @property
    def doors(self) -> frozenset[Capability]:
        """What is asked for. A disk of the sim host is hashed zero by zero on its way out, which tests/volume does."""
        return frozenset(Capability) - set(NO_DOOR) - ({Capability.DISK_TRANSPORT} if self.kind == "SIM" else set())

    def all(self) -> None:
        """Everything; the server is gone afterwards. Nothing is unplugged while it runs, for no guest lets go of it."""
        volume = self._volumes()
        ports = self._ports()
        self._looking()
        for wanted, there, back in (
            (Capability.SUSPEND, "serverSuspend", "serverResume"),
            (Capability.PAUSE, "serverPause", "serverUnpause"),
        ):
            if self._tries(wanted, there, id=self.server):
                self._done(back, id=self.server)
        self._done("serverReboot", id=self.server, hard=True)
        self._done("serverStop", id=self.server, gracefulTimeoutS=0)
        self._done("volumeDetach", volumeId=volume)
        for port in ports & {each["id"] for each in self.boss.ok(SHOWN, id=self.server)["server"]["ports"]}:
            self._done("portDetach", portId=port)
        snapped = self._tries(
            Capability.MACHINE_SNAPSHOT, "serverSnapshotCreate", "serverSnapshot { id }", serverId=self.server, name="s"
        )  # fmt: skip
        if snapped:
            self._done("serverSnapshotRevert", id=snapped["serverSnapshot"]["id"])
            self._done("serverSnapshotDelete", id=snapped["serverSnapshot"]["id"])
        if self._tries(Capability.VMWARE_DEVICES, "serverDevicesSet", id=self.server, devices="VMWARE"):
            self._done("serverStart", id=self.server)
        self._done("serverDelete", id=self.server)
        self.works.add(Capability.MACHINES)
        for port in ports:
            self.boss.do("portDelete", "__typename", id=port)
        self.works.add(Capability.NETWORKS)
        if Capability.DISK_TRANSPORT in self.doors:
            taken = self._tries(Capability.DISK_TRANSPORT, "imageCapture", "image { id }", volumeId=volume, name="t")
            if taken:
                self.boss.do("imageDelete", "__typename", id=taken["image"]["id"])
        self._done("volumeDelete", id=volume)
        self.works.add(Capability.VOLUMES)

    # ------------------------------------------------------------------------------------- parts

    def _volumes(self) -> str:
        made = self.boss.do("volumeCreate", "volume { id } job { id }", name="v", sizeGib=1, hypervisor=self.kind)
        self._finish(made)
        volume: str = made["volume"]["id"]
        assert self._tries(Capability.VOLUME_HOT_ATTACH, "volumeAttach", volumeId=volume, serverId=self.server)
        self._tries(Capability.VOLUME_HOT_EXTEND, "volumeExtend", id=volume, sizeGib=2)
        snapped = self._tries(
            Capability.VOLUME_SNAPSHOT, "snapshotCreate", "snapshot { id }", volumeId=volume, name="s"
        )  # fmt: skip
        if snapped:
            self._done("snapshotDelete", id=snapped["snapshot"]["id"])
        return volume

    def _ports(self) -> set[str]:
        plain, guarded = (self._port(self.network, security=each) for each in (False, True))
        twin = self.boss.do("networkCreate", "network { id }", name="twin")["network"]["id"]
        self.boss.do("subnetCreate", "subnet { id }", networkId=twin, cidr=self.cidr)
        same = self._port(twin, security=False)
        self._tries(Capability.PORT_HOT_ATTACH, "portAttach", portId=plain, serverId=self.server)
        self._tries(Capability.SECURITY_GROUPS, "portAttach", portId=guarded, serverId=self.server)
        self._tries(Capability.OVERLAPPING_SUBNETS, "portAttach", portId=same, serverId=self.server)
        return {plain, guarded, same}

    def _looking(self) -> None:
        log = self.boss.ok(LOG, id=self.server)["server"]["consoleLog"]
        (self.lacks if log is None else self.works).add(Capability.CONSOLE_LOG)
        self._tries(Capability.GRAPHICAL_CONSOLE, "serverConsoleCreate", "websocketUrl", job=False, id=self.server)
        asked = self.world.admin.run(FOREIGN, id=self.host)
        if asked.errors:
            assert asked.codes == ["UNSUPPORTED"]
            self.lacks.add(Capability.ADOPTION)
        else:
            self.works.add(Capability.ADOPTION)

    def _port(self, network: str, *, security: bool) -> str:
        made: str = self.boss.do("portCreate", "port { id }", networkId=network, portSecurity=security)["port"]["id"]
        return made

    def _tries(
        self, wanted: Capability, mutation: str, selection: str = "", *, job: bool = True, **given: Any
    ) -> dict[str, Any] | None:  # fmt: skip
        """Send it; the payload when it was carried out, None when it was refused for lack of that capability."""
        before = self.boss.ok(SHOWN, id=self.server)
        told = f"{selection} {'job { id }' if job else ''} userErrors {{ code ... on Unsupported {{ capability }} }}"
        kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
        document = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ {told} }} }}"
        payload: dict[str, Any] = self.boss.ok(document, input=given)[mutation]
        if payload["userErrors"]:
            overlaps = wanted is Capability.OVERLAPPING_SUBNETS
            reason = {"code": "CONFLICT"} if overlaps else {"code": "UNSUPPORTED", "capability": wanted.value}
            assert payload["userErrors"] == [reason]
            assert self.boss.ok(SHOWN, id=self.server) == before
            self.lacks.add(wanted)
            return None
        if job:
            self._finish(payload)
        self.works.add(wanted)
        return payload

    def _done(self, mutation: str, **given: Any) -> None:
        self._finish(self.boss.do(mutation, "job { id }", **given))

    def _finish(self, payload: dict[str, Any]) -> None:
        self.world.work()
        kept = self.world.job(payload["job"]["id"])
        assert kept.status.value == "SUCCEEDED", (self.kind, kept.kind, kept.error)
