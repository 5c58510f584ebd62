"""Rounds: several clients ask one process for a while, in turns with every other candidate, so that whatever else the
machine does disturbs all alike. CPU a request is the lower quartile over rounds (disturbance only adds); rates are
medians, latencies percentiles over all rounds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.bench import process
from tests.bench.client import Caller
from tests.bench.process import Measured
from tests.bench.table import median, percentile

CLIENTS = 4
WARM_SECONDS = 0.3


@dataclass(slots=True)
class Candidate:
    """A process and the request it is asked. ``database`` is the process id above all backends, where there are any."""

    name: str
    process: Measured
    caller: Callable[[], Caller]
    body: bytes
    path: str = "/graphql"
    database: int | None = None
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    database_costs: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def once(self) -> bytes:
        """One answer."""
        caller = self.caller()
        try:
            return caller.post(self.body, self.path)
        finally:
            caller.close()

    def round(self, seconds: float, *, keep: bool) -> None:
        """Ask for so long with several clients."""
        counts: list[int] = []
        threads = [
            threading.Thread(target=lambda: counts.append(self._ask(seconds, keep=keep))) for _ in range(CLIENTS)
        ]
        used, began = self.process.cpu_ms, time.monotonic()
        stored = process.tree_cpu_ms(self.database) if self.database else 0.0
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        took, used = time.monotonic() - began, self.process.cpu_ms - used
        total = sum(counts)
        if not keep or not total or len(counts) != CLIENTS:
            return
        self.rates.append(total / took)
        self.costs.append(used / total)
        if self.database:
            self.database_costs.append((process.tree_cpu_ms(self.database) - stored) / total)

    def _ask(self, seconds: float, *, keep: bool) -> int:
        caller = self.caller()
        done = 0
        end = time.monotonic() + seconds
        while (began := time.monotonic()) < end:
            caller.post(self.body, self.path)
            done += 1
            if keep:
                self.times.append(time.monotonic() - began)
        caller.close()
        return done

    @property
    def cost_ms(self) -> float:
        """CPU of the process a request."""
        return percentile(self.costs, 0.25)

    @property
    def database_ms(self) -> float:
        """CPU of the database's processes a request; 0 where the database is within the process."""
        return percentile(self.database_costs, 0.25) if self.database_costs else 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return median(self.rates)

    def latency_ms(self, share: float) -> float:
        """The time that such a share of requests did not exceed."""
        return percentile(self.times, share) * 1000


def interleaved(candidates: Sequence[Candidate], rounds: int, seconds: float) -> None:
    """Measure all of them in turns, after a round that only warms them."""
    for number in range(rounds + 1):
        for each in candidates:
            each.round(seconds if number else min(seconds, WARM_SECONDS), keep=bool(number))
