"""Who uses a volume, a network or a port: questions about all domains of the host, ours or not.

Nothing is deleted from under a domain. One bulk call answers for volumes; for networks and ports each domain's
definition is read, which only removals do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import libvirt

from drivers.kvm import xml
from drivers.kvm.errors import found
from drivers.kvm.xml.common import Element, strings


@dataclass(frozen=True, slots=True)
class Holder:
    """A domain that has a disk on some file. ``devices`` are all its disks by device name."""

    domain: Any
    id: UUID
    active: bool
    device: str
    devices: tuple[str, ...]


def of_file(connection: Any, path: str) -> list[Holder]:
    """The domains with a disk on that file."""
    stats = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_BLOCK
    holders: list[Holder] = []
    for domain, values in connection.getAllDomainStats(stats, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT):
        disks = blocks(values)
        if path in disks.values():
            device = next(name for name, each in disks.items() if each == path)
            active = values["state.state"] not in {libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED}
            holders.append(Holder(domain, UUID(bytes=domain.UUID()), active, device, tuple(disks)))
    return holders


def blocks(values: dict[str, Any]) -> dict[str, str]:
    """Device names and files of the disks in one domain's bulk statistics."""
    count = int(values.get("block.count", 0))
    return {values[f"block.{at}.name"]: values.get(f"block.{at}.path", "") for at in range(count)}


def on_network(connection: Any, name: str) -> list[Any]:
    """The domains with an interface on that network."""
    return [
        domain for domain, each in _definitions(connection) if name in strings(each, ".//interface/source/@network")
    ]


def with_filter(connection: Any, name: str) -> list[Any]:
    """The domains with an interface behind that filter."""
    path = ".//interface/filterref/@filter"
    return [domain for domain, each in _definitions(connection) if name in strings(each, path)]


def _definitions(connection: Any) -> list[tuple[Any, Element]]:
    answers = [(domain, found(partial(domain.XMLDesc, 0), "NO_DOMAIN")) for domain in connection.listAllDomains(0)]
    return [(domain, xml.parse(text)) for domain, text in answers if text]
