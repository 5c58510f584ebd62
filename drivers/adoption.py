"""Machines of somebody else's on a host: looking at them, taking one over, and giving it back as it was.

Part of the contract in drivers.api, from where everyone imports it. A foreign machine is known by a ``ref`` of the
platform's own, never by its name. Taking one over writes our mark and nothing else: its files stay where they are, it
keeps running, and :meth:`Adoption.disown` leaves it as it was found. Adopting is a beginning: the disks of an adopted
machine can be exported, and snapshots made of them, but they are not detached, grown or removed by their own verbs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from uuid import UUID

if TYPE_CHECKING:
    from drivers.api import Deadline, DiskSpec, Firmware, Machine, Power

MOST_FOREIGN = 200
"""How many foreign machines one page holds at most."""


@dataclass(frozen=True, slots=True)
class ForeignDisk:
    """A disk of a foreign machine, known by the platform's own ``key``; in the order in which the machine has them."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ForeignNic:
    """An interface of a foreign machine, and what the platform calls the network it is on."""

    mac: str
    network: str | None = None


@dataclass(frozen=True, slots=True)
class ForeignMachine:
    """A machine that is not ours. ``guest`` is the platform's word for its operating system; ``obstacles`` say, one
    sentence each, why it cannot be taken over as it is (none: it can).
    """

    ref: str
    name: str
    power: Power
    vcpus: int
    ram_mib: int
    firmware: Firmware
    disks: tuple[ForeignDisk, ...]
    nics: tuple[ForeignNic, ...]
    guest: str | None = None
    obstacles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForeignPage:
    """Some foreign machines in a fixed order, and where the next page begins (None: this is the last)."""

    machines: tuple[ForeignMachine, ...]
    after: str | None = None


@dataclass(frozen=True, slots=True)
class AdoptionSpec:
    """What to take over and as what: our id and name for it, and for each disk, by the platform's key, our volume id
    and device name.
    """

    ref: str
    id: UUID
    name: str
    disks: Mapping[str, DiskSpec]
    marks: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Adoption(Protocol):
    """Machines that others made."""

    def list_foreign(self, after: str | None, limit: int, deadline: Deadline) -> ForeignPage:
        """At most ``limit`` (1 to MOST_FOREIGN) foreign machines behind ``after``, in a bounded number of calls."""

    def inspect_foreign(self, ref: str, deadline: Deadline) -> ForeignMachine | None:
        """The foreign machine as it is now; None when there is none, or it is ours."""

    def adopt(self, spec: AdoptionSpec, deadline: Deadline) -> Machine:
        """Make the machine ours, running or not, by writing our mark. One that has this mark already is left as it is.
        Raises Refused when there is no such machine, it carries another mark of ours, has an obstacle, or its disks are
        not those that the spec names.
        """

    def disown(self, machine_id: UUID, deadline: Deadline) -> None:
        """Take our mark from an adopted machine, which otherwise stays as it is now. Raises Refused for one of ours
        that was not adopted.
        """
