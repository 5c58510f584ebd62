"""What a simulated host remembers, as flat values of plain JSON types.

The same records live in both stores, so a rule written against them holds in memory and in SQLite alike. Ids are
strings, times are nanoseconds since 1970 on the host's own clock. Records say what is; the rules which may change them
are in ``machines.py``, ``volumes.py`` and ``networks.py``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import ClassVar, TypeVar
from uuid import UUID

from drivers.api import Machine, Power


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that a host remembers under its id."""

    id: str


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class MachineRecord(Record):
    """A machine. ``disks`` maps volume ids to device names, ``nics`` port ids to network ids, both in guest order.

    ``starts`` holds the newest boots as ``[begun_ns, ended_ns or None, how it ended]``; ``on_since_ns`` is the power-on
    from which the counters count (a reboot is no power-on); a machine that is paused or suspended has none, and in
    ``ran_ns`` how long it ran before.
    """

    name: str
    vcpus: int
    ram_mib: int
    firmware: str
    disks: dict[str, str]
    read_only: list[str]
    nics: dict[str, str]
    marks: dict[str, str]
    hostname: str
    ssh_keys: int
    seed_sha256: str | None
    made_ns: int
    power: str = "OFF"
    reason: str | None = None
    on_since_ns: int | None = None
    starts: list[list[int | str | None]] = field(default_factory=list)
    ran_ns: int | None = None
    snapshot_id: str | None = None


@dataclass(frozen=True, slots=True)
class MachineSnapshotRecord(Record):
    """A whole machine at one moment: the contents of its disks by volume; ``memory`` says whether it ran on,
    ``quiesced`` whether its guest held still.
    """

    machine_id: str
    parent_id: str | None
    memory: bool
    contents: dict[str, str]
    quiesced: bool = False


@dataclass(frozen=True, slots=True)
class ForeignRecord(Record):
    """A machine of somebody else's; its id is what the platform calls it. ``disks`` are ``{key, size_bytes, content}``,
    ``nics`` ``{mac, network}``. While it is adopted, ``adopted_as`` names our machine and ``volumes`` our volumes by
    key.
    """

    name: str
    vcpus: int
    ram_mib: int
    power: str
    firmware: str = "BIOS"
    guest: str | None = None
    disks: list[dict[str, object]] = field(default_factory=list)
    nics: list[dict[str, object]] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)
    adopted_as: str | None = None
    volumes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SeedRecord(Record):
    """The first-boot files of a machine, base64 by name."""

    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class VolumeRecord(Record):
    """A disk. ``content`` names its data: equal names, equal data; ``zeros`` is a blank one."""

    size_bytes: int
    content: str
    allocated_bytes: int
    image_id: str | None = None


@dataclass(frozen=True, slots=True)
class SnapshotRecord(Record):
    """A copy of a volume's data and size at one moment."""

    size_bytes: int
    content: str


@dataclass(frozen=True, slots=True)
class ImageRecord(Record):
    """A base image whose file was read whole and had the checksum it was said to have."""

    format: str
    size_bytes: int
    virtual_size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class NetworkRecord(Record):
    """A segment. ``subnets`` are ``{id, cidr, gateway, dhcp, dns_servers}``."""

    name: str
    mtu: int
    subnets: list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class PortRecord(Record):
    """A place on a network. ``rules`` None is a port without filtering."""

    network_id: str
    mac: str
    addresses: list[str]
    hostname: str | None
    rules: list[dict[str, object]] | None


@dataclass(frozen=True, slots=True)
class TallyRecord(Record):
    """How much of the host is in use; kept by the rules in the same transaction as what uses it."""

    KEY: ClassVar[str] = "host"
    vcpus: int = 0
    ram_mib: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ConditionsRecord(Record):
    """The weather of a host: what the manual calls faults. Shared by every process that uses the host.

    ``faults`` are ``{verb, when, error, reason, times, skip}``; ``deaf`` maps ``shutdown``, ``detach`` and ``quiesce``
    to machine ids (``*``: all) whose guest does not listen; ``down`` is the name of the error every call gets.
    """

    KEY: ClassVar[str] = "host"
    down: str | None = None
    full: bool = False
    manual_ns: int | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    faults: list[dict[str, object]] = field(default_factory=list)
    deaf: dict[str, list[str]] = field(default_factory=dict)


def to_json(record: Record) -> str:
    """The record as one JSON object."""
    return json.dumps({each.name: getattr(record, each.name) for each in fields(record)}, separators=(",", ":"))


def from_json(kind: type[R], body: str) -> R:
    """The record that :func:`to_json` wrote."""
    return kind(**json.loads(body))


def seen(machine: MachineRecord) -> Machine:
    """The machine as the driver's callers see it."""
    volumes = {UUID(volume): device for volume, device in machine.disks.items()}
    power = Power(machine.power)
    return Machine(UUID(machine.id), machine.name, power, machine.vcpus, machine.ram_mib, volumes, machine.reason)
