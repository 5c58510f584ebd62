"""How a simulated machine starts and stops, with all that follows: boot history, the host's tally, word to watchers.

Both the driver's verbs and fate (``data_centre.py``) stop machines through here, so that a crash behind our back leaves
the same traces as an order of ours. Nothing here asks whether it may: the callers do.
"""

from __future__ import annotations

from dataclasses import replace

from drivers.api import Power
from drivers.sim.records import MachineRecord, TallyRecord
from drivers.sim.store import Transaction

STARTS_KEPT = 16
HALTED = frozenset({Power.PAUSED.value, Power.SUSPENDED.value})
IN_LIFE = HALTED | {Power.RUNNING.value}


def started(transaction: Transaction, machine: MachineRecord, reason: str, now_ns: int) -> MachineRecord:
    """The machine, running; as it is when it runs already."""
    if machine.power == Power.RUNNING:
        return machine
    now = replace(machine, power=Power.RUNNING.value, reason=reason, on_since_ns=now_ns, starts=_begun(machine, now_ns))
    account(transaction, vcpus=machine.vcpus, ram_mib=machine.ram_mib)
    return _kept(transaction, now)


def stopped(transaction: Transaction, machine: MachineRecord, how: str, now_ns: int) -> MachineRecord:
    """The machine, off (``crashed``: crashed); as it is when it neither runs nor waits to go on."""
    if machine.power not in IN_LIFE:
        return machine
    power = Power.CRASHED if how == "crashed" else Power.OFF
    ended = replace(machine, power=power.value, reason=how, on_since_ns=None, ran_ns=None)
    if machine.power != Power.SUSPENDED:
        account(transaction, vcpus=-machine.vcpus, ram_mib=-machine.ram_mib)
    return _kept(transaction, replace(ended, starts=_ended(machine, how, now_ns)))


def halted(transaction: Transaction, machine: MachineRecord, power: Power, now_ns: int) -> MachineRecord:
    """The running machine, PAUSED (it keeps its room on the host) or SUSPENDED (it does not)."""
    ran_ns = 0 if machine.on_since_ns is None else now_ns - machine.on_since_ns
    if power is Power.SUSPENDED:
        account(transaction, vcpus=-machine.vcpus, ram_mib=-machine.ram_mib)
    now = replace(machine, power=power.value, reason=power.lower(), on_since_ns=None, ran_ns=ran_ns)
    return _kept(transaction, now)


def resumed(transaction: Transaction, machine: MachineRecord, now_ns: int) -> MachineRecord:
    """The paused or suspended machine, running on where it stood still."""
    if machine.power == Power.SUSPENDED:
        account(transaction, vcpus=machine.vcpus, ram_mib=machine.ram_mib)
    since_ns = now_ns - int(machine.ran_ns or 0)
    now = replace(machine, power=Power.RUNNING.value, reason="resumed", on_since_ns=since_ns, ran_ns=None)
    return _kept(transaction, now)


def restarted(transaction: Transaction, machine: MachineRecord, how: str, now_ns: int) -> MachineRecord:
    """The machine after a reboot or reset. It stayed on, so its counters go on."""
    ended = replace(machine, reason=how, starts=_ended(machine, how, now_ns))
    return _kept(transaction, replace(ended, starts=_begun(ended, now_ns)))


def tally(transaction: Transaction) -> TallyRecord:
    """How much of the host is in use."""
    return transaction.get(TallyRecord, TallyRecord.KEY) or TallyRecord(TallyRecord.KEY)


def _begun(machine: MachineRecord, now_ns: int) -> list[list[int | str | None]]:
    return [*machine.starts[1 - STARTS_KEPT :], [now_ns, None, None]]


def _ended(machine: MachineRecord, how: str, now_ns: int) -> list[list[int | str | None]]:
    return [*machine.starts[:-1], [machine.starts[-1][0], now_ns, how]]


def account(transaction: Transaction, *, vcpus: int, ram_mib: int) -> None:
    """Count in what runs, or out."""
    used = tally(transaction)
    transaction.put(replace(used, vcpus=used.vcpus + vcpus, ram_mib=used.ram_mib + ram_mib))


def _kept(transaction: Transaction, machine: MachineRecord) -> MachineRecord:
    transaction.put(machine)
    transaction.tell(machine.id, machine)
    return machine
