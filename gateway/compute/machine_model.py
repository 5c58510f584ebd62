"""What a server's machine looks like to its guest, where that is not the platform's ordinary choice, and the words for
what a move does with it.

A server that the cloud makes gets the ordinary: BIOS, and the devices that its hypervisor does best. One that came from
elsewhere keeps what its guest was installed with, so that it boots without being changed.
"""

from __future__ import annotations

from enum import StrEnum


class Firmware(StrEnum):
    """What starts the guest."""

    BIOS = "BIOS"
    """The traditional BIOS."""
    UEFI = "UEFI"
    """UEFI, without Secure Boot."""


class Devices(StrEnum):
    """What the disks and interfaces look like to the guest."""

    __graphql_name__ = "DeviceModel"

    OWN = "OWN"
    """The hypervisor's own fast devices: virtio on KVM, pvscsi and vmxnet3 on ESXi."""
    VMWARE = "VMWARE"
    """pvscsi and vmxnet3 on every hypervisor, for a guest that was installed on VMware."""


class GuestConversion(StrEnum):
    """What is done to the guest on the way."""

    NONE = "NONE"
    """Nothing: not a byte of its disks changes. Coming from VMware, it keeps VMware's devices on the new host."""
    VIRT_V2V = "VIRT_V2V"
    """virt-v2v puts virtio drivers into it; the worker must have that program, and the disks change."""


class CopyWhile(StrEnum):
    """What a server does while its disks are copied to another host."""

    STOPPED = "STOPPED"
    """It is off: each disk is copied once, as it stands."""
    RUNNING = "RUNNING"
    """It runs while snapshots of its disks are copied; then it is stopped, and what changed since is copied again."""


class Verification(StrEnum):
    """What was heard of a guest after its machine was started."""

    NOT_VERIFIED = "NOT_VERIFIED"
    """Nothing: the hypervisor says that the machine runs, or it was off and stayed so."""
    BOOTED = "BOOTED"
    """A sign of life: the text that was waited for, a line on its serial port, or an address it asked for."""
    AGENT = "AGENT"
    """The agent in the guest answers: QEMU's guest agent, VMware's tools."""

    @property
    def rank(self) -> int:
        """How much it proves, from 0."""
        return list(Verification).index(self)
