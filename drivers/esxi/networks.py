"""Networks: a port group each, told apart by VLANs from the operator's pool; what a port group is, is in segments.py.

The port group is the network; its subnets and ports are names of folders of ours (``subnet_ID``,
``port_ID_MAC_ADDRESS...``), since a port group has no place for them. A switch of vSphere knows neither DHCP nor packet
rules nor routing: those are Unsupported, guests get their addresses by their first-boot data, and equal ranges on two
networks do not meet. Whether a machine is still on a network or a port is asked here before anything is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from drivers.api import Capability, Deadline, Network, NetworkSpec, PortSpec, Refused, Unsupported
from drivers.esxi import holders, segments
from drivers.esxi.site import Site, verb
from drivers.esxi.store import Store
from drivers.ranges import ranges_of

NETWORKS = "networks"
NAME_MOST = 240


@dataclass(frozen=True, slots=True)
class Port:
    """A port as its folder's name says it: MAC of twelve digits, addresses as hexadecimal numbers."""

    id: UUID
    mac: str
    addresses: tuple[str, ...]

    @property
    def name(self) -> str:
        """The folder's name."""
        return "_".join(("port", str(self.id), self.mac, *self.addresses))


class EsxiNetworks:
    """See :class:`drivers.api.Networks`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.store = Store(site)
        self._segments = segments.of(site)

    @verb
    def ensure(self, spec: NetworkSpec, deadline: Deadline) -> Network:
        """See :meth:`drivers.api.Networks.ensure`."""
        ranges_of(spec)
        if any(each.dhcp for each in spec.subnets):
            raise Unsupported(Capability.DHCP, "an ESXi host has no DHCP of its own")
        with self.site.only(deadline, "networks"):
            self._segments.make(spec, deadline)
            self._set_subnets(spec, deadline)
            return Network(spec.id, frozenset(each.id for each in spec.subnets))

    @verb
    def remove(self, network_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Networks.remove`."""
        with self.site.only(deadline, "networks"), self.site.claim(deadline, network_id):
            key = self._segments.key(network_id, deadline)
            if key is not None and any(group == key for group, _ in holders.networks(self.site, deadline)):
                raise Refused(f"a machine is on the network {network_id}")
            self._segments.drop(network_id, deadline)
            self.store.delete(self._folder(deadline, network_id), deadline)

    @verb
    def inspect(self, network_id: UUID, deadline: Deadline) -> Network | None:
        """See :meth:`drivers.api.Networks.inspect`."""
        if network_id not in self._segments.ids(deadline):
            return None
        return Network(network_id, _subnets(self._marks(network_id, deadline)))

    @verb
    def list(self, deadline: Deadline) -> Sequence[Network]:
        """See :meth:`drivers.api.Networks.list`."""
        found = self.store.search(self._folder(deadline), deadline)
        marks = {name: folder.marks for name, folder in found.items()}
        return [Network(each, _subnets(marks.get(str(each), set()))) for each in self._segments.ids(deadline)]

    @verb
    def ensure_port(self, spec: PortSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Networks.ensure_port`."""
        if spec.rules is not None:
            raise Unsupported(Capability.SECURITY_GROUPS, "an ESXi host has no packet rules of its own")
        wish = _port(spec)
        with self.site.only(deadline, "networks"):
            if spec.network_id not in self._segments.ids(deadline):
                raise Refused(f"there is no network {spec.network_id} on this host")
            marks = self._marks(spec.network_id, deadline)
            mine = _check_port(wish, spec, marks)
            if mine is not None and mine.name == wish.name:
                return
            if mine is not None and mine.mac != wish.mac and self._plugged(spec.network_id, mine.mac, deadline):
                raise Refused(f"a machine is on the port {spec.id}; its MAC cannot change")
            folder = self._folder(deadline, spec.network_id)
            self.store.make_folder(f"{folder}/{wish.name}", deadline)
            if mine is not None:
                self.store.delete(f"{folder}/{mine.name}", deadline)

    @verb
    def remove_port(self, network_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Networks.remove_port`. Raises Refused while a machine is on the port."""
        with self.site.only(deadline, "networks"), self.site.claim(deadline, port_id):
            for port in ports_of(self._marks(network_id, deadline)):
                if port.id == port_id:
                    if self._plugged(network_id, port.mac, deadline):
                        raise Refused(f"a machine is on the port {port_id}")
                    self.store.delete(f"{self._folder(deadline, network_id)}/{port.name}", deadline)

    @verb
    def list_ports(self, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.Networks.list_ports`."""
        return list({port.id for port in self.ports(deadline)})

    def plug(self, network_id: UUID, port_id: UUID, deadline: Deadline) -> Any:
        """Where a NIC on that port is plugged in. Raises Refused when network or port are not there."""
        if network_id not in self._segments.ids(deadline):
            raise Refused(f"there is no network {network_id} on this host")
        if all(port.id != port_id for port in ports_of(self._marks(network_id, deadline))):
            raise Refused(f"there is no port {port_id} on this host")
        return self._segments.backing(network_id, deadline)

    def port(self, port_id: UUID, deadline: Deadline) -> Port | None:
        """A port of any network."""
        return next((port for port in self.ports(deadline) if port.id == port_id), None)

    def ports(self, deadline: Deadline) -> Sequence[Port]:
        """The ports of every network."""
        found = self.store.search(self._folder(deadline), deadline)
        return [port for folder in found.values() for port in ports_of(folder.marks)]

    # ------------------------------------------------------------------------------------- parts

    def _folder(self, deadline: Deadline, network_id: UUID | None = None) -> str:
        """Where networks, or one of them, are kept: always of this host alone."""
        folder = f"{self.site.place(deadline).own_prefix}{NETWORKS}"
        return folder if network_id is None else f"{folder}/{network_id}"

    def _marks(self, network_id: UUID, deadline: Deadline) -> set[str]:
        found = self.store.search(self._folder(deadline, network_id), deadline).get("")
        return found.marks if found is not None else set()

    def _set_subnets(self, spec: NetworkSpec, deadline: Deadline) -> None:
        folder = self._folder(deadline, spec.id)
        there = {each for each in self._marks(spec.id, deadline) if each.startswith("subnet_")}
        wish = {f"subnet_{each.id}" for each in spec.subnets}
        for name in sorted(wish - there):
            self.store.make_folder(f"{folder}/{name}", deadline)
        for name in sorted(there - wish):
            self.store.delete(f"{folder}/{name}", deadline)

    def _plugged(self, network_id: UUID, mac: str, deadline: Deadline) -> bool:
        key = self._segments.key(network_id, deadline)
        there = {(name, address.replace(":", "")) for name, address in holders.networks(self.site, deadline)}
        return (key, mac) in there


def ports_of(marks: set[str]) -> Sequence[Port]:
    """The ports that names of folders tell."""
    found = []
    for name in sorted(marks):
        kind, *rest = name.split("_")
        if kind == "port" and len(rest) > 1:
            found.append(Port(UUID(rest[0]), rest[1], tuple(rest[2:])))
    return found


def _port(spec: PortSpec) -> Port:
    mac = spec.mac.lower().replace(":", "")
    if len(mac) != 12 or set(mac) - set("0123456789abcdef"):  # noqa: PLR2004 - hexadecimal digits of a MAC
        raise Refused(f"{spec.mac!r} is no MAC address")
    try:
        addresses = tuple(ip_address(each).packed.hex() for each in spec.addresses)
    except ValueError as error:
        raise Refused(f"a port's address is wrong: {error}") from error
    port = Port(spec.id, mac, addresses)
    if len(port.name) > NAME_MOST:
        raise Refused("the port has more addresses than an ESXi host can keep")
    return port


def _check_port(wish: Port, spec: PortSpec, marks: set[str]) -> Port | None:
    """The port as it was, if it was. Raises Refused when another port has its MAC or one of its addresses."""
    mine = None
    for port in ports_of(marks):
        if port.id == wish.id:
            mine = port
        elif port.mac == wish.mac or set(port.addresses) & set(wish.addresses):
            raise Refused(f"the port {port.id} has an address of the port {spec.id}")
    return mine


def _subnets(marks: set[str]) -> frozenset[UUID]:
    return frozenset(UUID(each.removeprefix("subnet_")) for each in marks if each.startswith("subnet_"))
