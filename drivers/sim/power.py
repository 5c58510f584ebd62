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


def started(transaction: Transaction, machine: MachineRecord, reason: str, now_ns: int) -> MachineRecord:
    """The machine, running; as it is when it runs already."""
    if machine.power == Power.RUNNING:
        return machine
    now = replace(machine, power=Power.RUNNING.value, reason=reason, on_since_ns=now_ns, starts=_begun(machine, now_ns))
    _account(transaction, vcpus=machine.vcpus, ram_mib=machine.ram_mib)
    return _kept(transaction, now)


def stopped(transaction: Transaction, machine: MachineRecord, how: str, now_ns: int) -> MachineRecord:
    """The machine, off (``crashed``: crashed); as it is when it does not run."""
    if machine.power != Power.RUNNING:
        return machine
    power = Power.CRASHED if how == "crashed" else Power.OFF
    now = replace(machine, power=power.value, reason=how, on_since_ns=None, starts=_ended(machine, how, now_ns))
    _account(transaction, vcpus=-machine.vcpus, ram_mib=-machine.ram_mib)
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


def _account(transaction: Transaction, *, vcpus: int, ram_mib: int) -> None:
    used = tally(transaction)
    transaction.put(replace(used, vcpus=used.vcpus + vcpus, ram_mib=used.ram_mib + ram_mib))


def _kept(transaction: Transaction, machine: MachineRecord) -> MachineRecord:
    transaction.put(machine)
    transaction.tell(machine.id, machine)
    return machine
