"""Pure functions from the contract's specs to libvirt's XML, and readers of what libvirt gives back.

Built with lxml elements, never with strings, so that no name or mark can break out of its place. Nothing here does
I/O. Tests validate every result against libvirt's own RNG schemas.
"""

from __future__ import annotations

from drivers.kvm.xml.common import Element, parse, text
from drivers.kvm.xml.domain import DiskSource, DomainPlan, disk, domain, interface
from drivers.kvm.xml.network import dhcp_host, network
from drivers.kvm.xml.nwfilter import port_filter, record_filter
from drivers.kvm.xml.storage import backup, pool, volume

__all__ = [
    "DiskSource",
    "DomainPlan",
    "Element",
    "backup",
    "dhcp_host",
    "disk",
    "domain",
    "interface",
    "network",
    "parse",
    "pool",
    "port_filter",
    "record_filter",
    "text",
    "volume",
]
