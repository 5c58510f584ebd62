"""A port's packet rules as one libvirt nwfilter.

The order is: what a spoofing guest sends is dropped at layer 2 (foreign MAC, foreign ARP, foreign source address, DHCP
answers, anything but ARP and IP), and what other networks' guests send under the host's address; then what the rules
allow is accepted statefully, inwards only from the network's own ranges; the rest is dropped, both ways. A port without
security keeps its filter with nothing but the guards between networks, so that security can come back to a running
machine. Those are of layer 2 only: as soon as a port has or had a rule for iptables, libvirt accepts what the guest
sends, forged or not, before its own rules of NAT networks are reached. Every filter also refers to one empty filter
with parameters; that is where a port's MAC, addresses and network are recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from uuid import UUID

from drivers.api import Direction, PortSpec, Refused, RuleSpec
from drivers.kvm import names
from drivers.kvm.xml.common import IPV4, IPV6, E, Element
from drivers.kvm.xml.segment import LINK_LOCAL, NAT_PORTS, Address, Range, Segment

_PROTOCOLS = {(None, 4): "all", (None, 6): "all-ipv6", ("icmp", 4): "icmp", ("icmp", 6): "icmpv6"} | {
    (name, version): f"{name}-ipv6" if version == IPV6 else name for name in ("tcp", "udp") for version in (4, 6)
}
_WAY = {Direction.INGRESS: "in", Direction.EGRESS: "out"}
_BACK = {"in": "out", "out": "in"}
# Router solicitation, neighbour solicitation and advertisement, multicast listener reports; router advertisements
# only inwards. The kernel does not track these, so state matching must be off for them.
_NEIGHBOURS = {"out": (133, 135, 136, 143), "in": (134, 135, 136)}


@dataclass(frozen=True, slots=True)
class PortRecord:
    """What a filter remembers of its port."""

    network: UUID
    mac: str
    addresses: tuple[str, ...]


def record_filter() -> Element:
    """The empty filter all others refer to."""
    return E.filter(name=names.RECORD_FILTER, chain="root")


def port_filter(spec: PortSpec, segment: Segment) -> Element:
    """The whole filter of a port on that segment. Raises Refused for addresses or rules that make no sense."""
    try:
        addresses = [ip_address(each) for each in spec.addresses]
    except ValueError as error:
        raise Refused(f"port {spec.id}: {error}") from error
    record = E.filterref(filter=names.RECORD_FILTER)
    record.append(E.parameter(name="SG_NETWORK", value=spec.network_id.hex))
    record.append(E.parameter(name="SG_MAC", value=spec.mac.lower()))
    record.extend(E.parameter(name="SG_ADDRESS", value=str(each)) for each in addresses)
    element = E.filter(E.uuid(str(spec.id)), record, name=names.port_filter(spec.id), chain="root")
    element.extend(_against_strangers(segment))
    if spec.rules is None:
        element.extend(_unguarded_sources(segment))
        return element
    versions = {each.version for each in addresses}
    element.extend(_against_spoofing(spec, versions))
    for address in addresses:
        element.extend(_sources(spec.mac.lower(), address, segment))
    for version in sorted(versions):
        element.extend(_always(version))
    allowed: list[Element] = []
    answers: dict[tuple[str, ...], Element] = {}
    for rule in spec.rules:
        _check(rule)
        if rule.ethertype not in versions:
            continue  # without an address of that family nothing of it passes anyway
        for remote in _remotes(rule, segment):
            allowed.append(_allow(rule, remote))
            if rule.protocol == "icmp" and rule.port_min is not None:
                answers[_WAY[rule.direction], str(rule.ethertype), str(remote)] = _answer(rule, remote)
    element.extend(allowed)
    element.extend(answers[each] for each in sorted(answers))
    element.extend(_rule("drop", "inout", 1000, _PROTOCOLS[None, version]) for version in sorted(versions))
    return element


def record_in(element: Element) -> PortRecord | None:
    """What a port's filter remembers."""
    values: dict[str, list[str]] = {}
    for each in element.iterfind(f"filterref[@filter='{names.RECORD_FILTER}']/parameter"):
        values.setdefault(each.get("name", ""), []).append(each.get("value", ""))
    if "SG_NETWORK" not in values or "SG_MAC" not in values:
        return None
    return PortRecord(UUID(values["SG_NETWORK"][0]), values["SG_MAC"][0], tuple(values.get("SG_ADDRESS", ())))


def _rule(action: str, way: str, priority: int, match: str | None = None, /, **fields: str) -> Element:
    rule = E.rule(action=action, direction=way, priority=str(priority))
    if fields.pop("statematch", "true") == "false":
        rule.set("statematch", "false")
    if match is not None:
        rule.append(E(match, **fields))
    return rule


def _against_spoofing(spec: PortSpec, versions: AbstractSet[int]) -> Iterator[Element]:
    mac = spec.mac.lower()
    yield _rule("drop", "out", -900, "mac", match="no", srcmacaddr=mac)
    if IPV4 in versions:
        yield _rule("drop", "out", -850, "ip", protocol="udp", srcportstart="67")
        dhcp = {"srcipaddr": "0.0.0.0", "protocol": "udp", "srcportstart": "68", "dstportstart": "67"}  # noqa: S104 - the source of a DHCP request
        yield _rule("accept", "out", -800, "ip", **dhcp)
        yield _rule("accept", "out", -800, "arp", arpsrcmacaddr=mac, arpsrcipaddr="0.0.0.0")  # noqa: S104 - the source of an ARP probe
    else:
        yield _rule("drop", "in", -800, "ip")
    if IPV6 in versions:
        yield _rule("accept", "out", -800, "ipv6", srcipaddr="fe80::", srcipmask="10")
        yield _rule("accept", "out", -800, "ipv6", srcipaddr="::", srcipmask="128", protocol="icmpv6")
    else:
        yield _rule("drop", "in", -800, "ipv6")
    yield _rule("drop", "out", 1000)


def _against_strangers(segment: Segment) -> Iterator[Element]:
    """What other networks' machines send through the host arrives under the host's address here and from its ports for
    translation; protocols without ports cannot be told from the host's own, and only ICMP is needed.
    """
    for address in segment.hosts:
        family = "ip" if address.version == IPV4 else "ipv6"
        host = {"srcipaddr": str(address)} | ({} if address.version == IPV4 else {"srcipmask": "128"})
        for protocol in ("tcp", "udp"):
            ports = {"srcportstart": str(NAT_PORTS[0]), "srcportend": str(NAT_PORTS[1])}
            yield _rule("drop", "in", -890, family, **host, protocol=protocol, **ports)
        for protocol in ("tcp", "udp", "icmp" if address.version == IPV4 else "icmpv6"):
            yield _rule("accept", "in", -880, family, **host, protocol=protocol)
        yield _rule("drop", "in", -870, family, **host)


def _sources(mac: str, address: Address, segment: Segment) -> Iterator[Element]:
    """What the port may send from one of its addresses: anywhere when the host translates it, else on the segment only,
    and not by way of the host.
    """
    family = "ip" if address.version == IPV4 else "ipv6"
    source = {"srcipaddr": str(address)}
    if address.version == IPV4:
        yield _rule("accept", "out", -700, "arp", arpsrcmacaddr=mac, arpsrcipaddr=str(address))
    else:
        source["srcipmask"] = "128"
    if segment.is_translated(address):
        yield _rule("accept", "out", -700, family, **source)
        return
    yield from _not_through_the_host(address.version, source, segment)
    several = ("224.0.0.0/4", "255.255.255.255/32") if address.version == IPV4 else ("ff00::/8",)
    for each in (*segment.within(address.version), *map(ip_network, several)):
        yield _rule("accept", "out", -700, family, **source, **_remote("dst", each))


def _unguarded_sources(segment: Segment) -> Iterator[Element]:
    """What a port without security may send: anything on its segment, and by way of the host what that translates."""
    for each in (*segment.translated, LINK_LOCAL):
        yield _rule("accept", "out", -740, "ip" if each.version == IPV4 else "ipv6", **_remote("src", each))
    for version in (IPV4, IPV6):
        yield from _not_through_the_host(version, {}, segment)


def _not_through_the_host(version: int, source: dict[str, str], segment: Segment) -> Iterator[Element]:
    """Only the host itself is spoken to under its MACs: the bridge's and those of the interfaces' other ends."""
    family = "ip" if version == IPV4 else "ipv6"
    for host in segment.hosts:
        if host.version == version:
            yield _rule("accept", "out", -730, family, **source, **_remote("dst", ip_network(host)))
    if segment.mac is not None:
        yield _rule("drop", "out", -720, family, **source, dstmacaddr=segment.mac)
    taps = {"dstmacaddr": "fe:00:00:00:00:00", "dstmacmask": "ff:00:00:00:00:00"}
    yield _rule("drop", "out", -720, family, **source, **taps)


def _always(version: int) -> Iterator[Element]:
    """What passes whatever the rules are: errors about allowed traffic, leases, neighbour discovery."""
    for way in ("in", "out"):
        yield _rule("accept", way, 100, _PROTOCOLS[None, version], state="RELATED")
    if version == IPV4:
        yield _rule("accept", "out", 100, "udp", srcportstart="68", dstportstart="67")
        return
    for way, types in _NEIGHBOURS.items():
        for each in types:
            yield _rule("accept", way, 100, "icmpv6", type=str(each), statematch="false")
    yield _rule("drop", "out", 150, "icmpv6", type="134")


def _remotes(rule: RuleSpec, segment: Segment) -> list[Range | None]:
    """The ranges a rule comes to; None is any. Nobody outside the segment may begin anything."""
    remote = ip_network(rule.remote) if rule.remote is not None else None
    if rule.direction is Direction.INGRESS:
        return [*segment.within(rule.ethertype, remote)]
    return [remote if remote is not None and remote.prefixlen else None]


def _remote(end: str, remote: Range | None) -> dict[str, str]:
    if remote is None:
        return {}
    return {f"{end}ipaddr": str(remote.network_address), f"{end}ipmask": str(remote.prefixlen)}


def _allow(rule: RuleSpec, remote: Range | None) -> Element:
    fields = _remote("src" if rule.direction is Direction.INGRESS else "dst", remote)
    if rule.protocol == "icmp":
        if rule.port_min is not None:
            fields["type"] = str(rule.port_min)
            if rule.port_max is not None:
                fields["code"] = str(rule.port_max)
    elif rule.port_min is not None:
        fields["dstportstart"] = str(rule.port_min)
        fields["dstportend"] = str(rule.port_min if rule.port_max is None else rule.port_max)
    return _rule("accept", _WAY[rule.direction], 500, _PROTOCOLS[rule.protocol, rule.ethertype], **fields)


def _answer(rule: RuleSpec, remote: Range | None) -> Element:
    """The answer to an ICMP message of a given type, for which libvirt writes no rule."""
    fields = _remote("dst" if rule.direction is Direction.INGRESS else "src", remote)
    way = _BACK[_WAY[rule.direction]]
    return _rule("accept", way, 600, _PROTOCOLS["icmp", rule.ethertype], **fields, state="ESTABLISHED")


def _check(rule: RuleSpec) -> None:
    if (rule.protocol, rule.ethertype) not in _PROTOCOLS:
        raise Refused(f"no rule can be made for protocol {rule.protocol!r} of IPv{rule.ethertype}")
    if rule.remote is not None:
        try:
            version = ip_network(rule.remote).version
        except ValueError as error:
            raise Refused(f"a rule's remote range is wrong: {error}") from error
        if version != rule.ethertype:
            raise Refused(f"the remote range {rule.remote} is not of IPv{rule.ethertype}")
    if rule.port_min is None:
        if rule.port_max is not None:
            raise Refused("a rule has an upper port and no lower one")
        return
    if rule.protocol is None:
        raise Refused("a rule for any protocol cannot name ports")
    most = 255 if rule.protocol == "icmp" else 65535
    upper = rule.port_min if rule.port_max is None else rule.port_max
    if not (0 <= rule.port_min <= most and 0 <= upper <= most):
        raise Refused(f"the ports {rule.port_min}-{upper} are out of range")
    if rule.protocol != "icmp" and upper < rule.port_min:
        raise Refused(f"the port range {rule.port_min}-{upper} is upside down")
