"""Networks: a port group each on the host's standard switch, told apart by VLANs from the operator's pool.

The port group is the network; its subnets and ports are names of folders of ours (``subnet_ID``,
``port_ID_MAC_ADDRESS...``), since a port group has no place for them. A standard switch knows neither DHCP nor packet
rules nor routing: those are Unsupported, guests get their addresses by their first-boot data, and equal ranges on two
networks do not meet. Promiscuous mode, MAC changes and forged transmits are refused by the switch, always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import (
    Capability,
    Deadline,
    HostAtFault,
    Network,
    NetworkSpec,
    PortSpec,
    Refused,
    Transient,
    Unsupported,
)
from drivers.esxi import holders, reading
from drivers.esxi.ranges import check_ranges
from drivers.esxi.site import Site, verb
from drivers.esxi.store import Store

PREFIX = "stratograph-"
NETWORKS = "networks"
NAME_MOST = 240
MTU_PLAIN = 1500


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

    @verb
    def ensure(self, spec: NetworkSpec, deadline: Deadline) -> Network:
        """See :meth:`drivers.api.Networks.ensure`."""
        check_ranges(spec)
        if any(each.dhcp for each in spec.subnets):
            raise Unsupported(Capability.DHCP, "an ESXi host has no DHCP of its own")
        with self.site.only(deadline, "networks"):
            switch = self._switch(deadline)
            if self._group(switch, spec.id) is None:
                self._add(switch, spec, deadline)
            self._set_subnets(spec, deadline)
            return Network(spec.id, frozenset(each.id for each in spec.subnets))

    @verb
    def remove(self, network_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Networks.remove`."""
        name = group_name(network_id)
        with self.site.only(deadline, "networks"), self.site.only(deadline, "claims"):
            if any(group == name for group, _ in holders.networks(self.site, deadline)):
                raise Refused(f"a machine is on the network {network_id}")
            system = self.site.place(deadline).network_system
            try:
                if self._group(self._switch(deadline), network_id) is not None:
                    self.site.send(lambda: system.RemovePortGroup(name), deadline)
            except vim.fault.ResourceInUse as error:
                raise Refused(f"something is on the network {network_id}") from error
            except vim.fault.NotFound:
                pass  # somebody was faster
            self.store.delete(f"{NETWORKS}/{network_id}", deadline)

    @verb
    def inspect(self, network_id: UUID, deadline: Deadline) -> Network | None:
        """See :meth:`drivers.api.Networks.inspect`."""
        if self._group(self._switch(deadline), network_id) is None:
            return None
        return Network(network_id, _subnets(self._marks(network_id, deadline)))

    @verb
    def list(self, deadline: Deadline) -> Sequence[Network]:
        """See :meth:`drivers.api.Networks.list`."""
        groups = [_group_id(str(each.spec.name)) for each in self._switch(deadline)["networkInfo.portgroup"]]
        found = self.store.search(NETWORKS, deadline)
        marks = {name: folder.marks for name, folder in found.items()}
        return [Network(each, _subnets(marks.get(str(each), set()))) for each in groups if each is not None]

    @verb
    def ensure_port(self, spec: PortSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Networks.ensure_port`."""
        if spec.rules is not None:
            raise Unsupported(Capability.SECURITY_GROUPS, "an ESXi host has no packet rules of its own")
        wish = _port(spec)
        with self.site.only(deadline, "networks"):
            if self._group(self._switch(deadline), spec.network_id) is None:
                raise Refused(f"there is no network {spec.network_id} on this host")
            marks = self._marks(spec.network_id, deadline)
            mine = _check_port(wish, spec, marks)
            if mine is not None and mine.name == wish.name:
                return
            if mine is not None and mine.mac != wish.mac and self._plugged(spec.network_id, mine.mac, deadline):
                raise Refused(f"a machine is on the port {spec.id}; its MAC cannot change")
            folder = f"{NETWORKS}/{spec.network_id}"
            self.store.make_folder(f"{folder}/{wish.name}", deadline)
            if mine is not None:
                self.store.delete(f"{folder}/{mine.name}", deadline)

    @verb
    def remove_port(self, network_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Networks.remove_port`. Raises Refused while a machine is on the port."""
        with self.site.only(deadline, "networks"), self.site.only(deadline, "claims"):
            for port in ports_of(self._marks(network_id, deadline)):
                if port.id == port_id:
                    if self._plugged(network_id, port.mac, deadline):
                        raise Refused(f"a machine is on the port {port_id}")
                    self.store.delete(f"{NETWORKS}/{network_id}/{port.name}", deadline)

    @verb
    def list_ports(self, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.Networks.list_ports`."""
        found = self.store.search(NETWORKS, deadline)
        return list({port.id for folder in found.values() for port in ports_of(folder.marks)})

    def check_port(self, network_id: UUID, port_id: UUID, deadline: Deadline) -> str:
        """The port group for a NIC on that port. Raises Refused when network or port are not there."""
        if self._group(self._switch(deadline), network_id) is None:
            raise Refused(f"there is no network {network_id} on this host")
        if all(port.id != port_id for port in ports_of(self._marks(network_id, deadline))):
            raise Refused(f"there is no port {port_id} on this host")
        return group_name(network_id)

    # ------------------------------------------------------------------------------------- parts

    def _switch(self, deadline: Deadline) -> Mapping[str, Any]:
        """The host's switches and port groups."""
        system = self.site.place(deadline).network_system
        names = ("networkInfo.portgroup", "networkInfo.vswitch")
        found = self.site.look(lambda: reading.one(self.site.content, system, names), deadline)
        return {name: found.get(name) or [] for name in names}

    def _group(self, switch: Mapping[str, Any], network_id: UUID) -> Any | None:
        name = group_name(network_id)
        return next((each for each in switch["networkInfo.portgroup"] if each.spec.name == name), None)

    def _marks(self, network_id: UUID, deadline: Deadline) -> set[str]:
        found = self.store.search(f"{NETWORKS}/{network_id}", deadline).get("")
        return found.marks if found is not None else set()

    def _add(self, switch: Mapping[str, Any], spec: NetworkSpec, deadline: Deadline) -> None:
        name = self.site.options.vswitch
        on = next((each for each in switch["networkInfo.vswitch"] if each.name == name), None)
        if on is None:
            raise HostAtFault(f"the host has no standard switch {name!r}; see the option 'vswitch'")
        if spec.mtu > int(on.mtu or MTU_PLAIN):
            raise HostAtFault(f"the switch {name} has an MTU of {int(on.mtu or MTU_PLAIN)}, less than the network's")
        taken = {int(each.spec.vlanId) for each in switch["networkInfo.portgroup"]}
        security = vim.host.NetworkPolicy.SecurityPolicy(
            allowPromiscuous=False, macChanges=False, forgedTransmits=False
        )
        group = vim.host.PortGroup.Specification(
            name=group_name(spec.id),
            vlanId=choose_vlan(spec.id, self.site.options.vlans, taken),
            vswitchName=name,
            policy=vim.host.NetworkPolicy(security=security),
        )
        system = self.site.place(deadline).network_system
        try:
            self.site.send(lambda: system.AddPortGroup(group), deadline)
        except (vim.fault.AlreadyExists, vim.fault.DuplicateName):
            if self._group(self._switch(deadline), spec.id) is None:
                raise Transient("the network is being made by somebody else") from None

    def _set_subnets(self, spec: NetworkSpec, deadline: Deadline) -> None:
        there = {each for each in self._marks(spec.id, deadline) if each.startswith("subnet_")}
        wish = {f"subnet_{each.id}" for each in spec.subnets}
        for name in sorted(wish - there):
            self.store.make_folder(f"{NETWORKS}/{spec.id}/{name}", deadline)
        for name in sorted(there - wish):
            self.store.delete(f"{NETWORKS}/{spec.id}/{name}", deadline)

    def _plugged(self, network_id: UUID, mac: str, deadline: Deadline) -> bool:
        group = group_name(network_id)
        there = {(name, address.replace(":", "")) for name, address in holders.networks(self.site, deadline)}
        return (group, mac) in there


def group_name(network_id: UUID) -> str:
    """The port group of a network."""
    return f"{PREFIX}{network_id}"


def choose_vlan(network_id: UUID, pool: Sequence[int], taken: set[int]) -> int:
    """A free VLAN: the one that the network's id points at, so that hosts with one pool agree, or the next free one.
    Raises HostAtFault when there is none.
    """
    if not pool:
        raise HostAtFault("the host has no VLANs for networks; see the option 'vlan_pool'")
    first = int.from_bytes(sha256(network_id.bytes).digest()[:8], "big") % len(pool)
    for vlan in (*pool[first:], *pool[:first]):
        if vlan not in taken:
            return vlan
    raise HostAtFault("every VLAN of the host's 'vlan_pool' is taken")


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


def _group_id(name: str) -> UUID | None:
    try:
        return UUID(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    except ValueError:
        return None
