"""Power actions on a domain. ON and OFF are states to reach; SHUTDOWN asks, and never forces.

A guest that is still starting ignores the power button, so SHUTDOWN presses it again from time to time until the
deadline. What changed under a call (someone else started or stopped the domain) is looked at, not guessed.
"""

from __future__ import annotations

from typing import Any

import libvirt

from drivers.api import Deadline, Power, PowerAction, Refused
from drivers.kvm import stats
from drivers.kvm.errors import found
from drivers.kvm.link import Link

_PRESS_AGAIN_SECONDS = 10.0


def act(link: Link, domain: Any, action: PowerAction, deadline: Deadline) -> None:
    """Carry out the action. Raises Refused when a machine that is off is told to start over."""
    deadline.check(f"{action} of a machine")
    if action is PowerAction.ON:
        start(domain)
    elif action is PowerAction.OFF:
        cut(domain)
    elif action is PowerAction.SHUTDOWN:
        _shut_down(link, domain, deadline)
    elif not domain.isActive():
        raise Refused("the machine is off")
    elif action is PowerAction.RESET:
        domain.reset(0)
    else:
        domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)


def start(domain: Any) -> None:
    """Have the domain run, from whatever state."""
    now = seen(domain)
    if now is Power.PAUSED:
        domain.resume()
    elif now is Power.SUSPENDED:
        domain.pMWakeup()
    elif now is not Power.RUNNING:
        found(domain.create, "OPERATION_INVALID")  # someone else was faster: the state seen afterwards tells


def cut(domain: Any) -> None:
    """Have the domain not run, by force."""
    if domain.isActive():
        found(domain.destroy, "OPERATION_INVALID", "NO_DOMAIN")  # it went off by itself, or is gone


def seen(domain: Any) -> Power:
    """What the domain is doing now."""
    state, reason = domain.state()
    return stats.power({"state.state": state, "state.reason": reason})[0]


def _shut_down(link: Link, domain: Any, deadline: Deadline) -> None:
    while domain.isActive() and deadline.remaining:
        found(lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN), "OPERATION_INVALID")
        patience = Deadline(min(_PRESS_AGAIN_SECONDS, deadline.remaining))
        link.wait_until(lambda: not domain.isActive(), patience)
