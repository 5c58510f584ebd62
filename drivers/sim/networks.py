"""The networks and ports of a simulated host: :class:`drivers.api.Networks` with the rules a real host enforces.

Ranges of one network do not overlap, those of two networks may (``OVERLAPPING_SUBNETS``). An address and a MAC are used
once a network, an address lies in one of its ranges, and neither a network nor a port goes from under a machine.
Packets are not simulated: rules are checked for sense and kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from uuid import UUID

from drivers.api import Capability, Deadline, Network, NetworkSpec, PortSpec, Refused, RuleSpec, SubnetSpec
from drivers.ranges import ranges_of
from drivers.sim.gate import Gate
from drivers.sim.records import NetworkRecord, PortRecord
from drivers.sim.store import Transaction

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
MTU_MOST = 65_535
PROTOCOLS = {None, "tcp", "udp", "icmp"}


class SimNetworks:
    """See :class:`drivers.api.Networks`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def ensure(self, spec: NetworkSpec, deadline: Deadline) -> Network:
        """See :meth:`drivers.api.Networks.ensure`."""
        with self._gate.verb("networks.ensure", deadline) as transaction:
            ranges = ranges_of(spec, mtu_most=MTU_MOST)
            if any(each.dhcp for each in spec.subnets):
                self._gate.need(Capability.DHCP)
            if not self._gate.has(Capability.OVERLAPPING_SUBNETS):
                _check_free(transaction, spec, ranges)
            there = transaction.get(NetworkRecord, str(spec.id))
            wish = NetworkRecord(str(spec.id), spec.name, spec.mtu, [_subnet(each) for each in spec.subnets])
            if there != wish:
                if there is not None:
                    _check_addresses(transaction, wish.id, ranges)
                transaction.put(wish)
            return _network(wish)

    def remove(self, network_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Networks.remove`. Ports that are left go with their network."""
        with self._gate.verb("networks.remove", deadline) as transaction:
            key = str(network_id)
            if transaction.holders(f"network:{key}"):
                raise Refused(f"a machine is on the network {network_id}")
            for port_id in transaction.holders(f"ports-of:{key}"):
                port = transaction.get(PortRecord, port_id)
                if port is not None:
                    _forget_port(transaction, port)
            transaction.delete(NetworkRecord, key)

    def inspect(self, network_id: UUID, deadline: Deadline) -> Network | None:
        """See :meth:`drivers.api.Networks.inspect`."""
        with self._gate.verb("networks.inspect", deadline, write=False) as transaction:
            network = transaction.get(NetworkRecord, str(network_id))
        return None if network is None else _network(network)

    def list(self, deadline: Deadline) -> Sequence[Network]:
        """See :meth:`drivers.api.Networks.list`."""
        with self._gate.verb("networks.list", deadline, write=False) as transaction:
            return [_network(each) for each in transaction.all(NetworkRecord)]

    def ensure_port(self, spec: PortSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Networks.ensure_port`."""
        with self._gate.verb("networks.ensure_port", deadline) as transaction:
            if spec.rules is not None:
                self._gate.need(Capability.SECURITY_GROUPS)
                for rule in spec.rules:
                    _check_rule(rule)
            network = transaction.get(NetworkRecord, str(spec.network_id))
            if network is None:
                raise Refused(f"the simulated host has no network {spec.network_id}")
            there = transaction.get(PortRecord, str(spec.id))
            if there is not None:
                if there.network_id != network.id:
                    raise Refused(f"the port {spec.id} is on another network")
                if there.mac != spec.mac.lower() and transaction.holders(f"port:{there.id}"):
                    raise Refused(f"a machine is on the port {spec.id}; its MAC cannot change")
                _forget_port(transaction, there)
            _add_port(transaction, network, _port(spec))

    def remove_port(self, network_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Networks.remove_port`. Raises Refused while a machine is on the port."""
        with self._gate.verb("networks.remove_port", deadline) as transaction:
            port = transaction.get(PortRecord, str(port_id))
            if port is None or port.network_id != str(network_id):
                return
            if transaction.holders(f"port:{port.id}"):
                raise Refused(f"a machine is on the port {port_id}")
            _forget_port(transaction, port)

    def list_ports(self, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.Networks.list_ports`."""
        with self._gate.verb("networks.list_ports", deadline, write=False) as transaction:
            return [UUID(each.id) for each in transaction.all(PortRecord)]


def _check_free(transaction: Transaction, spec: NetworkSpec, ranges: list[IPv4Network | IPv6Network]) -> None:
    for other in transaction.all(NetworkRecord):
        taken = [ip_network(str(each["cidr"])) for each in other.subnets if other.id != str(spec.id)]
        if any(mine.overlaps(each) for mine in ranges for each in taken if mine.version == each.version):
            raise Refused(f"a range of the network is taken on this host by the network {other.id}")


def _check_addresses(transaction: Transaction, network_id: str, ranges: list[IPv4Network | IPv6Network]) -> None:
    for port_id in transaction.holders(f"ports-of:{network_id}"):
        port = transaction.get(PortRecord, port_id)
        for address in [] if port is None else port.addresses:
            if not any(ip_address(address) in each for each in ranges):
                raise Refused(f"the port {port_id} still has the address {address} of a subnet that would go")


def _check_rule(rule: RuleSpec) -> None:
    if rule.ethertype not in {4, 6} or rule.protocol not in PROTOCOLS:
        raise Refused(f"a rule is for IPv4 or IPv6 and for tcp, udp, icmp or any, not {rule}")
    if rule.remote is not None:
        try:
            fits = ip_network(rule.remote).version == rule.ethertype
        except ValueError as error:
            raise Refused(f"a rule's remote is wrong: {error}") from error
        if not fits:
            raise Refused(f"a rule for IPv{rule.ethertype} names {rule.remote}")


def _add_port(transaction: Transaction, network: NetworkRecord, port: PortRecord) -> None:
    """Take the port's MAC and addresses, each once a network."""
    if not MAC.fullmatch(port.mac):
        raise Refused(f"{port.mac!r} is no MAC address")
    ranges = [ip_network(str(each["cidr"])) for each in network.subnets]
    for address in port.addresses:
        try:
            inside = any(ip_address(address) in each for each in ranges)
        except ValueError as error:
            raise Refused(f"a port's address is wrong: {error}") from error
        if not inside:
            raise Refused(f"the address {address} is in no subnet of the network {network.id}")
    for target in _targets(port):
        if transaction.holders(target):
            raise Refused(f"{target.rpartition('/')[2]} is in use on the network {network.id}")
        transaction.hold(target, port.id)
    transaction.hold(f"ports-of:{network.id}", port.id)
    transaction.put(port)


def _forget_port(transaction: Transaction, port: PortRecord) -> None:
    for target in _targets(port):
        transaction.release(target, port.id)
    transaction.release(f"ports-of:{port.network_id}", port.id)
    transaction.delete(PortRecord, port.id)


def _targets(port: PortRecord) -> list[str]:
    """What a port takes of its network."""
    return [f"{port.network_id}/{each}" for each in (port.mac, *port.addresses)]


def _port(spec: PortSpec) -> PortRecord:
    rules = None if spec.rules is None else [_rule(each) for each in spec.rules]
    addresses = [_address(each) for each in spec.addresses]
    return PortRecord(str(spec.id), str(spec.network_id), spec.mac.lower(), addresses, spec.hostname, rules)


def _address(text: str) -> str:
    """The address in the one spelling by which equal ones are found equal."""
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise Refused(f"a port's address is wrong: {error}") from error


def _rule(rule: RuleSpec) -> dict[str, object]:
    return {
        "direction": rule.direction.value,
        "ethertype": rule.ethertype,
        "protocol": rule.protocol,
        "port_min": rule.port_min,
        "port_max": rule.port_max,
        "remote": rule.remote,
    }


def _subnet(spec: SubnetSpec) -> dict[str, object]:
    return {
        "id": str(spec.id),
        "cidr": spec.cidr,
        "gateway": spec.gateway,
        "dhcp": spec.dhcp,
        "dns_servers": list(spec.dns_servers),
    }


def _network(network: NetworkRecord) -> Network:
    return Network(UUID(network.id), frozenset(UUID(str(each["id"])) for each in network.subnets))
