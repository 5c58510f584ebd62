"""Counters of machines: vSphere tells rates over 20 seconds, and this adds them up since a machine's start.

One bulk read gives power, memory and start time, one QueryPerf in batches the counters of what runs. The totals live
in this connection: one that is opened later begins with the last hour that the host remembers, so totals may start
over, as they do at a power-on. A machine that is off has no counters at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any
from uuid import UUID

from pyVmomi import vim

from drivers.api import Deadline, Machine, Power, Quality, Sample
from drivers.esxi.reading import Properties
from drivers.esxi.site import Site, reference

INTERVAL_S = 20
BATCH = 50
MOST_INTERVALS = 180
KIB = 1024
# counter of vSphere -> our total, and how much one interval's value adds to it
COUNTERS: Mapping[str, tuple[str, int]] = {
    "cpu.used.summation": ("cpu_time_ns", 1_000_000),
    "disk.read.average": ("disk_read_bytes", KIB * INTERVAL_S),
    "disk.write.average": ("disk_written_bytes", KIB * INTERVAL_S),
    "disk.numberRead.summation": ("disk_reads", 1),
    "disk.numberWrite.summation": ("disk_writes", 1),
    "net.received.average": ("net_received_bytes", KIB * INTERVAL_S),
    "net.transmitted.average": ("net_sent_bytes", KIB * INTERVAL_S),
}
TOTALS = tuple(name for name, _ in COUNTERS.values())


@dataclass(slots=True)
class Total:
    """What a machine used since ``started``; ``until`` is the end of the last interval that was added;
    ``quality`` is PARTIAL when the last look told less than all counters, or came too late for some intervals.
    """

    started: datetime | None
    until: datetime
    values: dict[str, int] = field(default_factory=dict)
    quality: Quality = Quality.SUMMED


class Counters:
    """The running totals of one host's machines."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = Lock()
        self._keys: dict[int, str] = {}
        self._totals: dict[UUID, Total] = {}

    def read(self, machines: Sequence[tuple[Any, Properties, Machine]], deadline: Deadline) -> Sequence[Sample]:
        """One sample each, of machines that were read with :data:`drivers.esxi.reading.SAMPLE`."""
        with self._lock:
            now = self._site.look(self._site.session.now, deadline)
            running = [(at, machine) for at, _, machine in machines if machine.power is Power.RUNNING]
            for _, found, machine in machines:
                if machine.power is Power.RUNNING:
                    self._begin(machine.id, found.get("runtime.bootTime"), now)
            for first in range(0, len(running), BATCH):
                self._add(running[first : first + BATCH], now, deadline)
            alive = {machine.id for _, machine in running}
            self._totals = {each: total for each, total in self._totals.items() if each in alive}
            return [self._sample(machine, found) for _, found, machine in machines]

    def _begin(self, machine_id: UUID, started: datetime | None, now: datetime) -> None:
        total = self._totals.get(machine_id)
        if total is None or (started is not None and total.started != started):
            since = now - timedelta(seconds=INTERVAL_S * MOST_INTERVALS)
            self._totals[machine_id] = Total(started, max(since, started or since), dict.fromkeys(TOTALS, 0))

    def _add(self, batch: Sequence[tuple[Any, Machine]], now: datetime, deadline: Deadline) -> None:
        keys = self._counter_keys(deadline)
        manager = self._site.content.perfManager
        metrics = [vim.PerformanceManager.MetricId(counterId=key, instance="") for key in keys]
        specs = [
            vim.PerformanceManager.QuerySpec(
                entity=at,
                metricId=metrics,
                intervalId=INTERVAL_S,
                startTime=self._totals[machine.id].until + timedelta(milliseconds=1),
                endTime=now,
                maxSample=MOST_INTERVALS,
                format="normal",
            )
            for at, machine in batch
        ]
        ids = {reference(at): machine.id for at, machine in batch}
        oldest = now - timedelta(seconds=INTERVAL_S * MOST_INTERVALS)
        silent = {machine.id for _, machine in batch}
        for answer in self._site.look(lambda: manager.QueryPerf(specs), deadline) or ():
            total = self._totals.get(ids.get(reference(answer.entity)) or UUID(int=0))
            if total is not None:
                late = total.until < oldest
                whole = add_up(total, answer, keys) and not late
                total.quality = Quality.SUMMED if whole else Quality.PARTIAL
                silent.discard(ids[reference(answer.entity)])
        for each in silent:
            self._totals[each].quality = Quality.PARTIAL

    def _counter_keys(self, deadline: Deadline) -> Mapping[int, str]:
        """The host's numbers of the counters that we want; they differ from host to host."""
        if not self._keys:
            every = self._site.look(lambda: self._site.content.perfManager.perfCounter, deadline) or ()
            named = {f"{each.groupInfo.key}.{each.nameInfo.key}.{each.rollupType}": int(each.key) for each in every}
            self._keys = {named[name]: name for name in COUNTERS if name in named}
        return self._keys

    def _sample(self, machine: Machine, found: Properties) -> Sample:
        total = self._totals.get(machine.id)
        values: Mapping[str, int | None] = dict.fromkeys(TOTALS) if total is None else total.values
        used = found.get("summary.quickStats.guestMemoryUsage") if total is not None else None
        return Sample(
            machine_id=machine.id,
            at=datetime.now(UTC),
            power=machine.power,
            vcpus=machine.vcpus,
            ram_mib=machine.ram_mib,
            ram_used_mib=None if used is None else int(used),
            cpu_time_ns=values["cpu_time_ns"],
            disk_read_bytes=values["disk_read_bytes"],
            disk_written_bytes=values["disk_written_bytes"],
            disk_reads=values["disk_reads"],
            disk_writes=values["disk_writes"],
            net_received_bytes=values["net_received_bytes"],
            net_sent_bytes=values["net_sent_bytes"],
            quality=Quality.SUMMED if total is None else total.quality,
        )


def add_up(total: Total, answer: Any, keys: Mapping[int, str]) -> bool:
    """Add the whole intervals that ended since the last look. What is negative was not measured. Whether every counter
    was told for each of them.
    """
    ends = [each.timestamp for each in answer.sampleInfo or ()]
    fresh = [number for number, end in enumerate(ends) if end > total.until]
    told: set[str] = set()
    whole = True
    for series in answer.value or ():
        name = keys.get(int(series.id.counterId))
        if name is not None and not series.id.instance:
            total_name, weight = COUNTERS[name]
            values = list(series.value or ())
            found = [int(values[at]) for at in fresh if at < len(values)]
            whole = whole and len(found) == len(fresh) and all(each >= 0 for each in found)
            total.values[total_name] += sum(max(0, each) for each in found) * weight
            told.add(name)
    total.until = max([total.until, *(ends[number] for number in fresh)])
    return whole and (not fresh or told == set(COUNTERS))
