"""What a port's filter has to know of the network around it, read from libvirt's own definition of that network.

Nothing outside a network may open a connection into it. libvirt's own rules promise that for NAT networks, but the
rules of a filtered guest accept what it sends before they are reached, so the filters see to it themselves. They tell
a stranger from the host by the port: what the host translates leaves from ``NAT_PORTS`` and from nowhere else, what
it says itself does not, as those lie below its ephemeral ports and above the usual services.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from drivers.kvm.xml.common import Element, strings

Address = IPv4Address | IPv6Address
Range = IPv4Network | IPv6Network

NAT_PORTS = (16384, 32767)
LINK_LOCAL = IPv6Network("fe80::/10")
_RANGE = "range-"


@dataclass(frozen=True, slots=True)
class Segment:
    """``ranges`` are all of the network's own; ``hosts`` the host's addresses in them, ``mac`` its MAC; what leaves
    from a range in ``translated`` for elsewhere does so under an address of the host.
    """

    ranges: tuple[Range, ...] = ()
    translated: tuple[Range, ...] = ()
    hosts: tuple[Address, ...] = ()
    mac: str | None = None

    def within(self, version: int, remote: Range | None = None) -> list[Range]:
        """The parts of a remote range that lie on the segment, for IPv6 with its link-local addresses."""
        own = [each for each in (*self.ranges, LINK_LOCAL) if each.version == version]
        if remote is None or remote.prefixlen == 0:
            return own
        parts = [max(each, remote, key=lambda one: one.prefixlen) for each in own if _overlap(each, remote)]
        return list(dict.fromkeys(parts))

    def is_translated(self, address: Address) -> bool:
        """Whether what that address sends elsewhere leaves under an address of the host."""
        return any(address in each for each in self.translated)


def range_group(cidr: str) -> str:
    """The name of the port group that keeps a subnet's range; libvirt itself keeps only those the host is in."""
    return f"{_RANGE}{ip_network(cidr)}"


def segment_in(element: Element) -> Segment:
    """What a network says of itself."""
    names = strings(element, f"portgroup[starts-with(@name, '{_RANGE}')]/@name")
    present = [each for _, each in ranges_in(element)]
    return Segment(
        ranges=tuple(ip_network(each.removeprefix(_RANGE)) for each in names),
        translated=tuple(present) if element.find("forward") is not None else (),
        hosts=tuple(ip_address(each) for each in strings(element, "ip/@address")),
        mac=next(iter(strings(element, "mac/@address")), None),
    )


def ranges_in(element: Element) -> list[tuple[int, Range]]:
    """The ranges of a network in which the host has an address, each with its place among the ``ip`` elements."""
    found: list[tuple[int, Range]] = []
    for at, each in enumerate(element.iterfind("ip")):
        length = each.get("prefix") or each.get("netmask")
        if length is None:  # the class of the address, as in the old days
            length = str(IPv4Interface(each.get("address", "")).network.prefixlen)
        found.append((at, ip_network(f"{each.get('address')}/{length}", strict=False)))
    return found


def _overlap(one: Range, other: Range) -> bool:
    return one.version == other.version and one.overlaps(other)
