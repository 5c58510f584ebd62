"""``esxi``: VMware ESXi and vCenter hosts through pyVmomi.

So far it connects (TLS verified, always), tells a host's facts, and lists and inspects the machines that carry our
mark; everything else is refused as Unsupported, so no capability is declared. Importing this imports no SDK.
"""

from __future__ import annotations

from importlib.util import find_spec

from drivers.api import Deadline, Driver, DriverType, HostConfig

__all__ = ["DRIVER"]


def _missing() -> str | None:
    return None if find_spec("pyVmomi") else "the Python package pyvmomi"


def _connect(config: HostConfig, deadline: Deadline) -> Driver:
    from drivers.esxi.connection import connect

    return connect(config, deadline)


DRIVER = DriverType(
    kind="ESXI",
    description="VMware ESXi and vCenter through pyVmomi: connects and looks, makes nothing yet.",
    connect=_connect,
    traits=frozenset(),
    verbs=frozenset(),
    image_formats=(),
    missing=_missing,
)
