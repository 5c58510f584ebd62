"""The simulated data centre itself, as its operator and as fate see it: the API of tests and demonstrations.

:func:`data_centre` opens a host by the name in its endpoint, without a connection and without options: what is done
here happens *behind the driver's back*. Orders (faults, deaf guests, a host that is down, the clock) are recorded in
the host's own state, so they act in every process that uses it. Only :meth:`DataCentre.use_clock` and
:attr:`DataCentre.calls` belong to this process.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from uuid import UUID

from drivers.api import Capability, Deadline, DriverError, HostAtFault, Refused, Transient
from drivers.sim.faults import CALM, ERRORS, When, conditions
from drivers.sim.options import nanoseconds
from drivers.sim.power import started, stopped
from drivers.sim.records import ConditionsRecord, ForeignRecord, MachineRecord, R, SeedRecord, VolumeRecord
from drivers.sim.sqlite_store import SqliteStore
from drivers.sim.store import MemoryStore, Store, Transaction
from drivers.sim.watch import wake
from drivers.sim.world import World, world

SECONDS = 10.0


class DataCentre:
    """One simulated host, seen from outside the driver."""

    def __init__(self, name: str, store: Store) -> None:
        self.name = name
        self.store = store
        self.calls: Counter[str] = Counter()
        self._clock: Callable[[], datetime] | None = None
        self._counting = Lock()

    def count(self, verb: str) -> None:
        """Note that this process asked for that verb."""
        with self._counting:
            self.calls[verb] += 1

    # ------------------------------------------------------------------------------------- time

    def now_ns(self, transaction: Transaction) -> int:
        """Nanoseconds since 1970 on the host's clock: this process's own, the manual one, or the system's."""
        if self._clock is not None:
            return nanoseconds(self._clock())
        manual = conditions(transaction).manual_ns
        return time.time_ns() if manual is None else manual

    def use_clock(self, clock: Callable[[], datetime] | None) -> None:
        """Take the time from there (with a zone), in this process only; None goes back to the host's own."""
        self._clock = clock

    def set_clock(self, at: datetime | None) -> None:
        """Stop the host's clock at that time, for every process; None lets the system's time in again."""
        self._order(lambda now: replace(now, manual_ns=None if at is None else nanoseconds(at)))

    def advance(self, by: timedelta) -> None:
        """Move a stopped clock on. Raises Refused when the clock runs by itself."""

        def moved(now: ConditionsRecord) -> ConditionsRecord:
            if now.manual_ns is None:
                raise Refused("this host's clock runs by itself; stop it with set_clock or the option 'clock'")
            return replace(now, manual_ns=now.manual_ns + by // timedelta(microseconds=1) * 1000)

        self._order(moved)

    # ------------------------------------------------------------------------------------- faults

    def fail(
        self,
        verb: str,
        error: type[DriverError] = Transient,
        *,
        after: bool = False,
        times: int | None = 1,
        skip: int = 0,
        reason: str = "a fault was ordered here",
        capability: Capability = Capability.MACHINES,
    ) -> None:
        """Answer ``verb`` (``machines.ensure``; ``*`` and ``machines.*`` fit many) with that error, so many times.

        By default nothing happened; with ``after`` it happened and the answer is lost. ``times`` None is for ever,
        ``skip`` lets so many calls pass first. ``capability`` is for Unsupported only.
        """
        when = When.AFTER if after else When.BEFORE
        self._add(verb, when, error, times=times, skip=skip, reason=reason, capability=capability.value)

    def hang(self, verb: str, *, times: int | None = 1, skip: int = 0) -> None:
        """Give no answer to ``verb`` until its deadline; nothing happens."""
        self._add(verb, When.HANG, Transient, times=times, skip=skip, reason="a hang was ordered here")

    def heal(self) -> None:
        """End every fault, latency, deafness and outage. The clock stays as it is."""
        self._order(lambda now: replace(CALM, manual_ns=now.manual_ns))

    def down(self, error: type[DriverError] = HostAtFault) -> None:
        """Make every call, also connecting, fail like that; open watches end. Machines go on."""
        self._order(lambda now: replace(now, down=_known(error.__name__)))
        wake(self.store)

    def up(self) -> None:
        """End what :meth:`down` began."""
        self._order(lambda now: replace(now, down=None))

    def fill(self, *, full: bool = True) -> None:
        """Leave no room: whatever needs memory, processors or disk is answered with HostAtFault."""
        self._order(lambda now: replace(now, full=full))

    def latency(self, verb: str, milliseconds: float) -> None:
        """Make a verb (or pattern) take so long; it goes before the option ``latency_ms``."""
        self._order(lambda now: replace(now, latency_ms={**now.latency_ms, verb: milliseconds}))

    def ignore_shutdown(self, machine_id: UUID | None = None) -> None:
        """Give that guest, or all, no ear for the power button."""
        self._deafen("shutdown", machine_id)

    def ignore_detach(self, machine_id: UUID | None = None) -> None:
        """Let that running guest, or all, not let go of disks."""
        self._deafen("detach", machine_id)

    def ignore_quiesce(self, machine_id: UUID | None = None) -> None:
        """Leave that guest, or all, without the agent that makes it hold still for a snapshot."""
        self._deafen("quiesce", machine_id)

    # ------------------------------------------------------------------------------------- behind our back

    def stop(self, machine_id: UUID, *, crashed: bool = False) -> None:
        """Stop a running machine as an operator at the host would, or crash its guest."""
        with self.store.write(Deadline(SECONDS)) as transaction:
            machine = _there(transaction, MachineRecord, machine_id)
            how = "crashed" if crashed else "destroyed"
            stopped(transaction, machine, how, self.now_ns(transaction))

    def start(self, machine_id: UUID) -> None:
        """Start a machine as an operator at the host would."""
        with self.store.write(Deadline(SECONDS)) as transaction:
            machine = _there(transaction, MachineRecord, machine_id)
            started(transaction, machine, "booted", self.now_ns(transaction))

    def power_cut(self) -> None:
        """Take the current from the host: every machine is off, nothing else is lost."""
        with self.store.write(Deadline(SECONDS)) as transaction:
            for machine in transaction.all(MachineRecord):
                stopped(transaction, machine, "host power cut", self.now_ns(transaction))

    def plant(self, machine: ForeignRecord) -> None:
        """Put a machine of somebody else's on the host."""
        with self.store.write(Deadline(SECONDS)) as transaction:
            transaction.put(machine)

    def foreign(self, ref: str) -> ForeignRecord:
        """That machine as it is now."""
        with self.store.read(Deadline(SECONDS)) as transaction:
            found = transaction.get(ForeignRecord, ref)
        if found is None:
            raise Refused(f"the simulated host has no machine {ref} of somebody else's")
        return found

    # ------------------------------------------------------------------------------------- data

    def write(self, volume_id: UUID, data: bytes) -> None:
        """Write to a volume as a guest would; its content becomes a function of what it was and of the data."""
        with self.store.write(Deadline(SECONDS)) as transaction:
            volume = _there(transaction, VolumeRecord, volume_id)
            content = hashlib.sha256(volume.content.encode() + b"\n" + data).hexdigest()
            allocated = min(volume.size_bytes, volume.allocated_bytes + len(data))
            transaction.put(replace(volume, content=content, allocated_bytes=allocated))

    def content(self, volume_id: UUID) -> str:
        """The name of a volume's data: equal names, equal data; ``zeros`` for a blank one."""
        with self.store.read(Deadline(SECONDS)) as transaction:
            return _there(transaction, VolumeRecord, volume_id).content

    def seed_files(self, machine_id: UUID) -> dict[str, bytes]:
        """The first-boot files the machine's guest would find."""
        with self.store.read(Deadline(SECONDS)) as transaction:
            seed = transaction.get(SeedRecord, str(machine_id))
        return {} if seed is None else {name: base64.b64decode(text) for name, text in seed.files.items()}

    def snapshot_of_world(self) -> World:
        """All that exists on the host, as one comparable value; clocks, counters and reasons are left out."""
        with self.store.read(Deadline(SECONDS)) as transaction:
            return world(transaction)

    def clear(self) -> None:
        """Forget everything: an empty host under a clear sky, its clock running by itself."""
        self.store.clear(Deadline(SECONDS))
        self.calls.clear()
        self._clock = None

    # ------------------------------------------------------------------------------------- parts

    def _order(self, change: Callable[[ConditionsRecord], ConditionsRecord]) -> None:
        with self.store.write(Deadline(SECONDS)) as transaction:
            transaction.put(change(conditions(transaction)))

    def _add(self, verb: str, when: When, error: type[DriverError], **how: object) -> None:
        fault = {"verb": verb, "when": when.value, "error": _known(error.__name__), **how}
        self._order(lambda now: replace(now, faults=[*now.faults, fault]))

    def _deafen(self, request: str, machine_id: UUID | None) -> None:
        who = "*" if machine_id is None else str(machine_id)
        self._order(lambda now: replace(now, deaf={**now.deaf, request: [*now.deaf.get(request, []), who]}))


_opened: dict[tuple[str, Path | None], DataCentre] = {}
_opening = Lock()


def data_centre(name: str, state: Path | None = None) -> DataCentre:
    """The host called so: in memory, or with ``state`` the one whose file lies in that folder.

    One object per host and process, so that what a test sets is what the driver sees. The host comes into being here
    or when a driver connects, whichever is first.
    """
    folder = None if state is None else state.resolve()
    with _opening:
        found = _opened.get((name, folder))
        if found is None:
            store: Store = MemoryStore() if folder is None else SqliteStore(folder / f"{name}.sim.sqlite3")
            found = _opened[name, folder] = DataCentre(name, store)
            store.on_commit = lambda: wake(store)
        return found


def _known(error: str) -> str:
    if error not in ERRORS:
        raise Refused(f"a driver answers with one of {', '.join(ERRORS)}, not {error}")
    return error


def _there(transaction: Transaction, kind: type[R], key: UUID) -> R:
    found = transaction.get(kind, str(key))
    if found is None:
        raise Refused(f"the simulated host has no such thing: {key}")
    return found
