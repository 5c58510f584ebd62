"""``esxi``: VMware ESXi and vCenter hosts through pyVmomi.

Machines, VMDK volumes, base images and port groups of one host, direct or through vCenter; TLS is always verified.
Seen on a simulator only (see README.md). Importing this imports no SDK.
"""

from __future__ import annotations

from importlib.util import find_spec

from drivers.api import Capability, Deadline, DiskFormat, Driver, DriverType, HostConfig

__all__ = ["DRIVER"]


def _missing() -> str | None:
    return None if find_spec("pyVmomi") else "the Python package pyvmomi"


def _connect(config: HostConfig, deadline: Deadline) -> Driver:
    from drivers.esxi.connection import connect

    return connect(config, deadline)


DRIVER = DriverType(
    kind="ESXI",
    description="VMware ESXi and vCenter through pyVmomi (tested against a simulator only)",
    connect=_connect,
    traits=frozenset(
        {
            Capability.MACHINES,
            Capability.VOLUMES,
            Capability.NETWORKS,
            Capability.OVERLAPPING_SUBNETS,
            Capability.VOLUME_HOT_ATTACH,
            Capability.VOLUME_HOT_EXTEND,
            Capability.UEFI,
            Capability.VMWARE_DEVICES,
            Capability.SUSPEND,
        }
    ),
    verbs=frozenset(
        {
            Capability.GRAPHICAL_CONSOLE,
            Capability.GUEST_SIGNS,
            Capability.VOLUME_SNAPSHOT,
            Capability.STATE_EVENTS,
            Capability.ADOPTION,
            Capability.DISK_TRANSPORT,
            Capability.RELOCATE,
            Capability.PORT_HOT_ATTACH,
            Capability.MACHINE_SNAPSHOT,
        }
    ),
    image_formats=(DiskFormat.VMDK,),
    missing=_missing,
)
