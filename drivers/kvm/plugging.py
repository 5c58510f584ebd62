"""Plugging ports into domains and out of them, as disks.py does with volumes.

An interface is known by its alias, which is our port's id. It is looked at in the live and in the persistent definition
and brought to the state asked for, so that a call which died half-way is finished by the next.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import Deadline, Devices, NicSpec, Refused, Transient
from drivers.kvm import holders, names, xml
from drivers.kvm.errors import found
from drivers.kvm.link import Link
from drivers.kvm.xml.common import strings

_ASK_AGAIN_SECONDS = 5.0
_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
_CONFIG = libvirt.VIR_DOMAIN_AFFECT_CONFIG


def plug(link: Link, domain: Any, nic: NicSpec, deadline: Deadline) -> None:
    """Give the domain an interface on the port, for now and for every start to come."""
    with link.only(deadline, "claims"):
        connection = link.open(deadline)
        check(connection, nic)
        name, mine = names.port_filter(nic.port_id), UUID(bytes=domain.UUID())
        if any(UUID(bytes=each.UUID()) != mine for each in holders.with_filter(connection, name)):
            raise Refused(f"another machine is on the port {nic.port_id}")
        flags = sum(flag for flag, there in definitions(domain) if nic.port_id not in there)
        if flags:
            deadline.check("plugging in a port")
            domain.attachDeviceFlags(xml.text(xml.interface(nic, _look(domain))), flags)


def unplug(link: Link, domain: Any, port_id: UUID, deadline: Deadline) -> None:
    """Take the interface away and wait for the guest, then forget it for the starts to come."""
    deadline.check("unplugging a port")
    alias = names.alias(port_id)

    def is_gone() -> bool:
        return port_id not in dict(definitions(domain)).get(_LIVE, set())

    while not is_gone():
        found(lambda: domain.detachDeviceAlias(alias, _LIVE), "OPERATION_FAILED", "OPERATION_INVALID", "DEVICE_MISSING")
        if (
            not link.wait_until(is_gone, Deadline(min(_ASK_AGAIN_SECONDS, deadline.remaining)))
            and not deadline.remaining
        ):
            raise Transient(f"the guest did not let go of port {port_id}")
    if port_id in dict(definitions(domain))[_CONFIG]:
        found(lambda: domain.detachDeviceAlias(alias, _CONFIG), "DEVICE_MISSING")


def definitions(domain: Any) -> list[tuple[int, set[UUID]]]:
    """Ports in the persistent definition and, when the domain is active, in the live one."""
    answer = [(_CONFIG, _ports(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))]
    if domain.isActive():
        answer.append((_LIVE, _ports(domain.XMLDesc(0))))
    return answer


def check(connection: Any, nic: NicSpec) -> None:
    """Raise Refused when network or port are not there."""
    network = names.of(nic.network_id)
    if found(partial(connection.networkLookupByName, network), "NO_NETWORK") is None:
        raise Refused(f"there is no network {nic.network_id} on this host")
    port = names.port_filter(nic.port_id)
    if found(partial(connection.nwfilterLookupByName, port), "NO_NWFILTER") is None:
        raise Refused(f"there is no port {nic.port_id} on this host")


def _look(domain: Any) -> Devices:
    """What the machine's other devices look like to its guest."""
    models = strings(xml.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)), "devices/controller/@model")
    return Devices.VMWARE if "vmpvscsi" in models else Devices.OWN


def _ports(definition: str) -> set[UUID]:
    aliases = strings(xml.parse(definition), "devices/interface/alias/@name")
    return {our_id for each in aliases if (our_id := names.from_alias(each)) is not None}
