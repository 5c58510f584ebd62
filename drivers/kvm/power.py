"""Power actions on a domain. ON and OFF are states to reach; SHUTDOWN asks, and never forces.

A guest that is still starting ignores the power button, so SHUTDOWN presses it again from time to time until the
deadline. SUSPEND is libvirt's managed save: the memory lies on the host, and the next start goes on from it. What
changed under a call (someone else started or stopped the domain) is looked at, not guessed.
"""

from __future__ import annotations

from typing import Any

import libvirt

from drivers.api import Deadline, Power, PowerAction, Refused
from drivers.kvm import stats
from drivers.kvm.errors import found
from drivers.kvm.link import Link

_PRESS_AGAIN_SECONDS = 10.0
_HALTED = {PowerAction.SUSPEND: Power.SUSPENDED, PowerAction.PAUSE: Power.PAUSED}


def act(link: Link, domain: Any, action: PowerAction, deadline: Deadline) -> None:
    """Carry out the action. Raises Refused when a machine that is off is told to start over."""
    deadline.check(f"{action} of a machine")
    if action is PowerAction.ON:
        start(domain)
    elif action is PowerAction.OFF:
        cut(domain)
    elif action is PowerAction.SHUTDOWN:
        _shut_down(link, domain, deadline)
    elif action in _HALTED:
        _halt(domain, action)
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
    elif now is Power.SUSPENDED and domain.isActive():
        domain.pMWakeup()
    elif now is not Power.RUNNING:
        found(domain.create, "OPERATION_INVALID")  # someone else was faster: the state seen afterwards tells


def cut(domain: Any) -> None:
    """Have the domain not run, by force; memory that was saved is forgotten."""
    if domain.isActive():
        found(domain.destroy, "OPERATION_INVALID", "NO_DOMAIN")  # it went off by itself, or is gone
    if found(lambda: domain.hasManagedSaveImage(0), "NO_DOMAIN"):
        found(lambda: domain.managedSaveRemove(0), "OPERATION_INVALID", "NO_DOMAIN")


def seen(domain: Any) -> Power:
    """What the domain is doing now."""
    state, reason = domain.state()
    values = {"state.state": state, "state.reason": reason}
    return stats.power(values, saved=stats.is_off(values) and bool(domain.hasManagedSaveImage(0)))[0]


def check_not_suspended(domain: Any) -> None:
    """Raise Refused for a domain whose saved memory knows the devices that it has."""
    if seen(domain) is Power.SUSPENDED:
        raise Refused("the machine is suspended: its guest remembers the disks that it has")


def _halt(domain: Any, action: PowerAction) -> None:
    now = seen(domain)
    if now is _HALTED[action]:
        return
    if now is not Power.RUNNING:
        raise Refused(f"the machine is {now}, only a running one can {action.lower()}")
    if action is PowerAction.PAUSE:
        domain.suspend()
    else:
        domain.managedSave(0)


def _shut_down(link: Link, domain: Any, deadline: Deadline) -> None:
    while domain.isActive() and deadline.remaining:
        found(lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN), "OPERATION_INVALID")
        patience = Deadline(min(_PRESS_AGAIN_SECONDS, deadline.remaining))
        link.wait_until(lambda: not domain.isActive(), patience)
