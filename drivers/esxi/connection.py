"""A connection to one ESXi host, direct or through vCenter: finds the host at connect, and puts the facets together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from socket import socket
from uuid import UUID

from pyVmomi import vim

from drivers.api import (
    AdoptionSpec,
    Capability,
    Deadline,
    DiskFile,
    DiskSource,
    ForeignMachine,
    ForeignPage,
    GuestSigns,
    HostAtFault,
    HostConfig,
    HostFacts,
    Machine,
    MachineChanged,
    MachineSnapshot,
    NicSpec,
    Progress,
    Refused,
    Snapshot,
    Volume,
    Watch,
    untold,
)
from drivers.esxi import options, reading
from drivers.esxi.adoption import EsxiAdoption
from drivers.esxi.console import EsxiScreens
from drivers.esxi.machines import EsxiMachines
from drivers.esxi.networks import EsxiNetworks
from drivers.esxi.plugging import Plugging
from drivers.esxi.relocation import Relocating
from drivers.esxi.rewinding import Rewinding
from drivers.esxi.session import Session
from drivers.esxi.site import Site, reference
from drivers.esxi.trust import endpoint
from drivers.esxi.volumes import EsxiVolumes
from drivers.esxi.watching import EsxiWatch

VCENTER = "VirtualCenter"
LOOKING = frozenset({Capability.STATE_EVENTS, Capability.ADOPTION, Capability.GUEST_SIGNS})


def connect(config: HostConfig, deadline: Deadline) -> EsxiConnection:
    """Log in and find the host. Raises Refused for a wrong configuration, HostAtFault for TLS and login."""
    at, wanted = endpoint(config), options.read(config)
    session = Session(at, deadline)
    try:
        site = Site(session, _pick(session, at.inventory_host, deadline), wanted)
        movable = wanted.shared is not None and session.content.about.apiType == VCENTER
        return PoolConnection(site) if movable else EsxiConnection(site)
    except BaseException:
        session.close()
        raise


def _pick(session: Session, name: str | None, deadline: Deadline) -> str:
    """The reference of the host: the only one, or the one of that name."""
    found = session.read(lambda: reading.hosts(session.content), deadline)
    names = sorted(str(each["name"]) for _, each in found)
    fitting = [host for host, each in found if name is None or each["name"] == name]
    if len(fitting) != 1:
        raise Refused(f"option 'host' has to name one of this endpoint's hosts: {', '.join(names) or 'it has none'}")
    return reference(fitting[0])


class EsxiConnection:
    """See :class:`drivers.api.Driver`; it has snapshots and pushes state changes, too."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.volumes = EsxiVolumes(site)
        self.networks = EsxiNetworks(site)
        self.machines = EsxiMachines(site, self.networks)
        self._adoption = EsxiAdoption(site)
        self._screens = EsxiScreens(site, self.machines)
        self._plugging = Plugging(site, self.machines, self.networks)
        self._rewinding = Rewinding(site, self.machines)

    def facts(self, deadline: Deadline) -> HostFacts:
        """See :meth:`drivers.api.Driver.facts`."""

        def ask() -> HostFacts:
            content = self._site.content
            found = reading.one(content, self._site.host, reading.HOST)
            if found.get("summary.runtime.connectionState", "connected") != "connected":
                raise HostAtFault("vCenter is not connected to the host", vendor_code="HostNotConnected")
            names = ("summary.capacity", "summary.accessible")
            stores = reading.related(content, self._site.host, "datastore", vim.Datastore, names)
            return reading.facts_of(found, [each for _, each in stores])

        facts = self._site.session.read(ask, deadline)
        self._site.probe(deadline)
        at, shared = self._site.session.endpoint, self._site.options.shared
        pool = None if shared is None else f"{at.host}:{at.port}/{shared}"
        return replace(facts, restriction=self._site.restriction, pool=pool)

    @property
    def withheld(self) -> frozenset[Capability]:
        """See :class:`drivers.api.Restricted`: with a licence that only lets us look, all that is not looking."""
        return frozenset() if self._site.restriction is None else frozenset(Capability) - LOOKING

    def open_console(self, machine_id: UUID, deadline: Deadline) -> socket:
        """See :meth:`drivers.api.GraphicalConsole.open_console`."""
        return self._screens.open_console(machine_id, deadline)

    def guest_signs(self, machine_id: UUID, deadline: Deadline) -> GuestSigns:
        """See :meth:`drivers.api.GuestListening.guest_signs`."""
        return self.machines.signs(machine_id, deadline)

    def snapshot(self, volume_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Snapshot:
        """See :meth:`drivers.api.Snapshots.snapshot`."""
        return self.volumes.snapshot(volume_id, snapshot_id, deadline)

    def remove_snapshot(self, snapshot_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Snapshots.remove_snapshot`."""
        self.volumes.remove_snapshot(snapshot_id, deadline)

    def list_snapshots(self, deadline: Deadline) -> Sequence[Snapshot]:
        """See :meth:`drivers.api.Snapshots.list_snapshots`."""
        return self.volumes.list_snapshots(deadline)

    def export_disk(
        self, source: DiskSource, target: Path, deadline: Deadline, progress: Progress = untold
    ) -> DiskFile:  # fmt: skip
        """See :meth:`drivers.api.DiskTransport.export_disk`."""
        return self.volumes.export_disk(source, target, progress, deadline)

    def import_disk(self, volume_id: UUID, file: DiskFile, deadline: Deadline, progress: Progress = untold) -> Volume:
        """See :meth:`drivers.api.DiskTransport.import_disk`."""
        return self.volumes.import_disk(volume_id, file, progress, deadline)

    def plug_port(self, machine_id: UUID, nic: NicSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.PortPlugging.plug_port`."""
        self._plugging.plug_port(machine_id, nic, deadline)

    def unplug_port(self, machine_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.PortPlugging.unplug_port`."""
        self._plugging.unplug_port(machine_id, port_id, deadline)

    def plugged_ports(self, machine_id: UUID, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.PortPlugging.plugged_ports`."""
        return self._plugging.plugged_ports(machine_id, deadline)

    def snapshot_machine(
        self,
        machine_id: UUID,
        snapshot_id: UUID,
        deadline: Deadline,
        *,
        memory: bool = False,
        quiesce: bool = False,
    ) -> MachineSnapshot:
        """See :meth:`drivers.api.MachineSnapshots.snapshot_machine`."""
        return self._rewinding.snapshot_machine(
            machine_id, snapshot_id, deadline=deadline, memory=memory, quiesce=quiesce
        )

    def revert_machine(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.MachineSnapshots.revert_machine`."""
        return self._rewinding.revert_machine(machine_id, snapshot_id, deadline)

    def remove_machine_snapshot(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.MachineSnapshots.remove_machine_snapshot`."""
        self._rewinding.remove_machine_snapshot(machine_id, snapshot_id, deadline)

    def list_machine_snapshots(self, machine_id: UUID, deadline: Deadline) -> Sequence[MachineSnapshot]:
        """See :meth:`drivers.api.MachineSnapshots.list_machine_snapshots`."""
        return self._rewinding.list_machine_snapshots(machine_id, deadline)

    def list_foreign(self, after: str | None, limit: int, deadline: Deadline) -> ForeignPage:
        """See :meth:`drivers.api.Adoption.list_foreign`."""
        return self._adoption.list_foreign(after, limit, deadline)

    def inspect_foreign(self, ref: str, deadline: Deadline) -> ForeignMachine | None:
        """See :meth:`drivers.api.Adoption.inspect_foreign`."""
        return self._adoption.inspect_foreign(ref, deadline)

    def adopt(self, spec: AdoptionSpec, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Adoption.adopt`."""
        return self._adoption.adopt(spec, deadline)

    def disown(self, machine_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Adoption.disown`."""
        self._adoption.disown(machine_id, deadline)

    def watch(self, on_change: Callable[[MachineChanged], None], deadline: Deadline) -> Watch:
        """See :meth:`drivers.api.Watching.watch`."""
        return EsxiWatch(self._site, on_change, deadline)

    def close(self) -> None:
        """See :meth:`drivers.api.Driver.close`."""
        self._site.session.close()


class PoolConnection(EsxiConnection):
    """A host of a vCenter that shares its disks with others (option ``shared``): its machines can move to them."""

    def relocate(self, machine_id: UUID, target: HostConfig, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.Relocation.relocate`."""
        return Relocating(self._site).relocate(machine_id, target, deadline)
