"""Snapshots of whole machines: vSphere's own, known by our id in their names. Those of others are left alone.

Deltas hang on the disks as long as there is a snapshot, so that what would move or change a disk is refused meanwhile
(``check_none``). Removing one merges it into its children and never removes those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import Deadline, Machine, MachineSnapshot, Power, Refused, Transient
from drivers.esxi import power, reading
from drivers.esxi.site import Site, reference, verb

if TYPE_CHECKING:
    from drivers.esxi.machines import EsxiMachines

RESTLESS = (vim.fault.ApplicationQuiesceFault, vim.fault.FilesystemQuiesceFault, vim.fault.ToolsUnavailable)
"""What a guest's tools, or their absence, answer instead of holding still."""
PREFIX, MEMORY = "stratograph-machine-", "-memory"
Node = tuple[Any, UUID, UUID | None]


class Rewinding:
    """See :class:`drivers.api.MachineSnapshots`."""

    def __init__(self, site: Site, machines: EsxiMachines) -> None:
        self.site = site
        self._machines = machines

    @verb
    def snapshot_machine(
        self,
        machine_id: UUID,
        snapshot_id: UUID,
        deadline: Deadline,
        *,
        memory: bool,
        quiesce: bool = False,
    ) -> MachineSnapshot:
        """See :meth:`drivers.api.MachineSnapshots.snapshot_machine`."""
        with self.site.only(deadline, "machine", str(machine_id)):
            machine, found = self._machines.must(machine_id, deadline)
            if self._seen(found, snapshot_id) is None:
                power.check_not_suspended(found)
                runs = str(found.get("runtime.powerState")) == "poweredOn"
                kept = memory and runs
                name = f"{PREFIX}{snapshot_id}{MEMORY if kept else ''}"
                self._make(machine, name, deadline, memory=kept, quiesce=quiesce and runs and not kept)
                _, found = self._machines.must(machine_id, deadline)
            seen = self._seen(found, snapshot_id)
            if seen is None:
                raise Transient("the snapshot went away as soon as it was made")
            return seen

    def _make(self, machine: Any, name: str, deadline: Deadline, *, memory: bool, quiesce: bool) -> None:
        """Make it; a guest that does not hold still is taken as it is."""
        try:
            self.site.carry_out(lambda: machine.CreateSnapshot_Task(name, "", memory, quiesce), deadline)
        except RESTLESS:
            if not quiesce:
                raise
            self.site.carry_out(lambda: machine.CreateSnapshot_Task(name, "", memory, False), deadline)

    @verb
    def revert_machine(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Machine:
        """See :meth:`drivers.api.MachineSnapshots.revert_machine`."""
        with self.site.only(deadline, "machine", str(machine_id)):
            machine, found = self._machines.must(machine_id, deadline)
            node = self._node(found, snapshot_id)
            if node is None:
                raise Refused(f"the machine has no snapshot {snapshot_id}")
            self.site.carry_out(node.snapshot.RevertToSnapshot_Task, deadline)
            if not str(node.name).endswith(MEMORY) and power.state(self.site, machine, deadline) is not Power.OFF:
                power.reach(self.site, machine.PowerOffVM_Task, deadline)
            seen = reading.our_machine(self._machines.must(machine_id, deadline)[1])
            if seen is None:
                raise Transient("the machine went away meanwhile")
            return seen

    @verb
    def remove_machine_snapshot(self, machine_id: UUID, snapshot_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.MachineSnapshots.remove_machine_snapshot`."""
        with self.site.only(deadline, "machine", str(machine_id)):
            there = self._machines.find(machine_id, deadline)
            node = self._node(there[1], snapshot_id) if there is not None else None
            if node is not None:
                self.site.carry_out(lambda: node.snapshot.RemoveSnapshot_Task(False, True), deadline)

    @verb
    def list_machine_snapshots(self, machine_id: UUID, deadline: Deadline) -> Sequence[MachineSnapshot]:
        """See :meth:`drivers.api.MachineSnapshots.list_machine_snapshots`."""
        there = self._machines.find(machine_id, deadline)
        return [] if there is None else list(_ours(there[1]))

    def _seen(self, found: reading.Properties, snapshot_id: UUID) -> MachineSnapshot | None:
        return next((each for each in _ours(found) if each.id == snapshot_id), None)

    def _node(self, found: reading.Properties, snapshot_id: UUID) -> Any | None:
        return next((node for node, each, _ in _tree(found.get("snapshot")) if each == snapshot_id), None)


def check_none(found: reading.Properties) -> None:
    """Raise Refused for a machine whose disks, and whose hardware as it was, stand in snapshots."""
    if found.get("snapshot") is not None and found["snapshot"].rootSnapshotList:
        raise Refused("the machine has snapshots; remove them first")


def _ours(found: reading.Properties) -> Iterator[MachineSnapshot]:
    tree = found.get("snapshot")
    current = reference(tree.currentSnapshot) if tree is not None and tree.currentSnapshot is not None else None
    for node, identity, parent in _tree(tree):
        memory = str(node.name).endswith(MEMORY)
        quiesced = bool(node.quiesced) and not memory
        yield MachineSnapshot(identity, parent, memory, reference(node.snapshot) == current, quiesced)


def _tree(tree: Any) -> Iterator[Node]:
    """Those of ours, parents before children, each with the nearest above it that is ours."""
    waiting: list[tuple[Any, UUID | None]] = (
        [(node, None) for node in (tree.rootSnapshotList or ())] if tree is not None else []
    )
    while waiting:
        node, parent = waiting.pop(0)
        identity = _id(str(node.name))
        if identity is not None:
            yield node, identity, parent
        waiting += [(each, identity or parent) for each in node.childSnapshotList or ()]


def _id(name: str) -> UUID | None:
    try:
        return UUID(name.removeprefix(PREFIX).removesuffix(MEMORY)) if name.startswith(PREFIX) else None
    except ValueError:
        return None
