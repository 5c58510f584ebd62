"""Everything that exists on a simulated host as one comparable value: what saga tests hold before and after.

What changes by itself or tells of the way instead of the place (clocks, counters, boot history, the reason of a state)
is left out, so that a saga that unwound truly gives the value it started from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

from drivers.sim.records import (
    ForeignRecord,
    ImageRecord,
    MachineRecord,
    MachineSnapshotRecord,
    NetworkRecord,
    PortRecord,
    SnapshotRecord,
    TallyRecord,
    VolumeRecord,
)
from drivers.sim.store import Transaction


@dataclass(frozen=True)
class World:
    """Records by id, without their history, and how much of the host they use."""

    machines: dict[str, MachineRecord]
    volumes: dict[str, VolumeRecord]
    snapshots: dict[str, SnapshotRecord]
    images: dict[str, ImageRecord]
    networks: dict[str, NetworkRecord]
    ports: dict[str, PortRecord]
    tally: TallyRecord
    foreign: dict[str, ForeignRecord] = field(default_factory=dict)
    machine_snapshots: dict[str, MachineSnapshotRecord] = field(default_factory=dict)

    def without_images(self) -> World:
        """The same without base images, which a host may keep for the next machine."""
        return replace(self, images={})

    def difference(self, other: World) -> list[str]:
        """What differs, one line each, for a test's message; empty when equal."""
        lines: list[str] = []
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, TallyRecord):
                lines += [f"{each.name}: {mine} != {theirs}"] if mine != theirs else []
                continue
            for key in sorted(mine.keys() | theirs.keys()):
                if mine.get(key) != theirs.get(key):
                    lines.append(f"{each.name} {key}: {mine.get(key)} != {theirs.get(key)}")
        return lines


def world(transaction: Transaction) -> World:
    """The host as it is now."""
    machines = {each.id: _timeless(each) for each in transaction.all(MachineRecord)}
    used = transaction.get(TallyRecord, TallyRecord.KEY) or TallyRecord(TallyRecord.KEY)
    return World(
        machines,
        {each.id: each for each in transaction.all(VolumeRecord)},
        {each.id: each for each in transaction.all(SnapshotRecord)},
        {each.id: each for each in transaction.all(ImageRecord)},
        {each.id: each for each in transaction.all(NetworkRecord)},
        {each.id: each for each in transaction.all(PortRecord)},
        used,
        {each.id: each for each in transaction.all(ForeignRecord)},
        {each.id: each for each in transaction.all(MachineSnapshotRecord)},
    )


def _timeless(machine: MachineRecord) -> MachineRecord:
    return replace(machine, made_ns=0, reason=None, on_since_ns=None, starts=[], ran_ns=None)
