"""What a server's machine looks like to its guest, where that is not the platform's ordinary choice.

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
