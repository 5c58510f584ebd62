"""Which whole-machine snapshots there are, for all that has to know: while a machine has any, its devices stay."""

from __future__ import annotations

from drivers.api import Refused
from drivers.sim.records import MachineSnapshotRecord
from drivers.sim.store import Transaction


def of_machine(transaction: Transaction, machine_id: str) -> list[MachineSnapshotRecord]:
    """The snapshots of a machine."""
    return [each for each in transaction.all(MachineSnapshotRecord) if each.machine_id == machine_id]


def check_none(transaction: Transaction, machine_id: str) -> None:
    """Raise Refused for a machine that has any."""
    if of_machine(transaction, machine_id):
        raise Refused("the machine has snapshots; remove them first")
