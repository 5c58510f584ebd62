"""A network as libvirt network XML, and the reading of what we wrote into one.

libvirt 9.0 keeps no metadata for networks, so our subnets' ids and ranges and a digest of the spec are kept as names of
port groups, which are inert unless an interface asks for them. Leases are static: a MAC that is no port gets no
address. dnsmasq serves leases only, not names, so that no tenant reaches the host's resolver.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Literal
from uuid import UUID

from drivers.api import Capability, NetworkSpec, Refused, SubnetSpec, Unsupported
from drivers.kvm import names
from drivers.kvm.xml.common import IPV4, IPV6, E, Element, maker, strings
from drivers.kvm.xml.segment import NAT_PORTS, Range, range_group, ranges_in

_DNSMASQ = "http://libvirt.org/schemas/network/dnsmasq/1.0"
_D = maker(_DNSMASQ, "dnsmasq")

_FORMAT = 2
"""Part of the digest: what a network is made of changes with it, so that a host's networks are made anew."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A static DHCP host."""

    mac: str
    address: str
    hostname: str | None = None


def network(spec: NetworkSpec, leases: Sequence[Lease] = ()) -> Element:
    """The whole network with the leases it had. Raises Refused or Unsupported when the spec cannot be had here."""
    _check(spec)
    # ipv6: between machines the segment carries it whatever subnets there are; ports' rules decide, not the bridge
    element = E.network(E.name(names.of(spec.id)), E.uuid(str(spec.id)), ipv6="yes")
    if any(each.gateway for each in spec.subnets):
        element.append(_forward(spec))
    element.append(E.bridge(name=names.bridge(spec.id), stp="off", delay="0"))
    element.append(E.mtu(size=str(spec.mtu)))
    element.append(E.dns(enable="no"))
    present = [each for each in spec.subnets if bridge_address(each) is not None]
    element.extend(_ip(each, leases) for each in present)
    element.append(E.portgroup(name=f"spec-{digest(spec)}"))
    # libvirt forgets a range with leases as long as it has none, so its place is written down
    element.extend(E.portgroup(name=f"leases-{at}") for at, each in enumerate(present) if each.dhcp)
    element.extend(E.portgroup(name=f"subnet-{each.id}") for each in spec.subnets)
    element.extend(E.portgroup(name=range_group(each.cidr)) for each in spec.subnets)
    if servers := [
        dns for each in spec.subnets if each.dhcp for dns in each.dns_servers if ip_address(dns).version == IPV4
    ]:
        option = f"dhcp-option=option:dns-server,{','.join(servers)}"
        element.append(_D.options(_D.option(value=option)))
    return element


def parking(network_id: UUID) -> Element:
    """A bridge that leads nowhere."""
    return E.network(
        E.name(f"sg-park-{network_id.hex}"), E.bridge(name=f"sp{network_id.hex[-12:]}", stp="off", delay="0")
    )


def dhcp_host(lease: Lease) -> Element:
    """One static lease, as network XML has it and as a live update takes it."""
    element = E.host(mac=lease.mac, ip=lease.address)
    if lease.hostname:
        element.set("name", lease.hostname)
    return element


def bridge_address(subnet: SubnetSpec) -> str | None:
    """The host's own address in the subnet: its gateway, or the last usable address when leases need a server where
    there is no gateway, or None: the host stays out of it.
    """
    if subnet.gateway:
        return subnet.gateway
    return str(ip_network(subnet.cidr)[-2]) if subnet.dhcp else None


def digest(spec: NetworkSpec) -> str:
    """What tells one wish for this network from another."""
    subnets = sorted((str(s.id), s.cidr, s.gateway or "", s.dhcp, s.dns_servers) for s in spec.subnets)
    return hashlib.sha256(json.dumps([_FORMAT, spec.mtu, subnets]).encode()).hexdigest()[:32]


def without_digest(element: Element) -> Element:
    """The same network as the work of nobody's finished wish."""
    copy = deepcopy(element)
    for each in copy.findall("portgroup"):
        if (each.get("name") or "").startswith("spec-"):
            copy.remove(each)
    return copy


def digest_in(element: Element) -> str | None:
    """The digest of the spec a network was made from."""
    return next((each.removeprefix("spec-") for each in strings(element, "portgroup/@name") if "spec-" in each), None)


def subnets_in(element: Element) -> frozenset[UUID]:
    """The ids of the subnets a network was made with."""
    found = strings(element, "portgroup[starts-with(@name, 'subnet-')]/@name")
    return frozenset(UUID(each.removeprefix("subnet-")) for each in found)


def leases_in(element: Element) -> list[Lease]:
    """The static leases of a network."""
    hosts = element.iterfind("ip/dhcp/host")
    return [Lease(each.get("mac", ""), each.get("ip", ""), each.get("name")) for each in hosts]


def lease_range_in(element: Element) -> tuple[int, Range] | None:
    """The range with leases, and its place among the ``ip`` elements."""
    found = strings(element, "portgroup[starts-with(@name, 'leases-')]/@name")
    return ranges_in(element)[int(found[0].removeprefix("leases-"))] if found else None


def _check(spec: NetworkSpec) -> None:
    routed = any(each.gateway for each in spec.subnets)
    ranges: list[Range] = []
    for subnet in spec.subnets:
        try:
            wanted = ip_network(subnet.cidr)
            gateway = ip_address(subnet.gateway) if subnet.gateway else None
            servers = [ip_address(each) for each in subnet.dns_servers]
        except ValueError as error:
            raise Refused(f"subnet {subnet.id}: {error}") from error
        if gateway is not None and gateway not in wanted:
            raise Refused(f"subnet {subnet.id}: the gateway {gateway} is outside {wanted}")
        if any(wanted.version == each.version and wanted.overlaps(each) for each in ranges):
            raise Refused(f"subnet {subnet.id}: {wanted} overlaps another subnet of the same network")
        ranges.append(wanted)
        if subnet.dhcp:
            _check_dhcp(subnet, wanted, routed=routed)
        del servers  # only their form is checked
    if sum(each.dhcp for each in spec.subnets) > 1:
        raise Unsupported(Capability.DHCP, "libvirt serves leases for one IPv4 range of a network")
    if not 576 <= spec.mtu <= 9216:  # noqa: PLR2004 - IPv4's least and what common switches carry
        raise Refused(f"an MTU of {spec.mtu} is not between 576 and 9216")


def _check_dhcp(subnet: SubnetSpec, wanted: Range, *, routed: bool) -> None:
    if wanted.version == IPV6:
        raise Unsupported(Capability.DHCP, "libvirt cannot lease IPv6 addresses by MAC; use static addresses")
    if wanted.num_addresses < 4:  # noqa: PLR2004 - network, host, one guest, broadcast
        raise Refused(f"subnet {subnet.id}: {wanted} is too small for leases")
    if routed and not subnet.gateway:
        raise Unsupported(
            Capability.DHCP,
            "leases without a gateway cannot be served on a network that has a gateway in another subnet",
        )


def _forward(spec: NetworkSpec) -> Element:
    lowest, highest = map(str, NAT_PORTS)
    nat = E.nat(E.port(start=lowest, end=highest))
    if any(each.gateway and _version(each) == IPV6 for each in spec.subnets):
        nat.set("ipv6", "yes")
    return E.forward(nat, mode="nat")


def _ip(subnet: SubnetSpec, leases: Sequence[Lease]) -> Element:
    wanted = ip_network(subnet.cidr)
    element = E.ip(family=f"ipv{wanted.version}", address=str(bridge_address(subnet)), prefix=str(wanted.prefixlen))
    if subnet.dhcp:
        mine = [each for each in leases if IPv4Address(each.address) in wanted]
        element.append(E.dhcp(*(dhcp_host(each) for each in mine)))
    return element


def _version(subnet: SubnetSpec) -> Literal[4, 6]:
    return ip_network(subnet.cidr).version
