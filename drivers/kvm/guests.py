"""What is heard of a guest: QEMU's guest agent on its channel, and the leases of libvirt's DHCP servers."""

from __future__ import annotations

from functools import partial
from typing import Any

import libvirt

from drivers.api import Deadline, GuestSigns
from drivers.kvm import xml
from drivers.kvm.errors import found
from drivers.kvm.xml.common import Element, strings
from drivers.kvm.xml.domain import AGENT

_ANSWER_SECONDS = 5


def signs(connection: Any, domain: Any, deadline: Deadline) -> GuestSigns:
    """See :meth:`drivers.api.GuestListening.guest_signs`."""
    definition = xml.parse(domain.XMLDesc(0))
    return GuestSigns(_agent_answers(domain, definition, deadline), _leases(connection, definition))


def _agent_answers(domain: Any, definition: Element, deadline: Deadline) -> bool:
    """Whether an agent that opened the channel tells the guest's time, which every agent can."""
    if not strings(definition, f"devices/channel/target[@name='{AGENT}'][@state='connected']/@name"):
        return False
    deadline.check("asking the guest's agent")
    try:
        domain.agentSetResponseTimeout(max(1, min(_ANSWER_SECONDS, int(deadline.remaining))))
        return bool(domain.getTime(0))
    except libvirt.libvirtError:  # it is gone, hangs, or says nothing of use: none of these is an answer
        return False


def _leases(connection: Any, definition: Element) -> dict[str, int]:
    told: dict[str, int] = {}
    for each in definition.iterfind("devices/interface[@type='network']"):
        for mac, name in zip(strings(each, "mac/@address"), strings(each, "source/@network"), strict=False):
            network = found(partial(connection.networkLookupByName, name), "NO_NETWORK")
            leases = network.DHCPLeases(mac) if network is not None and network.isActive() else []
            if leases:
                told[mac.lower()] = max(int(lease["expirytime"]) for lease in leases)
    return told
