"""The sweep: one loop per process that rings for jobs nobody is running and lets each reconciler look.

It is the only retry and the only crash recovery there is; what the broker of a worker does not take, the worker runs
itself (:class:`Direct`). Reconcilers take no argument, compare what is recorded with
what is, and repair by submitting a job. A reconciler that fails is logged and tried at its next turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog

from gateway.jobs import job as jobs
from gateway.jobs.job import Bell
from gateway.kernel.db import Database

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Context:
    """What a reconciler may use. ``worker`` is this worker's name among the living; empty for one that is alone."""

    db: Database
    hosts: Any
    settings: Any
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Reconciler:
    """``look`` runs every ``every_s`` seconds in each worker process; several at once must do no harm. Hosts are shared
    among the workers (workers/shares.py).
    """

    name: str
    every_s: float
    look: Callable[[Context], None]


RECONCILERS: dict[str, Reconciler] = {}


def reconciler(name: str, every_s: float) -> Callable[[Callable[[Context], None]], Callable[[Context], None]]:
    """Register a reconciler."""

    def keep(look: Callable[[Context], None]) -> Callable[[Context], None]:
        if name in RECONCILERS:
            raise TypeError(f"two reconcilers are called {name}")
        RECONCILERS[name] = Reconciler(name, every_s, look)
        return look

    return keep


FIRST_S, APART_S = 0.5, 0.1
"""Reconcilers begin so long after the process, and after each other: all at once they would hold everything up."""
AGAIN_S = 5.0
"""A job that was rung for and is still waiting is rung for again after so long: the queue may just be full."""


@dataclass(slots=True)
class Rung:
    """When each waiting job was last rung for, by this process."""

    at: dict[int, float] = field(default_factory=dict)

    def fresh(self, waiting: list[int]) -> list[int]:
        """Those that are to be rung for now; forgets what no longer waits."""
        now = time.monotonic()
        ready = [job_id for job_id in waiting if now - self.at.get(job_id, -AGAIN_S) >= AGAIN_S]
        self.at = {job_id: self.at.get(job_id, now) for job_id in waiting} | dict.fromkeys(ready, now)
        return ready


def ring_due(db: Database, bell: Bell, rung: Rung | None = None) -> int:
    """Ring for every job that is due and not run; how many."""
    with db.read() as session:
        waiting = jobs.due(session)
    ready = waiting if rung is None else rung.fresh(waiting)
    for job_id in ready:
        bell.ring(job_id)
    return len(ready)


@dataclass(slots=True)
class Direct:
    """Runs jobs in this process without a broker, on threads that are made when first needed. Thread-safe."""

    run: Callable[[int], object]
    threads: int
    _pool: ThreadPoolExecutor = field(init=False)
    _under_way: set[Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="direct")

    def __call__(self, job_id: int) -> None:
        """Have a job run, unless this process is about to end."""
        try:
            future = self._pool.submit(self._run, job_id)
        except RuntimeError:  # stopped: whoever is left takes it
            return
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)

    def stop(self, seconds: float) -> None:
        """Begin nothing more, and wait at most ``seconds`` for what is under way."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait(list(self._under_way), timeout=seconds)

    def _run(self, job_id: int) -> None:
        try:
            self.run(job_id)
        except Exception:
            log.exception("a job could not be run")


@dataclass(slots=True)
class Sweep:
    """The loop. ``start`` begins it on a thread of its own, ``stop`` ends it and waits."""

    context: Context
    bell: Bell
    every_s: float = 0.5
    direct: Direct | None = None
    beat: Callable[[], object] | None = None
    beat_every_s: float = 10.0
    tell: Callable[[], object] | None = None
    tell_every_s: float = 0.1
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin: one thread for the jobs, one for each reconciler (a hung host must not hold up the others)."""
        rung = Rung()
        self._spawn("sweep", self.every_s, lambda: ring_due(self.context.db, self.bell, rung))
        if self.beat is not None:
            self._spawn("leases", self.beat_every_s, self.beat)
        if self.tell is not None:
            self._spawn("records", self.tell_every_s, self.tell)
        for at, each in enumerate(RECONCILERS.values()):
            look = partial(each.look, self.context)
            self._spawn(each.name, each.every_s, look, after_s=FIRST_S + at * APART_S)

    def stop(self, seconds: float = 5.0) -> None:
        """End; wait at most ``seconds`` for turns that are under way."""
        self._stop.set()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if self.direct is not None:
            self.direct.stop(max(0.0, until - time.monotonic()))

    def _spawn(self, name: str, every_s: float, turn: Callable[[], object], *, after_s: float = 0.0) -> None:
        given = (name, every_s, turn, after_s)
        thread = threading.Thread(target=self._loop, args=given, name=f"sweep-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _loop(self, name: str, every_s: float, turn: Callable[[], object], after_s: float) -> None:
        self._stop.wait(after_s)
        broken = False
        while not self._stop.is_set():
            try:
                turn()
                broken = False
            except Exception as error:  # noqa: BLE001 - the loop must outlive any fault
                log.log(30 if not broken else 10, "a turn of the sweep failed", turn=name, error=repr(error))
                broken = True
            self._stop.wait(every_s)
