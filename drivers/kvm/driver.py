"""One open KVM host: the three facets and the optional verbs over one :class:`~drivers.kvm.link.Link`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from socket import socket
from typing import Any
from uuid import UUID

from drivers.api import (
    AdoptionSpec,
    Capability,
    Deadline,
    DiskFile,
    DiskSource,
    ForeignMachine,
    ForeignPage,
    GuestSigns,
    HostConfig,
    HostFacts,
    Machine,
    MachineChanged,
    MachineSnapshot,
    NicSpec,
    Progress,
    Snapshot,
    Volume,
    Watch,
    untold,
)
from drivers.kvm import accelerator, console, files, snapshots, transport, xml
from drivers.kvm.adoption import DomainAdoption
from drivers.kvm.errors import told
from drivers.kvm.link import Link
from drivers.kvm.machines import Domains
from drivers.kvm.networks import Bridges
from drivers.kvm.sources import Sources
from drivers.kvm.volumes import PoolVolumes
from drivers.kvm.watching import LifecycleWatch
from drivers.kvm.xml.common import strings

_GIB = 1024**3


class KvmDriver:
    """The driver object of one host."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._machines = Domains(link)
        self._adoption = DomainAdoption(link, self._machines)
        self._sources = Sources(link, self._machines.register)
        self._volumes = PoolVolumes(link)
        self._networks = Bridges(link)
        self._models: list[str | None] = []

    @property
    def machines(self) -> Domains:
        """Virtual machines."""
        return self._machines

    @property
    def volumes(self) -> PoolVolumes:
        """Disks and base images."""
        return self._volumes

    @property
    def networks(self) -> Bridges:
        """Networks and ports."""
        return self._networks

    def facts(self, deadline: Deadline) -> HostFacts:
        """What the host is. Raises when it cannot be used."""
        with told("asking the host what it is"):
            connection = self._link.open(deadline)
            architecture, ram_mib, vcpus, *_ = connection.getInfo()
            version = connection.getVersion()
            capacity = files.pool(self._link, deadline).info()[1]
            return HostFacts(
                hypervisor=str(connection.getType()),
                version=f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}",
                vcpus=int(vcpus),
                ram_mib=int(ram_mib),
                disk_gib=int(capacity) // _GIB,
                architecture=str(architecture),
                cpu_model=self._cpu_model(connection),
                accelerator=accelerator.choose(self._link, connection),
            )

    def _cpu_model(self, connection: Any) -> str | None:
        """The processor's model. Asked once: it does not change, and libvirt may take seconds to tell it."""
        if not self._models:
            found = strings(xml.parse(connection.getCapabilities()), "host/cpu/model/text()")
            self._models = [found[0] if found else None]
        return self._models[0]

    def close(self) -> None:
        """Let go of the host."""
        self._link.close()

    # ------------------------------------------------------------------------------------- optional verbs

    def console_log(self, machine_id: UUID, max_bytes: int, deadline: Deadline) -> bytes:
        """The newest bytes a machine wrote on its serial port."""
        return console.tail(self._link, machine_id, max_bytes, deadline)

    @property
    def withheld(self) -> frozenset[Capability]:
        """What this way to the host cannot carry: a screen comes over a UNIX socket only."""
        local = console.has_screens(self._link.config.endpoint)
        return frozenset() if local else frozenset({Capability.GRAPHICAL_CONSOLE})

    def open_console(self, machine_id: UUID, deadline: Deadline) -> socket:
        """Open a machine's screen."""
        return console.screen(self._link, self._machines, machine_id, deadline)

    def guest_signs(self, machine_id: UUID, deadline: Deadline) -> GuestSigns:
        """What is heard of a machine's guest."""
        return self._machines.signs(machine_id, deadline)

    def snapshot(self, volume_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Snapshot:
        """Make a point-in-time copy of a volume."""
        return snapshots.take(self._sources, volume_id, snapshot_id, deadline)

    def remove_snapshot(self, snapshot_id: UUID, deadline: Deadline) -> None:
        """Delete the copy."""
        snapshots.remove(self._link, snapshot_id, deadline)

    def list_snapshots(self, deadline: Deadline) -> Sequence[Snapshot]:
        """Every snapshot of ours on this host."""
        return snapshots.everything(self._link, deadline)

    def export_disk(
        self, source: DiskSource, target: Path, deadline: Deadline, progress: Progress = untold
    ) -> DiskFile:  # fmt: skip
        """Write a disk to a file of the worker."""
        return transport.export(self._sources, source, target, deadline, progress)

    def import_disk(self, volume_id: UUID, file: DiskFile, deadline: Deadline, progress: Progress = untold) -> Volume:
        """Make a volume of a file of the worker."""
        return self._volumes.bring(volume_id, file, deadline, progress)

    def list_foreign(self, after: str | None, limit: int, deadline: Deadline) -> ForeignPage:
        """Machines that others made."""
        return self._adoption.list_foreign(after, limit, deadline)

    def inspect_foreign(self, ref: str, deadline: Deadline) -> ForeignMachine | None:
        """One of them."""
        return self._adoption.inspect_foreign(ref, deadline)

    def adopt(self, spec: AdoptionSpec, deadline: Deadline) -> Machine:
        """Take it over as it is."""
        return self._adoption.adopt(spec, deadline)

    def disown(self, machine_id: UUID, deadline: Deadline) -> None:
        """Hand it back as it is."""
        self._adoption.disown(machine_id, deadline)

    def plug_port(self, machine_id: UUID, nic: NicSpec, deadline: Deadline) -> None:
        """Give a machine a NIC on a port."""
        self._machines.plug(machine_id, nic, deadline)

    def unplug_port(self, machine_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """Take the NIC on a port away."""
        self._machines.unplug(machine_id, port_id, deadline)

    def plugged_ports(self, machine_id: UUID, deadline: Deadline) -> Sequence[UUID]:
        """The ports that a machine is on."""
        return self._machines.plugged(machine_id, deadline)

    def snapshot_machine(
        self,
        machine_id: UUID,
        snapshot_id: UUID,
        deadline: Deadline,
        *,
        memory: bool = False,
        quiesce: bool = False,
    ) -> MachineSnapshot:
        """Snapshot a whole machine."""
        return self._machines.snapshot(machine_id, snapshot_id, deadline, memory=memory, quiesce=quiesce)

    def revert_machine(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Machine:
        """Bring a machine's disks and memory back."""
        return self._machines.revert(machine_id, snapshot_id, deadline)

    def remove_machine_snapshot(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> None:
        """Forget a snapshot of a machine."""
        self._machines.remove_snapshot(machine_id, snapshot_id, deadline)

    def list_machine_snapshots(self, machine_id: UUID, deadline: Deadline) -> Sequence[MachineSnapshot]:
        """The snapshots of a machine."""
        return self._machines.snapshots(machine_id, deadline)

    def watch(self, on_change: Callable[[MachineChanged], None], deadline: Deadline) -> Watch:
        """Call ``on_change`` for each change until the watch is closed."""
        self._link.open(deadline)
        return LifecycleWatch(self._link, self._machines.our_id, self._machines.inspect, on_change)


def connect(config: HostConfig, deadline: Deadline) -> KvmDriver:
    """Reach the host and make its storage pool ready."""
    link = Link(config)
    link.open(deadline)
    return KvmDriver(link)
