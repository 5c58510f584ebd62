"""Power of one machine: states to reach, and the guest's own way down.

A guest is asked through VMware Tools. Who has none does not hear: SHUTDOWN then asks again until the deadline (tools
come late in a boot) and answers with what it sees, REBOOT falls back to a reset.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from pyVmomi import vim

from drivers.api import Deadline, Power, PowerAction, Refused
from drivers.esxi import reading
from drivers.esxi.session import LostAnswerError
from drivers.esxi.site import Site

LOOK_AGAIN_S = 0.5
ANSWER_S = 0.3
"""How much of a deadline is kept for the answer."""


def act(site: Site, machine: Any, action: PowerAction, deadline: Deadline) -> None:
    """Carry out the action. Raises Refused for a reboot of what does not run."""
    now = state(site, machine, deadline)
    if action is PowerAction.ON:
        if now is not Power.RUNNING:
            reach(site, machine.PowerOnVM_Task, deadline)
    elif action is PowerAction.OFF:
        if now is not Power.OFF:
            reach(site, machine.PowerOffVM_Task, deadline)
    elif action is PowerAction.SHUTDOWN:
        if now is not Power.OFF:
            _shut_down(site, machine, deadline)
    elif now is not Power.RUNNING:
        raise Refused(f"the machine is {now}, so it cannot start again")
    elif action is PowerAction.RESET or not _reboot(site, machine, deadline):
        try:
            site.carry_out(machine.ResetVM_Task, deadline)
        except LostAnswerError:
            site.rest(deadline)  # it was reset, or is still what it was; a second reset is nothing that was asked for


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
