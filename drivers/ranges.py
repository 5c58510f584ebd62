"""What a network's subnets may look like: pure checks that no host is needed for, alike for every driver."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from drivers.api import NetworkSpec, Refused

MTU_LEAST = 576
MTU_JUMBO = 9000


def ranges_of(spec: NetworkSpec, *, mtu_most: int = MTU_JUMBO) -> list[IPv4Network | IPv6Network]:
    """The ranges of a network's subnets, in their order.

    Raises Refused for an MTU (bytes) that cannot be, a subnet that is named twice, a range that is wrong or overlaps
    another of its network, and a gateway outside its range.
    """
    if not MTU_LEAST <= spec.mtu <= mtu_most:
        raise Refused(f"an MTU lies between {MTU_LEAST} and {mtu_most}, not {spec.mtu}")
    if len({each.id for each in spec.subnets}) != len(spec.subnets):
        raise Refused("the network names a subnet twice")
    ranges: list[IPv4Network | IPv6Network] = []
    for subnet in spec.subnets:
        try:
            found = ip_network(subnet.cidr)
            outside = subnet.gateway is not None and ip_address(subnet.gateway) not in found
        except ValueError as error:
            raise Refused(f"the subnet {subnet.cidr} is wrong: {error}") from error
        if outside:
            raise Refused(f"the gateway {subnet.gateway} lies outside {subnet.cidr}")
        if any(found.overlaps(each) for each in ranges if found.version == each.version):
            raise Refused(f"the subnet {subnet.cidr} overlaps another of its network")
        ranges.append(found)
    return ranges
