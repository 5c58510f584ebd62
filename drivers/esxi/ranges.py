"""What a network's subnets may look like: pure checks, before anything is asked of a host."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from drivers.api import NetworkSpec, Refused

MTU_LEAST, MTU_MOST = 576, 9000


def check_ranges(spec: NetworkSpec) -> None:
    """Raise Refused for a range that is wrong or overlaps another of its network, and for an impossible MTU."""
    if not MTU_LEAST <= spec.mtu <= MTU_MOST:
        raise Refused(f"an MTU lies between {MTU_LEAST} and {MTU_MOST}, not {spec.mtu}")
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
