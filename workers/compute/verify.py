"""Whether the guest of a machine that was just started is alive: what is heard of it, and how much that proves.

"It runs" is the hypervisor's word and says nothing of the guest. Here only what the guest did itself counts: a text on
its serial port, an address it asked for since it was started, its agent's answer. What has to be heard is the asker's
to say; without it the guest counts as not come up, and what follows is the saga's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from drivers.api import ConsoleLog, Deadline, Driver, GuestListening, GuestSigns, Power, Refused
from gateway.compute.machine_model import Verification
from workers.compute.disks import Teller
from workers.reach import call
from workers.saga import Run

LOOK_S = 0.5
PATIENCE_S = 30.0
"""How long is listened when nothing has to be heard."""
CONSOLE_BYTES = 1 << 16
LINE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Heard:
    """How much was heard, and the same in words."""

    level: Verification
    words: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a machine: itself, its serial port (None: the host keeps no log) and its guest's signs."""

    machine: Any
    console: str | None
    signs: GuestSigns


def signs(run: Run, host_id: int, uid: UUID) -> GuestSigns:
    """What is heard of a machine's guest; nothing where the host does not listen."""

    def work(driver: Driver, deadline: Deadline) -> GuestSigns:
        return driver.guest_signs(uid, deadline) if isinstance(driver, GuestListening) else GuestSigns()

    heard: GuestSigns = call(run, host_id, work)
    return heard


def listen(run: Run, host_id: int, uid: UUID) -> Heard:
    """Listen for the guest as the job was told to. Raises Refused when what has to be heard is not, in time."""
    expected: str | None = run.arguments["expect"]
    needed = Verification(run.arguments.get("verify", Verification.NOT_VERIFIED.value))
    strict = expected is not None or needed is not Verification.NOT_VERIFIED
    most = float(run.arguments["expect_timeout_s"])
    deadline = Deadline(most if strict else min(most, PATIENCE_S))
    told = Teller(run, "Waiting for the guest")
    leases: dict[str, int] = run.memory.get("leases", {})
    while True:
        seen: Look = call(run, host_id, lambda driver, left: _look(driver, uid, left))
        if seen.machine is None or seen.machine.power is not Power.RUNNING:
            what = "gone" if seen.machine is None else seen.machine.power.value
            raise Refused(f"the machine is {what} after its first start")
        if expected is not None and seen.console is None:
            raise Refused("the new host keeps no console log in which a text could be waited for")
        heard = judge(seen, expected, leases)
        if heard.level is not Verification.NOT_VERIFIED and heard.level.rank >= needed.rank:
            return heard
        if not deadline.remaining:
            if strict:
                raise Refused(_missed(expected, needed, heard))
            return heard
        told(0, None)
        time.sleep(LOOK_S)


def judge(seen: Look, expected: str | None, leases: dict[str, int]) -> Heard:
    """What one look proves. ``leases`` are those of before the machine was started."""
    lines = [line.strip() for line in (seen.console or "").splitlines() if line.strip()]
    if expected is not None:
        lines = [line for line in lines if expected in line]
        if not lines:
            return Heard(Verification.NOT_VERIFIED, "The hypervisor says that it runs.")
    asked = sorted(mac for mac, until in seen.signs.leases.items() if until != leases.get(mac))
    signs_seen = [f"its console says: {lines[-1][:LINE_CHARACTERS]}"] if lines else []
    signs_seen += [f"it asked for the address of {', '.join(asked)}"] if asked else []
    if seen.signs.agent:
        return Heard(Verification.AGENT, _sentence(["the agent in the guest answers", *signs_seen]))
    if signs_seen:
        return Heard(Verification.BOOTED, _sentence(signs_seen))
    return Heard(Verification.NOT_VERIFIED, "The hypervisor says that it runs; nothing was heard of its guest.")


def _sentence(parts: list[str]) -> str:
    told = "; ".join(parts)
    return f"{told[:1].upper()}{told[1:]}"[:500]


def _missed(expected: str | None, needed: Verification, heard: Heard) -> str:
    if expected is not None and heard.level is Verification.NOT_VERIFIED:
        return f"the guest did not write {expected!r} on its serial port in time"
    what = "its agent did not answer" if needed is Verification.AGENT else "nothing was heard of it"
    return f"the guest did not show itself in time: {what}"


def _look(driver: Driver, uid: UUID, deadline: Deadline) -> Look:
    machine = driver.machines.inspect(uid, deadline)
    console = None
    if isinstance(driver, ConsoleLog):
        console = driver.console_log(uid, CONSOLE_BYTES, deadline).decode(errors="replace")
    if machine is None or not isinstance(driver, GuestListening):
        return Look(machine, console, GuestSigns())
    return Look(machine, console, driver.guest_signs(uid, deadline))
