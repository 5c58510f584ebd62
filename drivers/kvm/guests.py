"""What is heard of a guest: QEMU's guest agent on its channel, and the leases of libvirt's DHCP servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def held_still(domain: Any, deadline: Deadline) -> Iterator[bool]:
    """Have the guest's agent write all down and freeze its file systems meanwhile; whether it did."""
    definition = xml.parse(domain.XMLDesc(0))
    asked = _has_agent(definition)
    still = asked and bool(_asked(domain, lambda: domain.fsFreeze(None, 0), deadline))
    try:
        yield still
    finally:
        if asked:  # also when it did not answer: it may have frozen all the same
            _asked(domain, lambda: domain.fsThaw(None, 0), deadline)


def _agent_answers(domain: Any, definition: Element, deadline: Deadline) -> bool:
    """Whether an agent that opened the channel tells the guest's time, which every agent can."""
    return _has_agent(definition) and bool(_asked(domain, lambda: domain.getTime(0), deadline))


def _has_agent(definition: Element) -> bool:
    return bool(strings(definition, f"devices/channel/target[@name='{AGENT}'][@state='connected']/@name"))


def _asked(domain: Any, question: Callable[[], Any], deadline: Deadline) -> Any:
    """What the agent answers; None when it is gone, hangs, or says nothing of use."""
    try:
        domain.agentSetResponseTimeout(max(1, min(_ANSWER_SECONDS, int(deadline.remaining))))
        return question()
    except libvirt.libvirtError:
        return None


def _leases(connection: Any, definition: Element) -> dict[str, int]:
    told: dict[str, int] = {}
    for each in definition.iterfind("devices/interface[@type='network']"):
        for mac, name in zip(strings(each, "mac/@address"), strings(each, "source/@network"), strict=False):
            network = found(partial(connection.networkLookupByName, name), "NO_NETWORK")
            leases = network.DHCPLeases(mac) if network is not None and network.isActive() else []
            if leases:
                told[mac.lower()] = max(int(lease["expirytime"]) for lease in leases)
    return told
