"""Keeps running machines' interfaces safe while their network is started anew.

libvirt does not plug taps back into a bridge that was made again, and updating an interface with its own definition is
nothing to it; moving an interface to another network and back is. Each network has its own parking, a bridge that
leads nowhere, so that nobody meets strangers there. Guests see a pause of about a second, no unplugging.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import Any
from uuid import UUID

import libvirt

from drivers.kvm import holders, xml
from drivers.kvm.errors import found
from drivers.kvm.xml import Element
from drivers.kvm.xml.common import strings
from drivers.kvm.xml.network import parking as parking_network


@contextmanager
def away(connection: Any, network: Any) -> Iterator[None]:
    """Have all interfaces of running machines leave the network for the length of the body. Interfaces that an earlier
    attempt left in the parking come back too.
    """
    wanted = parking_network(UUID(bytes=network.UUID()))
    name = wanted.findtext("name") or ""
    parking = found(partial(connection.networkLookupByName, name), "NO_NETWORK")
    if parking is None:
        if not _interfaces(connection, network.name()):
            yield
            return
        parking = connection.networkCreateXML(xml.text(wanted))
    for domain, interface in _interfaces(connection, network.name()):
        _move(domain, interface, name)
    try:
        yield
    finally:
        for domain, interface in _interfaces(connection, name):
            _move(domain, interface, network.name())
        found(parking.destroy, "NO_NETWORK", "OPERATION_INVALID")


def _interfaces(connection: Any, name: str) -> list[tuple[Any, Element]]:
    """The running domains' interfaces on a network."""
    answer: list[tuple[Any, Element]] = []
    for domain in holders.on_network(connection, name):
        text = found(partial(domain.XMLDesc, 0), "NO_DOMAIN") if domain.isActive() else None
        if text is not None:
            every = xml.parse(text).iterfind("devices/interface")
            answer += [(domain, each) for each in every if name in strings(each, "source/@network")]
    return answer


def _move(domain: Any, interface: Element, name: str) -> None:
    moved = deepcopy(interface)
    source = moved.find("source")
    assert source is not None  # noqa: S101 - it was found by its source
    source.attrib.clear()
    source.set("network", name)
    update = partial(domain.updateDeviceFlags, xml.text(moved), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    found(update, "OPERATION_INVALID", "NO_DOMAIN")  # unless it went off meanwhile
