"""What a hypervisor host can be asked for: the contract between the cloud and every driver.

A driver is a leaf. It knows the standard library and one vendor SDK, nothing of the cloud's database, queue or
schema. It is asked for a *state* (``ensure``, ``remove``), by **our** id, with a :class:`Deadline`; asking twice
equals asking once, and removing what is not there is success. Whatever it makes it marks with our id, so that
``list`` answers with exactly what is ours and nothing else on the host is ever touched.

Three facets hold the verbs every driver has (:class:`Machines`, :class:`Volumes`, :class:`Networks`). What only some
platforms can do is a small optional protocol or a declared trait; :func:`capabilities` names both, and what is absent
is refused with :class:`Unsupported` and changes nothing. ``drivers/contract.py`` holds every driver to this text.

Calls block, may come from many threads at once, and raise only the four errors below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable
from uuid import UUID

from drivers.adoption import MOST_FOREIGN as MOST_FOREIGN
from drivers.adoption import Adoption as Adoption
from drivers.adoption import AdoptionSpec as AdoptionSpec
from drivers.adoption import ForeignDisk as ForeignDisk
from drivers.adoption import ForeignMachine as ForeignMachine
from drivers.adoption import ForeignNic as ForeignNic
from drivers.adoption import ForeignPage as ForeignPage
from drivers.console import ConsoleLog as ConsoleLog
from drivers.console import GraphicalConsole as GraphicalConsole
from drivers.errors import Deadline as Deadline
from drivers.errors import DriverError as DriverError
from drivers.errors import HostAtFault as HostAtFault
from drivers.errors import Refused as Refused
from drivers.errors import Transient as Transient
from drivers.errors import Unsupported as Unsupported
from drivers.guest import GuestListening as GuestListening
from drivers.guest import GuestSigns as GuestSigns
from drivers.host import HostConfig as HostConfig
from drivers.host import HostFacts as HostFacts
from drivers.host import Restricted as Restricted
from drivers.machinery import MachineSnapshot as MachineSnapshot
from drivers.machinery import MachineSnapshots as MachineSnapshots
from drivers.machinery import PortPlugging as PortPlugging
from drivers.machinery import Relocation as Relocation
from drivers.quality import Quality as Quality
from drivers.transport import DiskFile as DiskFile
from drivers.transport import DiskSource as DiskSource
from drivers.transport import DiskTransport as DiskTransport
from drivers.transport import Progress as Progress
from drivers.transport import untold as untold
from drivers.watching import MachineChanged as MachineChanged
from drivers.watching import Watch as Watch
from drivers.watching import Watching as Watching

# ---------------------------------------------------------------------------------------------- machines


class Power(StrEnum):
    """What a hypervisor says a machine is doing."""

    RUNNING = "RUNNING"
    OFF = "OFF"
    PAUSED = "PAUSED"
    SUSPENDED = "SUSPENDED"
    CRASHED = "CRASHED"
    UNKNOWN = "UNKNOWN"


class PowerAction(StrEnum):
    """ON, OFF, SUSPEND (memory saved on disk, the host's given back) and PAUSE (processors stand still) are states to
    reach, the latter two from RUNNING only; ON goes on from either, OFF forgets what was saved. SHUTDOWN asks the guest
    and does not force; REBOOT and RESET happen once per call.
    """

    ON = "ON"
    OFF = "OFF"
    SHUTDOWN = "SHUTDOWN"
    REBOOT = "REBOOT"
    RESET = "RESET"
    SUSPEND = "SUSPEND"
    PAUSE = "PAUSE"


class Firmware(StrEnum):
    """BIOS or UEFI (without Secure Boot)."""

    BIOS = "BIOS"
    UEFI = "UEFI"


class Devices(StrEnum):
    """What a machine's disks and interfaces look like to its guest. OWN: the platform's own fast ones (virtio on KVM).
    VMWARE: pvscsi and vmxnet3, as on ESXi, for a guest that was installed there (the trait VMWARE_DEVICES).
    """

    OWN = "OWN"
    VMWARE = "VMWARE"


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A volume of the same host, seen by the guest as ``device`` with the volume's id (its first 20 hexadecimal
    digits) as serial number.
    """

    volume_id: UUID
    device: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class NicSpec:
    """A port, which :meth:`Networks.ensure_port` made before."""

    port_id: UUID
    network_id: UUID
    mac: str


@dataclass(frozen=True, slots=True)
class Seed:
    """First-boot data by cloud-init's NoCloud layout: file name to content, at most 1 MiB together. Each driver brings
    it to the guest in its own way (an ISO labelled ``cidata``, guestinfo).
    """

    files: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A whole machine. ``disks[0]`` boots. ``marks`` (short text) are kept with the machine on the platform."""

    id: UUID
    name: str
    vcpus: int
    ram_mib: int
    disks: tuple[DiskSpec, ...]
    nics: tuple[NicSpec, ...] = ()
    seed: Seed | None = None
    firmware: Firmware = Firmware.BIOS
    marks: Mapping[str, str] = field(default_factory=dict)
    devices: Devices = Devices.OWN


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as the hypervisor sees it now. ``volumes`` maps volume ids to guest device names; ``reason`` is the
    platform's word on why it is in that state (``shutdown``, ``destroyed``, ``crashed`` ...).
    """

    id: UUID
    name: str
    power: Power
    vcpus: int
    ram_mib: int
    volumes: Mapping[UUID, str]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """Counters of one machine at one moment. Totals grow from power-on; None is 'the platform does not say'."""

    machine_id: UUID
    at: datetime
    power: Power
    cpu_time_ns: int | None
    vcpus: int
    ram_mib: int
    ram_used_mib: int | None
    disk_read_bytes: int | None
    disk_written_bytes: int | None
    disk_reads: int | None
    disk_writes: int | None
    net_received_bytes: int | None
    net_sent_bytes: int | None
    quality: Quality = Quality.EXACT


class Machines(Protocol):
    """Virtual machines."""

    def ensure(self, spec: MachineSpec, deadline: Deadline) -> Machine:
        """Make the machine exist (powered off when new). One that is there keeps its power state; it takes vcpus and
        memory of the spec when it is off. Raises Refused when a disk or port it names is not there.
        """

    def remove(self, machine_id: UUID, deadline: Deadline) -> None:
        """Power off by force and forget the machine and its seed. Its volumes and ports stay."""

    def inspect(self, machine_id: UUID, deadline: Deadline) -> Machine | None:
        """The machine as it is now, None when there is none."""

    def list(self, deadline: Deadline) -> Sequence[Machine]:
        """Every machine of ours on this host, in a bounded number of platform calls."""

    def power(self, machine_id: UUID, action: PowerAction, deadline: Deadline) -> Machine:
        """Carry out the action and answer with the state seen afterwards. SHUTDOWN waits for the guest until the
        deadline and answers with whatever state it then has, without an error.
        """

    def attach(self, machine_id: UUID, disk: DiskSpec, deadline: Deadline) -> Machine:
        """Plug a volume in, running or not; it stays over restarts. Raises Refused for a machine that is suspended:
        what its guest remembers would not fit any more. So does ``detach``.
        """

    def detach(self, machine_id: UUID, volume_id: UUID, deadline: Deadline) -> Machine:
        """Unplug a volume and wait until the guest let go. Raises Transient when the guest does not."""

    def sample(self, deadline: Deadline) -> Sequence[Sample]:
        """Counters of every machine of ours on this host through one bulk call."""


# ---------------------------------------------------------------------------------------------- volumes and images


class DiskFormat(StrEnum):
    """Disk formats an image may have; ISO is a read-only optical image."""

    RAW = "RAW"
    QCOW2 = "QCOW2"
    VMDK = "VMDK"
    VDI = "VDI"
    VHDX = "VHDX"
    ISO = "ISO"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image file on the worker, inspected and safe, already in a format of :attr:`DriverType.image_formats`."""

    id: UUID
    path: Path
    format: DiskFormat
    size_bytes: int
    virtual_size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A disk. At most one source: an image which :meth:`Volumes.ensure_image` brought in, or a snapshot. A larger size
    than the source's is allowed, a smaller one Refused.
    """

    id: UUID
    size_bytes: int
    image_id: UUID | None = None
    snapshot_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as the platform sees it. ``allocated_bytes`` is what it takes on the host now."""

    id: UUID
    size_bytes: int
    allocated_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A point-in-time copy of a volume. Deleting the volume leaves it usable."""

    id: UUID
    size_bytes: int


class Volumes(Protocol):
    """Disks, their snapshots and the base images they are made from."""

    def ensure(self, spec: VolumeSpec, deadline: Deadline) -> Volume:
        """Make the volume exist; blank volumes read as zeros. One that is there is left as it is."""

    def remove(self, volume_id: UUID, deadline: Deadline) -> None:
        """Delete the volume's data. Raises Refused while a machine holds it."""

    def inspect(self, volume_id: UUID, deadline: Deadline) -> Volume | None:
        """The volume as it is now, None when there is none."""

    def list(self, deadline: Deadline) -> Sequence[Volume]:
        """Every volume of ours on this host."""

    def extend(self, volume_id: UUID, size_bytes: int, deadline: Deadline) -> Volume:
        """Grow to at least that size; a running guest sees it. Never shrinks."""

    def ensure_image(self, spec: ImageSpec, deadline: Deadline) -> None:
        """Bring a base image to the host once, whole and with the right checksum, or not at all."""

    def remove_image(self, image_id: UUID, deadline: Deadline) -> None:
        """Forget a base image. Raises Refused while a volume is built on it."""

    def list_images(self, deadline: Deadline) -> Sequence[UUID]:
        """The base images of ours that this host holds."""


# ---------------------------------------------------------------------------------------------- networks


@dataclass(frozen=True, slots=True)
class SubnetSpec:
    """An IPv4 or IPv6 range. ``gateway`` None means none; then nothing is routed out."""

    id: UUID
    cidr: str
    gateway: str | None
    dhcp: bool
    dns_servers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A layer 2 segment with its subnets. ``mtu`` in bytes."""

    id: UUID
    name: str
    subnets: tuple[SubnetSpec, ...] = ()
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Network:
    """A network as the host has it."""

    id: UUID
    subnet_ids: frozenset[UUID] = frozenset()


class Direction(StrEnum):
    """As the guest sees it: INGRESS is traffic to it."""

    INGRESS = "INGRESS"
    EGRESS = "EGRESS"


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """What is let through; everything else is dropped, answers to what was let through are not. ``protocol`` is
    ``tcp``, ``udp``, ``icmp`` or None for any; ports are inclusive (for icmp: type and code); ``remote`` is a CIDR.
    """

    direction: Direction
    ethertype: int  # 4 or 6
    protocol: str | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote: str | None = None


@dataclass(frozen=True, slots=True)
class PortSpec:
    """A machine's place on a network: its address lease, its anti-spoofing, its rules. ``rules`` None switches
    filtering and anti-spoofing off (port security disabled).
    """

    id: UUID
    network_id: UUID
    mac: str
    addresses: tuple[str, ...]
    hostname: str | None = None
    rules: tuple[RuleSpec, ...] | None = ()


class Networks(Protocol):
    """Segments, address leases and packet rules on this host."""

    def ensure(self, spec: NetworkSpec, deadline: Deadline) -> Network:
        """Make the network exist with exactly these subnets. Raises Refused when a range is taken on this host and
        the driver lacks OVERLAPPING_SUBNETS.
        """

    def remove(self, network_id: UUID, deadline: Deadline) -> None:
        """Delete the network. Raises Refused while a machine is on it."""

    def inspect(self, network_id: UUID, deadline: Deadline) -> Network | None:
        """The network as it is now, None when there is none."""

    def list(self, deadline: Deadline) -> Sequence[Network]:
        """Every network of ours on this host."""

    def ensure_port(self, spec: PortSpec, deadline: Deadline) -> None:
        """Make lease, anti-spoofing and rules exactly as said, on a running machine too. The network must exist."""

    def remove_port(self, network_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """Take back what ensure_port made."""

    def list_ports(self, deadline: Deadline) -> Sequence[UUID]:
        """The ports of ours that this host holds."""


@runtime_checkable
class Snapshots(Protocol):
    """Point-in-time copies of volumes, also of those in use."""

    def snapshot(self, volume_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Snapshot:
        """Make the copy; crash-consistent when a machine runs on the volume. One that is there is left as it is."""

    def remove_snapshot(self, snapshot_id: UUID, deadline: Deadline) -> None:
        """Delete the copy. Volumes made from it stay whole."""

    def list_snapshots(self, deadline: Deadline) -> Sequence[Snapshot]:
        """Every snapshot of ours on this host."""


class Capability(StrEnum):
    """What a driver may or may not be able to do. Shown to API users as the capability matrix."""

    CONSOLE_LOG = "CONSOLE_LOG"
    GRAPHICAL_CONSOLE = "GRAPHICAL_CONSOLE"
    GUEST_SIGNS = "GUEST_SIGNS"
    VOLUME_SNAPSHOT = "VOLUME_SNAPSHOT"
    STATE_EVENTS = "STATE_EVENTS"
    ADOPTION = "ADOPTION"
    DISK_TRANSPORT = "DISK_TRANSPORT"
    RELOCATE = "RELOCATE"
    PORT_HOT_ATTACH = "PORT_HOT_ATTACH"
    MACHINE_SNAPSHOT = "MACHINE_SNAPSHOT"
    # Traits: promises about the ordinary verbs.
    SECURITY_GROUPS = "SECURITY_GROUPS"
    DHCP = "DHCP"
    OVERLAPPING_SUBNETS = "OVERLAPPING_SUBNETS"
    VOLUME_HOT_ATTACH = "VOLUME_HOT_ATTACH"
    VOLUME_HOT_EXTEND = "VOLUME_HOT_EXTEND"
    UEFI = "UEFI"
    VMWARE_DEVICES = "VMWARE_DEVICES"
    SUSPEND = "SUSPEND"
    PAUSE = "PAUSE"
    MACHINES = "MACHINES"
    VOLUMES = "VOLUMES"
    NETWORKS = "NETWORKS"


VERBS: Mapping[Capability, type] = {
    Capability.CONSOLE_LOG: ConsoleLog,
    Capability.GRAPHICAL_CONSOLE: GraphicalConsole,
    Capability.GUEST_SIGNS: GuestListening,
    Capability.VOLUME_SNAPSHOT: Snapshots,
    Capability.STATE_EVENTS: Watching,
    Capability.ADOPTION: Adoption,
    Capability.DISK_TRANSPORT: DiskTransport,
    Capability.RELOCATE: Relocation,
    Capability.PORT_HOT_ATTACH: PortPlugging,
    Capability.MACHINE_SNAPSHOT: MachineSnapshots,
}


class Driver(Protocol):
    """One open connection to one host. Optional verbs are implemented by the driver object itself."""

    @property
    def machines(self) -> Machines:
        """The host's machines."""

    @property
    def volumes(self) -> Volumes:
        """The host's volumes."""

    @property
    def networks(self) -> Networks:
        """The host's networks."""

    def facts(self, deadline: Deadline) -> HostFacts:
        """What the host is; also the health check: it raises when the host cannot be used."""

    def close(self) -> None:
        """Let go of the host. Later calls raise Transient."""


@dataclass(frozen=True, slots=True)
class DriverType:
    """What an entry point of the group ``stratograph.drivers`` names. It imports no SDK until ``connect`` is called.

    ``traits`` are the capabilities that are promises rather than verbs; ``verbs`` the optional protocols its
    connections implement; ``missing`` says what must be installed (None: nothing).
    """

    kind: str
    description: str
    connect: Callable[[HostConfig, Deadline], Driver]
    traits: frozenset[Capability]
    verbs: frozenset[Capability]
    image_formats: tuple[DiskFormat, ...]
    missing: Callable[[], str | None]

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All that a connection of this type can do."""
        return self.traits | self.verbs


def capabilities(driver: Driver, of: DriverType) -> frozenset[Capability]:
    """What this very connection can do: the declared traits and the optional protocols it really implements, without
    what its host was found not to do.
    """
    can = of.traits | {capability for capability, verb in VERBS.items() if isinstance(driver, verb)}
    return can - driver.withheld if isinstance(driver, Restricted) else can
