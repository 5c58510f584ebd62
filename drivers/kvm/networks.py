"""Networks: libvirt networks whose UUID is our id, each a Linux bridge with static leases from dnsmasq.

NAT when a subnet has a gateway, isolated otherwise. Ranges of one host may not overlap, because the host itself has
an address in each. libvirt cannot change a running network's ranges, so one that must change is started anew while the
running machines' interfaces wait on another bridge (``parking.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import libvirt

from drivers.api import Capability, Deadline, Network, NetworkSpec, PortSpec, Refused
from drivers.kvm import holders, names, parking, ports, xml
from drivers.kvm.errors import found, told
from drivers.kvm.link import Link
from drivers.kvm.xml import Element
from drivers.kvm.xml.network import bridge_address, digest, digest_in, leases_in, subnets_in, without_digest
from drivers.kvm.xml.segment import ranges_in


class Bridges:
    """The facet :class:`drivers.api.Networks`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def ensure(self, spec: NetworkSpec, deadline: Deadline) -> Network:
        """Make the network exist with exactly these subnets."""
        doing = f"making network {spec.id}"
        xml.network(spec)  # what cannot be had is refused before anything is touched
        with told(doing, Capability.NETWORKS), self._link.only(deadline, "networks"):
            connection = self._link.open(deadline)
            network = look_up(connection, spec.id)
            if network is None:
                _check_overlap(connection, spec)
                _make(connection, spec)
            elif digest_in(_definition(network)) != digest(spec):
                _check_overlap(connection, spec)
                _make_anew(connection, network, spec, deadline)
            elif not network.isActive():
                found(network.create, "OPERATION_INVALID")
        return Network(spec.id, frozenset(each.id for each in spec.subnets))

    def remove(self, network_id: UUID, deadline: Deadline) -> None:
        """Delete the network unless a domain is on it."""
        with told(f"removing network {network_id}", Capability.NETWORKS), self._link.only(deadline, "networks"):
            connection = self._link.open(deadline)
            network = look_up(connection, network_id)
            if network is None:
                return
            users = holders.on_network(connection, network.name())
            if users:
                raise Refused(f"{users[0].name()} is on network {network_id}")
            deadline.check("removing a network")
            _stop(network)
            found(network.undefine, "NO_NETWORK")

    def inspect(self, network_id: UUID, deadline: Deadline) -> Network | None:
        """The network as it is now."""
        with told(f"looking at network {network_id}", Capability.NETWORKS):
            network = look_up(self._link.open(deadline), network_id)
            text = found(lambda: network.XMLDesc(0), "NO_NETWORK") if network is not None else None
        return Network(network_id, subnets_in(xml.parse(text))) if text else None

    def list(self, deadline: Deadline) -> Sequence[Network]:
        """Every network of ours."""
        with told("listing networks", Capability.NETWORKS):
            there = [each for each in self._link.open(deadline).listAllNetworks(0) if _is_ours(each)]
            texts = [(each, found(partial(each.XMLDesc, 0), "NO_NETWORK")) for each in there]
        return [Network(UUID(bytes=each.UUID()), subnets_in(xml.parse(text))) for each, text in texts if text]

    def ensure_port(self, spec: PortSpec, deadline: Deadline) -> None:
        """Make lease and filter exactly as said."""
        doing = f"making port {spec.id}"
        with told(doing, Capability.NETWORKS), self._link.only(deadline, "network", str(spec.network_id)):
            connection = self._link.open(deadline)
            network = look_up(connection, spec.network_id)
            if network is None:
                raise Refused(f"there is no network {spec.network_id} on this host")
            ports.ensure(connection, network, spec, deadline)

    def remove_port(self, network_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """Take lease and filter back unless a domain is behind them."""
        doing = f"removing port {port_id}"
        with told(doing, Capability.NETWORKS), self._link.only(deadline, "network", str(network_id)):
            ports.remove(self._link.open(deadline), port_id, deadline)

    def list_ports(self, deadline: Deadline) -> Sequence[UUID]:
        """The ports of ours: those that have a filter, and each has one."""
        with told("listing ports", Capability.NETWORKS):
            listed = self._link.open(deadline).listNWFilters()
        return [our_id for each in listed if (our_id := names.port_of(each))]


def look_up(connection: Any, network_id: UUID) -> Any | None:
    """The libvirt network of that id if it is ours."""
    network = found(lambda: connection.networkLookupByUUIDString(str(network_id)), "NO_NETWORK")
    return network if network is not None and _is_ours(network) else None


def _is_ours(network: Any) -> bool:
    return names.is_ours(network.name(), UUID(bytes=network.UUID()))


def _definition(network: Any) -> Element:
    return xml.parse(network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))


def _check_overlap(connection: Any, spec: NetworkSpec) -> None:
    """Raises Refused when another network of the host has an address in a range of ours. libvirt itself looks only
    at IPv4 routes, and only when the network starts.
    """
    wanted = [ip_network(each.cidr) for each in spec.subnets if bridge_address(each) is not None]
    for other in connection.listAllNetworks(0):
        if not wanted or other.UUID() == spec.id.bytes:
            continue
        text = found(partial(other.XMLDesc, 0), "NO_NETWORK")
        for _, taken in ranges_in(xml.parse(text)) if text else ():
            for mine in wanted:
                if mine.version == taken.version and mine.overlaps(taken):
                    raise Refused(f"{mine} overlaps {taken} of network {other.name()} on this host")


def _make(connection: Any, spec: NetworkSpec) -> None:
    network = connection.networkDefineXML(xml.text(xml.network(spec)))
    try:
        network.create()
        network.setAutostart(1)
    except libvirt.libvirtError:
        _stop(network)
        network.undefine()
        raise


def _make_anew(connection: Any, network: Any, spec: NetworkSpec, deadline: Deadline) -> None:
    """Change the ranges of a network: define, park running interfaces, start again, take them back. A host that does
    not take the new ranges keeps the old ones. The spec's digest is written last, so that what died half-way is seen.
    """
    old = _definition(network)
    new = xml.network(spec, leases_in(old))
    deadline.check("changing a network")
    connection.networkDefineXML(xml.text(without_digest(new)))
    with parking.away(connection, network):
        _stop(network)
        try:
            network.create()
        except libvirt.libvirtError:
            connection.networkDefineXML(xml.text(old))
            network.create()
            raise
    connection.networkDefineXML(xml.text(new))


def _stop(network: Any) -> None:
    if network.isActive():
        found(network.destroy, "OPERATION_INVALID")
