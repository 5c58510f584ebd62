"""What a network is on the platform: a port group of the host's standard switch, or a distributed one of vCenter.

Both carry our id in their name, take a VLAN of the operator's pool that nobody else on their switch has, and refuse
promiscuous mode, false MAC addresses and forged transmits by an explicit policy. A distributed port group is one for
all hosts of its switch: its description names those that have the network, and the last one to let go of it deletes it.
Whether a machine is still on it is asked by the callers; hosts ask, too, but simulators do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

from pyVmomi import vim

from drivers.api import Deadline, HostAtFault, NetworkSpec, Refused, Transient
from drivers.esxi import reading
from drivers.esxi.site import Site, reference

PREFIX = "stratograph-"
MTU_PLAIN = 1500
PORTS_AT_FIRST = 8
NIC = vim.vm.device.VirtualEthernetCard


class Segments(Protocol):
    """The networks of ours on one host."""

    def ids(self, deadline: Deadline) -> Sequence[UUID]:
        """The networks that this host has."""

    def make(self, spec: NetworkSpec, deadline: Deadline) -> None:
        """Have the host have it."""

    def drop(self, network_id: UUID, deadline: Deadline) -> None:
        """Have the host have it no more. Raises Refused when the platform says that it is in use."""

    def backing(self, network_id: UUID, deadline: Deadline) -> Any:
        """Where a NIC on it is plugged in."""

    def key(self, network_id: UUID, deadline: Deadline) -> str | None:
        """By which name or key the NICs of machines name it; None when it is not there."""


def of(site: Site) -> Segments:
    """The kind of networks that the host's options ask for."""
    return StandardSegments(site) if site.options.dvswitch is None else DistributedSegments(site)


class StandardSegments:
    """Port groups of the host's own standard switch."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def ids(self, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`Segments.ids`."""
        groups = self._switch(deadline)["networkInfo.portgroup"]
        return [each for each in (group_id(str(group.spec.name)) for group in groups) if each is not None]

    def make(self, spec: NetworkSpec, deadline: Deadline) -> None:
        """See :meth:`Segments.make`."""
        switch = self._switch(deadline)
        if any(each.spec.name == group_name(spec.id) for each in switch["networkInfo.portgroup"]):
            return
        name = self._site.options.vswitch
        on = next((each for each in switch["networkInfo.vswitch"] if each.name == name), None)
        if on is None:
            raise HostAtFault(f"the host has no standard switch {name!r}; see the option 'vswitch'")
        check_mtu(spec, name, on.mtu)
        taken = {int(each.spec.vlanId) for each in switch["networkInfo.portgroup"]}
        security = vim.host.NetworkPolicy.SecurityPolicy(
            allowPromiscuous=False, macChanges=False, forgedTransmits=False
        )
        group = vim.host.PortGroup.Specification(
            name=group_name(spec.id),
            vlanId=choose_vlan(spec.id, self._site.options.vlans, taken),
            vswitchName=name,
            policy=vim.host.NetworkPolicy(security=security),
        )
        system = self._site.place(deadline).network_system
        try:
            self._site.send(lambda: system.AddPortGroup(group), deadline)
        except (vim.fault.AlreadyExists, vim.fault.DuplicateName):
            if spec.id not in self.ids(deadline):
                raise Transient("the network is being made by somebody else") from None

    def drop(self, network_id: UUID, deadline: Deadline) -> None:
        """See :meth:`Segments.drop`."""
        if network_id not in self.ids(deadline):
            return
        system = self._site.place(deadline).network_system
        try:
            self._site.send(lambda: system.RemovePortGroup(group_name(network_id)), deadline)
        except vim.fault.ResourceInUse as error:
            raise Refused(f"something is on the network {network_id}") from error
        except vim.fault.NotFound:
            return  # somebody was faster

    def backing(self, network_id: UUID, deadline: Deadline) -> Any:  # noqa: ARG002 - see Segments
        """See :meth:`Segments.backing`."""
        return NIC.NetworkBackingInfo(deviceName=group_name(network_id))

    def key(self, network_id: UUID, deadline: Deadline) -> str | None:
        """See :meth:`Segments.key`."""
        return group_name(network_id) if network_id in self.ids(deadline) else None

    def _switch(self, deadline: Deadline) -> Mapping[str, Any]:
        """The host's switches and port groups."""
        system = self._site.place(deadline).network_system
        names = ("networkInfo.portgroup", "networkInfo.vswitch")
        found = self._site.look(lambda: reading.one(self._site.content, system, names), deadline)
        return {name: found.get(name) or [] for name in names}


class DistributedSegments:
    """Port groups of a vCenter's distributed switch, shared with the other hosts on it."""

    GROUP = ("name", "key", "vm", "config.description", "config.configVersion", "config.defaultPortConfig")

    def __init__(self, site: Site) -> None:
        self._site = site
        self._switch: tuple[Any, str] | None = None

    def ids(self, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`Segments.ids`."""
        mine = self._site.place(deadline).hardware_uuid
        named = [(group_id(str(each["name"])), each) for _, each in self._groups(deadline)]
        return [each for each, found in named if each is not None and mine in _hosts(found)]

    def make(self, spec: NetworkSpec, deadline: Deadline) -> None:
        """See :meth:`Segments.make`."""
        groups = self._groups(deadline)
        there = next((each for each in groups if each[1]["name"] == group_name(spec.id)), None)
        mine = self._site.place(deadline).hardware_uuid
        if there is not None:
            if mine not in _hosts(there[1]):
                self._describe(*there, _hosts(there[1]) | {mine}, deadline)
            return
        switch, name = self._find(deadline)
        found = self._site.look(lambda: reading.one(self._site.content, switch, ("config.maxMtu",)), deadline)
        check_mtu(spec, name, found.get("config.maxMtu"))
        taken = {vlan for _, each in groups if (vlan := _vlan(each)) is not None}
        vlan = choose_vlan(spec.id, self._site.options.vlans, taken)
        group = _config(group_name(spec.id), {mine}, _port_config(vlan))
        try:
            self._site.carry_out(lambda: switch.AddDVPortgroup_Task([group]), deadline)
        except (vim.fault.DuplicateName, vim.fault.AlreadyExists):
            raise Transient("the network is being made by another host") from None

    def drop(self, network_id: UUID, deadline: Deadline) -> None:
        """See :meth:`Segments.drop`."""
        there = self._group(network_id, deadline)
        if there is None:
            return
        group, found = there
        others = _hosts(found) - {self._site.place(deadline).hardware_uuid}
        if others:
            self._describe(group, found, others, deadline)
        elif found.get("vm"):
            raise Refused(f"a machine is on the network {network_id}")
        else:
            try:
                self._site.carry_out(group.Destroy_Task, deadline)
            except vim.fault.ResourceInUse as error:
                raise Refused(f"something is on the network {network_id}") from error

    def backing(self, network_id: UUID, deadline: Deadline) -> Any:
        """See :meth:`Segments.backing`."""
        there = self._group(network_id, deadline)
        if there is None:
            raise Refused(f"there is no network {network_id} on this host")
        switch, _ = self._find(deadline)
        found = self._site.look(lambda: reading.one(self._site.content, switch, ("uuid",)), deadline)
        port = vim.dvs.PortConnection(switchUuid=str(found["uuid"]), portgroupKey=str(there[1]["key"]))
        return NIC.DistributedVirtualPortBackingInfo(port=port)

    def key(self, network_id: UUID, deadline: Deadline) -> str | None:
        """See :meth:`Segments.key`."""
        there = self._group(network_id, deadline)
        return None if there is None else str(there[1]["key"])

    # ------------------------------------------------------------------------------------- parts

    def _group(self, network_id: UUID, deadline: Deadline) -> tuple[Any, reading.Properties] | None:
        """The port group, if this host has it."""
        mine, name = self._site.place(deadline).hardware_uuid, group_name(network_id)
        return next(
            (each for each in self._groups(deadline) if each[1]["name"] == name and mine in _hosts(each[1])), None
        )

    def _groups(self, deadline: Deadline) -> list[tuple[Any, reading.Properties]]:
        switch, _ = self._find(deadline)
        kind = vim.dvs.DistributedVirtualPortgroup
        return self._site.look(
            lambda: reading.related(self._site.content, switch, "portgroup", kind, self.GROUP), deadline
        )

    def _find(self, deadline: Deadline) -> tuple[Any, str]:
        """The switch and its name. Raises HostAtFault when the host is not on one of that name."""
        if self._switch is None:
            name, kind = self._site.options.dvswitch or "", vim.DistributedVirtualSwitch
            names = ("name", "summary.hostMember")
            every = self._site.look(lambda: reading.everywhere(self._site.content, kind, names), deadline)
            for switch, found in every:
                members = {reference(each) for each in found.get("summary.hostMember") or ()}
                if found.get("name") == name and self._site.host_id in members:
                    self._switch = (switch, name)
                    break
            else:
                raise HostAtFault(f"the host is on no distributed switch {name!r}; see the option 'dvswitch'")
        return self._switch

    def _describe(self, group: Any, found: reading.Properties, hosts: set[str], deadline: Deadline) -> None:
        """Say who has it. The version that we read goes along: who was slower is told to come again."""
        spec = _config(str(found["name"]), hosts, found.get("config.defaultPortConfig"))
        spec.configVersion = found.get("config.configVersion")
        self._site.carry_out(lambda: group.ReconfigureDVPortgroup_Task(spec), deadline)


def group_name(network_id: UUID) -> str:
    """The port group of a network."""
    return f"{PREFIX}{network_id}"


def group_id(name: str) -> UUID | None:
    """The network of a port group, if it is one of ours."""
    try:
        return UUID(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    except ValueError:
        return None


def check_mtu(spec: NetworkSpec, switch: str, mtu: int | None) -> None:
    """Raise HostAtFault when the network's frames do not pass the switch."""
    if spec.mtu > int(mtu or MTU_PLAIN):
        raise HostAtFault(f"the switch {switch} has an MTU of {int(mtu or MTU_PLAIN)}, less than the network's")


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


def _config(name: str, hosts: set[str], port: Any) -> Any:
    return vim.dvs.DistributedVirtualPortgroup.ConfigSpec(
        name=name,
        description=" ".join(("stratograph", *sorted(hosts))),
        type="earlyBinding",
        numPorts=PORTS_AT_FIRST,
        autoExpand=True,
        defaultPortConfig=port,
    )


def _port_config(vlan: int) -> Any:
    switch = vim.dvs.VmwareDistributedVirtualSwitch
    no = vim.BoolPolicy(inherited=False, value=False)
    return switch.VmwarePortConfigPolicy(
        vlan=switch.VlanIdSpec(inherited=False, vlanId=vlan),
        securityPolicy=switch.SecurityPolicy(inherited=False, allowPromiscuous=no, macChanges=no, forgedTransmits=no),
    )


def _vlan(found: reading.Properties) -> int | None:
    vlan = getattr(found.get("config.defaultPortConfig"), "vlan", None)
    number = getattr(vlan, "vlanId", None)
    return number if isinstance(number, int) else None


def _hosts(found: reading.Properties) -> set[str]:
    """The hardware UUIDs of the hosts that have it."""
    mark, *hosts = str(found.get("config.description") or "").split() or [""]
    return set(hosts) if mark == "stratograph" else set()
