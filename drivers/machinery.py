"""What only some platforms can do with a machine: move it to another host, plug ports in and out, snapshot it whole.

Part of the contract in drivers.api, from where everyone imports it. Each is a protocol of its own, so that a driver
which has one says so by having its methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from uuid import UUID

if TYPE_CHECKING:
    from drivers.api import Deadline, HostConfig, Machine, NicSpec


@runtime_checkable
class Relocation(Protocol):
    """Moves machines to another host of the same platform: running ones as they run, others as they are."""

    def relocate(self, machine_id: UUID, target: HostConfig, deadline: Deadline) -> Machine:
        """Have the machine be on ``target`` with all its volumes, in the power state that it has. Its ports were made
        there before. Asked again when it has arrived: success, and it is looked at there. Raises Refused when there is
        no such machine or the target lacks a network of it, Unsupported when the two hosts have too little in common.
        """


@runtime_checkable
class PortPlugging(Protocol):
    """Plugs ports into machines, running or not."""

    def plug_port(self, machine_id: UUID, nic: NicSpec, deadline: Deadline) -> None:
        """Give the machine a NIC on that port, also over restarts. One that is there is left as it is. Raises Refused
        when machine or port are not there, another machine is on the port, or the machine is suspended.
        """

    def unplug_port(self, machine_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """Take the NIC on that port away. None being there is success. Raises Transient when the guest keeps it."""

    def plugged_ports(self, machine_id: UUID, deadline: Deadline) -> Sequence[UUID]:
        """The ports that the machine is on; none when there is no such machine."""


@dataclass(frozen=True, slots=True)
class MachineSnapshot:
    """A machine at one moment: its disks, and with ``memory`` what ran on it. ``parent_id`` is the snapshot that it was
    made after; ``current`` is the one whose child the next would be. ``quiesced``: its guest had written all down and
    held still; else the disks are as after a power cut.
    """

    id: UUID
    parent_id: UUID | None
    memory: bool
    current: bool
    quiesced: bool = False


@runtime_checkable
class MachineSnapshots(Protocol):
    """Snapshots of whole machines, a tree for each. While a machine has any, its disks neither come nor go nor grow,
    and its ports neither come nor go: attach, detach, extend, plug_port and unplug_port are Refused.
    """

    def snapshot_machine(
        self,
        machine_id: UUID,
        snapshot_id: UUID,
        deadline: Deadline,
        *,
        memory: bool = False,
        quiesce: bool = False,
    ) -> MachineSnapshot:
        """Make one, as a child of the current one. One that is there is left as it is. ``memory`` of a machine that is
        off is nothing: the snapshot then says that it has none. With ``quiesce`` the guest of a running machine is
        asked to hold still, which memory makes needless; one that does not is taken as it is, and the answer says so.
        Raises Refused for a machine that is suspended.
        """

    def revert_machine(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Machine:
        """Bring disks and memory back. Without memory the machine is off afterwards. Raises Refused for one that the
        machine does not have.
        """

    def remove_machine_snapshot(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> None:
        """Forget one; its children stay, and the machine is as it was. None being there is success."""

    def list_machine_snapshots(self, machine_id: UUID, deadline: Deadline) -> Sequence[MachineSnapshot]:
        """Every one of ours that the machine has, parents before children."""
