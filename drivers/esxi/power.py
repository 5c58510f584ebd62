"""Power of one machine: states to reach, and the guest's own way down.

A guest is asked through VMware Tools. Who has none does not hear: SHUTDOWN then asks again until the deadline (tools
come late in a boot) and answers with what it sees, REBOOT falls back to a reset.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from pyVmomi import vim

from drivers.api import Capability, Deadline, Power, PowerAction, Refused, Unsupported
from drivers.esxi import reading
from drivers.esxi.session import LostAnswerError
from drivers.esxi.site import Site

STATES = {
    PowerAction.ON: Power.RUNNING,
    PowerAction.OFF: Power.OFF,
    PowerAction.SHUTDOWN: Power.OFF,
    PowerAction.SUSPEND: Power.SUSPENDED,
}
LOOK_AGAIN_S = 0.5
ANSWER_S = 0.3
"""How much of a deadline is kept for the answer."""


def act(site: Site, machine: Any, action: PowerAction, deadline: Deadline) -> None:
    """Carry out the action. Raises Refused for what only a running machine can be asked, Unsupported for PAUSE."""
    now = state(site, machine, deadline)
    if action is PowerAction.PAUSE:
        raise Unsupported(Capability.PAUSE, "an ESXi host has no pause beside suspend")
    if action in STATES and now is STATES[action]:
        return
    if action is PowerAction.ON:
        reach(site, machine.PowerOnVM_Task, deadline)
    elif action is PowerAction.OFF:
        reach(site, machine.PowerOffVM_Task, deadline)
    elif action is PowerAction.SHUTDOWN:
        _shut_down(site, machine, deadline)
    elif now is not Power.RUNNING:
        raise Refused(f"the machine is {now}, only a running one can {action.lower()}")
    elif action is PowerAction.SUSPEND:
        reach(site, machine.SuspendVM_Task, deadline)
    else:
        _start_over(site, machine, action, deadline)


def _start_over(site: Site, machine: Any, action: PowerAction, deadline: Deadline) -> None:
    if action is PowerAction.RESET or not _reboot(site, machine, deadline):
        try:
            site.carry_out(machine.ResetVM_Task, deadline)
        except LostAnswerError:
            site.rest(deadline)  # it was reset, or is still what it was; a second reset is nothing that was asked for


def check_not_suspended(found: reading.Properties) -> None:
    """Raise Refused for a machine whose saved memory knows the devices that it has."""
    if str(found.get("runtime.powerState")) == "suspended":
        raise Refused("the machine is suspended: its guest remembers the disks that it has")


def state(site: Site, machine: Any, deadline: Deadline) -> Power:
    """What the machine does now."""
    found = site.look(lambda: reading.one(site.content, machine, ("runtime.powerState",)), deadline)
    return reading.POWERS.get(str(found.get("runtime.powerState")), Power.UNKNOWN)


def reach(site: Site, start: Any, deadline: Deadline) -> None:
    """Run a power task; a machine that is in that state already is fine."""
    try:
        site.carry_out(start, deadline)
    except vim.fault.InvalidPowerState as error:
        if error.requestedState != error.existingState:
            raise


def _shut_down(site: Site, machine: Any, deadline: Deadline) -> None:
    asked = False
    while deadline.remaining > ANSWER_S:
        if not asked:
            with suppress(vim.fault.ToolsUnavailable):
                try:
                    site.send(machine.ShutdownGuest, deadline)
                except LostAnswerError:
                    pass  # asking a guest twice does no harm, and its state tells
                except vim.fault.InvalidPowerState:
                    return  # it went off meanwhile
                asked = True
        if state(site, machine, deadline) is Power.OFF:
            return
        time.sleep(max(0.0, min(LOOK_AGAIN_S, deadline.remaining - ANSWER_S)))


def _reboot(site: Site, machine: Any, deadline: Deadline) -> bool:
    """Ask the guest; False when nobody listens."""
    try:
        site.send(machine.RebootGuest, deadline)
    except vim.fault.ToolsUnavailable:
        return False
    except LostAnswerError:
        return True  # it may have been asked, and is not asked twice
    return True
