"""Plugging ports into machines and out of them: a network card each, known by the port's MAC address.

Which card is whose is told by the MAC that the port has; a card of somebody else is never touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import Deadline, NicSpec, Refused
from drivers.esxi import hardware, holders, power, reading, rewinding
from drivers.esxi.machines import EsxiMachines
from drivers.esxi.networks import EsxiNetworks
from drivers.esxi.site import Site, verb

MOST_CARDS = 10
CARD_KEY = -2000


class Plugging:
    """See :class:`drivers.api.PortPlugging`."""

    def __init__(self, site: Site, machines: EsxiMachines, networks: EsxiNetworks) -> None:
        self.site = site
        self._machines = machines
        self._networks = networks

    @verb
    def plug_port(self, machine_id: UUID, nic: NicSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.PortPlugging.plug_port`."""
        claimed = self.site.claim(deadline, nic.network_id, nic.port_id)
        with self.site.only(deadline, "machine", str(machine_id)), claimed:
            machine, found = self._machines.must(machine_id, deadline)
            backing = self._networks.plug(nic.network_id, nic.port_id, deadline)
            cards = [each for _, each in reading.nics(found["config.hardware.device"])]
            if any(_mac(each) == nic.mac.lower() for each in cards):
                return
            power.check_not_suspended(found)
            rewinding.check_none(found)
            if any(mac == nic.mac.lower() for _, mac in holders.networks(self.site, deadline)):
                raise Refused(f"another machine is on the port {nic.port_id}")
            if len(cards) >= MOST_CARDS:
                raise Refused(f"an ESXi machine has at most {MOST_CARDS} network cards")
            self._change(machine, "add", hardware.nic_card(nic, backing, key=CARD_KEY), deadline)

    @verb
    def unplug_port(self, machine_id: UUID, port_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.PortPlugging.unplug_port`."""
        with self.site.only(deadline, "machine", str(machine_id)):
            there = self._machines.find(machine_id, deadline)
            port = self._networks.port(port_id, deadline)
            if there is None or port is None:
                return
            for _, card in reading.nics(there[1]["config.hardware.device"]):
                if _mac(card).replace(":", "") == port.mac:
                    power.check_not_suspended(there[1])
                    rewinding.check_none(there[1])
                    self._change(there[0], "remove", card, deadline)

    @verb
    def plugged_ports(self, machine_id: UUID, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.PortPlugging.plugged_ports`."""
        there = self._machines.find(machine_id, deadline)
        if there is None:
            return []
        macs = {_mac(card).replace(":", "") for _, card in reading.nics(there[1]["config.hardware.device"])}
        return [port.id for port in self._networks.ports(deadline) if port.mac in macs]

    def _change(self, machine: Any, operation: str, card: Any, deadline: Deadline) -> None:
        change = vim.vm.device.VirtualDeviceSpec(operation=operation, device=card)
        spec = vim.vm.ConfigSpec(deviceChange=[change])
        self.site.carry_out(lambda: machine.ReconfigVM_Task(spec), deadline)


def _mac(card: Any) -> str:
    return str(card.macAddress).lower()
