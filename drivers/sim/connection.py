"""A connection to a simulated host, and the driver types that make them.

The optional verbs are classes of their own, so that a type which lacks one truly lacks the method: the connection's
class is put together from what its :class:`~drivers.api.DriverType` declares. :func:`driver_type` with ``without``
makes lesser hosts, by which the cloud's behaviour towards a missing capability is tested.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from socket import socket
from uuid import UUID

from drivers.api import (
    VERBS,
    Capability,
    Deadline,
    DiskFormat,
    Driver,
    DriverType,
    GuestSigns,
    HostConfig,
    HostFacts,
    MachineChanged,
    Power,
    Refused,
    Relocation,
    Watch,
)
from drivers.sim.adoption import SimAdoption
from drivers.sim.console import open_screen
from drivers.sim.data_centre import data_centre
from drivers.sim.faults import conditions
from drivers.sim.gate import Gate
from drivers.sim.guest import Surroundings, console_log
from drivers.sim.machinery import SimPlugging, SimRelocating, SimRewinding
from drivers.sim.machines import SimMachines
from drivers.sim.networks import SimNetworks
from drivers.sim.options import parse
from drivers.sim.records import MachineRecord, PortRecord, VolumeRecord
from drivers.sim.store import Transaction
from drivers.sim.transport import SimTransport
from drivers.sim.volumes import SimSnapshots, SimVolumes
from drivers.sim.watch import watch

VERSION = "1"


class SimConnection:
    """See :class:`drivers.api.Driver`."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.machines = SimMachines(gate)
        self.volumes = SimVolumes(gate)
        self.networks = SimNetworks(gate)
        self._watches: list[Watch] = []

    def facts(self, deadline: Deadline) -> HostFacts:
        """See :meth:`drivers.api.Driver.facts`."""
        options = self.gate.options
        with self.gate.verb("facts", deadline, write=False):
            return HostFacts(
                hypervisor="sim",
                version=VERSION,
                vcpus=options.vcpus,
                ram_mib=options.ram_mib,
                disk_gib=options.disk_gib,
                architecture="x86_64",
                cpu_model="simulated",
                accelerator="none: simulated",
                pool=("memory" if options.folder is None else "file") if isinstance(self, Relocation) else None,
            )

    def close(self) -> None:
        """See :meth:`drivers.api.Driver.close`."""
        for each in self._watches:
            each.close()
        self.gate.close()


class SimConsole(SimConnection):
    """See :class:`drivers.api.ConsoleLog`."""

    def console_log(self, machine_id: UUID, max_bytes: int, deadline: Deadline) -> bytes:
        """See :meth:`drivers.api.ConsoleLog.console_log`."""
        with self.gate.verb("console_log", deadline, write=False) as transaction:
            machine = transaction.get(MachineRecord, str(machine_id))
            if machine is None or max_bytes < 1:
                return b""
            around = self._surroundings(transaction, machine)
            log = console_log(machine, around, self.gate.now_ns(transaction))
        return log[-max_bytes:]

    def _surroundings(self, transaction: Transaction, machine: MachineRecord) -> Surroundings:
        volumes = {key: transaction.get(VolumeRecord, key) for key in machine.disks}
        ports = {key: transaction.get(PortRecord, key) for key in machine.nics}
        return Surroundings(
            self.gate.options.name,
            self.gate.options.boot_ms,
            {key: volume for key, volume in volumes.items() if volume is not None},
            {key: port for key, port in ports.items() if port is not None},
        )


class SimScreen(SimConnection):
    """See :class:`drivers.api.GraphicalConsole`."""

    def open_console(self, machine_id: UUID, deadline: Deadline) -> socket:
        """See :meth:`drivers.api.GraphicalConsole.open_console`."""
        return open_screen(self.gate, machine_id, deadline)


class SimListening(SimConnection):
    """See :class:`drivers.api.GuestListening`."""

    def guest_signs(self, machine_id: UUID, deadline: Deadline) -> GuestSigns:
        """See :meth:`drivers.api.GuestListening.guest_signs`. Guests have an agent where the host's option says so."""
        with self.gate.verb("guest_signs", deadline, write=False) as transaction:
            machine = transaction.get(MachineRecord, str(machine_id))
            if machine is None:
                raise Refused(f"the simulated host has no machine {machine_id}")
            up_ns = self.gate.now_ns(transaction) - (machine.on_since_ns or 0)
        booted = machine.power == Power.RUNNING and up_ns >= self.gate.options.boot_ms * 1_000_000
        return GuestSigns(agent=booted and self.gate.options.guest_agent)


class SimWatching(SimConnection):
    """See :class:`drivers.api.Watching`."""

    def watch(self, on_change: Callable[[MachineChanged], None], deadline: Deadline) -> Watch:
        """See :meth:`drivers.api.Watching.watch`."""
        self.gate.weather("watch", deadline)
        made = watch(self.gate.store, on_change, deadline)
        self._watches.append(made)
        return made


class SimSnapshotting(SimSnapshots, SimConnection):
    """See :class:`drivers.api.Snapshots`."""


class SimAdopting(SimAdoption, SimConnection):
    """See :class:`drivers.api.Adoption`."""


class SimTransporting(SimTransport, SimConnection):
    """See :class:`drivers.api.DiskTransport`."""


class SimPortPlugging(SimPlugging, SimConnection):
    """See :class:`drivers.api.PortPlugging`."""


class SimMachineSnapshotting(SimRewinding, SimConnection):
    """See :class:`drivers.api.MachineSnapshots`."""


class SimMoving(SimRelocating, SimConnection):
    """See :class:`drivers.api.Relocation`."""


OPTIONAL: dict[Capability, type[SimConnection]] = {
    Capability.CONSOLE_LOG: SimConsole,
    Capability.GRAPHICAL_CONSOLE: SimScreen,
    Capability.GUEST_SIGNS: SimListening,
    Capability.VOLUME_SNAPSHOT: SimSnapshotting,
    Capability.STATE_EVENTS: SimWatching,
    Capability.ADOPTION: SimAdopting,
    Capability.DISK_TRANSPORT: SimTransporting,
    Capability.RELOCATE: SimMoving,
    Capability.PORT_HOT_ATTACH: SimPortPlugging,
    Capability.MACHINE_SNAPSHOT: SimMachineSnapshotting,
}


def driver_type(kind: str = "SIM", without: frozenset[Capability] = frozenset()) -> DriverType:
    """A type of simulated host that can do everything but ``without``."""
    verbs = frozenset(OPTIONAL) - without
    traits = frozenset(Capability) - frozenset(VERBS) - without
    parts = tuple(part for capability, part in OPTIONAL.items() if capability in verbs)
    connection_class = type("Connection", (*parts, SimConnection), {})
    return DriverType(
        kind=kind,
        description="A simulated data centre: keeps and enforces what a host would, runs nothing.",
        connect=partial(_connect, connection_class, traits | verbs),
        traits=traits,
        verbs=verbs,
        image_formats=tuple(DiskFormat),
        missing=lambda: None,
    )


def _connect(
    connection_class: type[SimConnection],
    capabilities: frozenset[Capability],
    config: HostConfig,
    deadline: Deadline,
) -> Driver:
    options = parse(config)
    centre = data_centre(options.name, options.folder)
    gate = Gate(centre, options, capabilities)
    gate.weather("connect", deadline)
    if options.manual_ns is not None:
        with centre.store.write(deadline) as transaction:
            weather = conditions(transaction)
            if weather.manual_ns is None:
                transaction.put(replace(weather, manual_ns=options.manual_ns))
    return connection_class(gate)
