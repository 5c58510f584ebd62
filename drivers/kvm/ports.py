"""Ports: a static lease in the network and an nwfilter named after the port, both changed live.

The filter comes first and goes last and remembers the port's MAC and network, so that every half-made port can be
found and taken back by its id alone.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import Deadline, PortSpec, Refused
from drivers.kvm import holders, names, xml
from drivers.kvm.errors import found
from drivers.kvm.xml import Element
from drivers.kvm.xml.network import Lease, lease_range_in, leases_in
from drivers.kvm.xml.nwfilter import PortRecord, record_in
from drivers.kvm.xml.segment import ranges_in, segment_in

_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def ensure(connection: Any, network: Any, spec: PortSpec, deadline: Deadline) -> None:
    """Make lease and filter exactly as said. Raises Refused for an address that another has."""
    if not _MAC.fullmatch(spec.mac.lower()):
        raise Refused(f"{spec.mac!r} is not the MAC address of one machine")
    live = xml.parse(network.XMLDesc(0))
    wanted = xml.port_filter(spec, segment_in(live))
    before = _look_up(connection, spec.id)
    record = _record(before) if before is not None else None
    leases = leases_in(live)
    mine = {spec.mac.lower()} | ({record.mac} if record else set())
    lease = _lease(spec, live)
    _check_addresses(spec, live, [each for each in leases if each.mac.lower() not in mine])
    if lease is not None and any(each.hostname == lease.hostname for each in leases if each.mac.lower() not in mine):
        lease = Lease(lease.mac, lease.address)  # names are unique in dnsmasq; the guest has its name from its seed too
    deadline.check("making a port")
    _define(connection, wanted)
    try:
        _change_leases(network, live, [each for each in leases if each.mac.lower() in mine], lease)
    except libvirt.libvirtError:
        made = _look_up(connection, spec.id) if before is None else None
        if made is not None:
            made.undefine()
        raise


def remove(connection: Any, port_id: UUID, deadline: Deadline) -> None:
    """Take lease and filter back."""
    port = _look_up(connection, port_id)
    if port is None:
        return
    users = holders.with_filter(connection, names.port_filter(port_id))
    if users:
        raise Refused(f"{users[0].name()} is on port {port_id}")
    deadline.check("removing a port")
    record = _record(port)
    if record is not None:
        network = found(lambda: connection.networkLookupByUUIDString(str(record.network)), "NO_NETWORK")
        if network is not None:
            live = xml.parse(network.XMLDesc(0))
            _change_leases(network, live, [each for each in leases_in(live) if each.mac.lower() == record.mac], None)
    found(port.undefine, "NO_NWFILTER")


def _look_up(connection: Any, port_id: UUID) -> Any | None:
    return found(lambda: connection.nwfilterLookupByName(names.port_filter(port_id)), "NO_NWFILTER")


def _record(port: Any) -> PortRecord | None:
    return record_in(xml.parse(port.XMLDesc(0)))


def _define(connection: Any, wanted: Element) -> None:
    if found(lambda: connection.nwfilterLookupByName(names.RECORD_FILTER), "NO_NWFILTER") is None:
        connection.nwfilterDefineXML(xml.text(xml.record_filter()))
    connection.nwfilterDefineXML(xml.text(wanted))


def _lease(spec: PortSpec, live: Element) -> Lease | None:
    """The lease of the port: its first address in the range that has leases."""
    place = lease_range_in(live)
    if place is None:
        return None
    address = next((each for each in spec.addresses if ip_address(each) in place[1]), None)
    hostname = spec.hostname if spec.hostname and _HOSTNAME.fullmatch(spec.hostname) else None
    return Lease(spec.mac.lower(), address, hostname) if address else None


def _check_addresses(spec: PortSpec, live: Element, others: list[Lease]) -> None:
    for text in spec.addresses:
        address = ip_address(text)
        for element, (_, taken) in zip(live.iterfind("ip"), ranges_in(live), strict=True):
            if address in taken and address in {taken[0], ip_address(element.get("address", ""))}:
                raise Refused(f"{address} is the network's own address")
        if any(address == ip_address(each.address) for each in others):
            raise Refused(f"{address} is leased to another port of the network")


def _change_leases(network: Any, live: Element, old: list[Lease], new: Lease | None) -> None:
    """Bring the leases of one port from old to new; nothing is sent when they are the same."""
    place = lease_range_in(live)
    if place is None:
        return
    flags = libvirt.VIR_NETWORK_UPDATE_AFFECT_CONFIG
    if network.isActive():
        flags |= libvirt.VIR_NETWORK_UPDATE_AFFECT_LIVE
    for command, leases in (
        (libvirt.VIR_NETWORK_UPDATE_COMMAND_DELETE, [each for each in old if each != new]),
        (libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, [new] if new is not None and new not in old else []),
    ):
        for each in leases:
            section = libvirt.VIR_NETWORK_SECTION_IP_DHCP_HOST
            network.update(command, section, place[0], xml.text(xml.dhcp_host(each)), flags)
