"""Turning machines off: by asking their guests first, and by force when these do not do it in time."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from drivers.api import Deadline, Driver, Machine, Power, PowerAction, Transient

POWER_S = 60.0


class Ask(Protocol):
    """A call of one host, whichever it is."""

    def __call__(self, work: object, *, seconds: float) -> Machine:
        """Run ``work(driver, deadline)`` there."""


def shut_down(ask: Ask, machine_id: UUID, patience_s: float) -> tuple[Machine, bool]:
    """The machine, off (or what a crash left of it, which stands still as well), and whether its guest shut down by
    itself; one that is off already counts as that. Raises Transient when it does not go off.
    """

    def act(action: PowerAction, seconds: float) -> Machine:
        def work(driver: Driver, deadline: Deadline) -> Machine:
            return driver.machines.power(machine_id, action, deadline)

        return ask(work, seconds=seconds)

    machine = act(PowerAction.SHUTDOWN, patience_s) if patience_s else None
    if machine is not None and machine.power is Power.OFF:
        return machine, True
    machine = act(PowerAction.OFF, POWER_S)
    if machine.power not in (Power.OFF, Power.CRASHED):
        raise Transient(f"the machine is {machine.power.value} after it was powered off")
    return machine, False
