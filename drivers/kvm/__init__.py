"""The KVM driver: hosts run by libvirt and QEMU, reached through libvirtd and nothing else.

No program of ours runs on a host; machines, disks, images, networks, leases and packet rules are all made by calls to
libvirtd (a local socket, SSH or TLS). This module only declares the driver. It imports neither libvirt-python nor
any sibling that does until a connection is wanted, so that a gateway without the ``kvm`` extra still starts.
"""

from __future__ import annotations

from importlib.util import find_spec

from drivers.api import Capability, Deadline, DiskFormat, Driver, DriverType, HostConfig


def _connect(config: HostConfig, deadline: Deadline) -> Driver:
    from drivers.kvm.driver import connect

    return connect(config, deadline)


def _missing() -> str | None:
    if find_spec("libvirt") is None:
        return "libvirt-python is not installed: install the extra `kvm` (it needs libvirt's headers and a C compiler)"
    return None


DRIVER = DriverType(
    kind="KVM",
    description="KVM or TCG machines of QEMU through libvirt",
    connect=_connect,
    traits=frozenset(
        {
            Capability.MACHINES,
            Capability.VOLUMES,
            Capability.NETWORKS,
            Capability.SECURITY_GROUPS,
            Capability.DHCP,
            Capability.VOLUME_HOT_ATTACH,
            Capability.VOLUME_HOT_EXTEND,
            Capability.UEFI,
            Capability.VMWARE_DEVICES,
            Capability.SUSPEND,
            Capability.PAUSE,
        }
    ),
    verbs=frozenset(
        {
            Capability.CONSOLE_LOG,
            Capability.GRAPHICAL_CONSOLE,
            Capability.GUEST_SIGNS,
            Capability.VOLUME_SNAPSHOT,
            Capability.STATE_EVENTS,
            Capability.DISK_TRANSPORT,
            Capability.ADOPTION,
            Capability.PORT_HOT_ATTACH,
            Capability.MACHINE_SNAPSHOT,
        }
    ),
    image_formats=(DiskFormat.QCOW2, DiskFormat.RAW),
    missing=_missing,
)
