"""The way from workers to hypervisors: open connections by host, and a bound on how long any call may take.

A vendor's C call cannot be interrupted, so each call runs on a small pool of threads of its host; when the deadline
passes the caller gets Transient and the thread is left behind. A host whose threads all hang therefore costs its own
pool and nobody else's. Credentials are read from the host's row and never logged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog

from drivers import registry
from drivers.api import Deadline, Driver, DriverType, HostConfig, Transient

T = TypeVar("T")

CALL_S = 120.0
"""How long one driver call may take unless the caller says otherwise."""
THREADS = 8

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """What is needed to reach a host: its kind, and the driver's configuration. Equal addresses share a connection."""

    host_id: int
    kind: str
    name: str
    endpoint: str
    options: tuple[tuple[str, str], ...] = ()
    username: str | None = None
    secret: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Line:
    address: Address
    driver: Driver
    pool: ThreadPoolExecutor


class Hosts:
    """Open connections of this process."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._lines: dict[int, _Line] = {}
        self._lock = threading.Lock()
        self._opening: dict[int, threading.Lock] = {}

    def type_of(self, address: Address) -> DriverType:
        """The driver type of a host. Raises Transient when this process has no such driver."""
        try:
            return registry.get(address.kind)
        except KeyError:
            raise Transient(f"this worker has no {address.kind} driver") from None

    def call(self, address: Address, work: Callable[[Driver, Deadline], T], *, seconds: float = CALL_S) -> T:
        """Run ``work`` with the host's driver within ``seconds``. Raises the driver's errors, Transient when late."""
        deadline = Deadline(seconds)
        line = self._line(address, deadline)
        future = line.pool.submit(work, line.driver, deadline)
        try:
            return future.result(timeout=seconds + 1.0)
        except NotInTime:
            future.cancel()
            log.warning("driver call did not answer in time", host=address.name, seconds=seconds)
            raise Transient(f"host {address.name} did not answer within {seconds:.0f} seconds") from None

    def forget(self, host_id: int) -> None:
        """Close the connection to a host, if there is one."""
        with self._lock:
            line = self._lines.pop(host_id, None)
        if line is not None:
            line.pool.shutdown(wait=False, cancel_futures=True)
            line.driver.close()

    def close(self) -> None:
        """Close every connection."""
        for host_id in list(self._lines):
            self.forget(host_id)

    def _line(self, address: Address, deadline: Deadline) -> _Line:
        with self._lock:
            line = self._lines.get(address.host_id)
            if line is not None and line.address == address:
                return line
            opening = self._opening.setdefault(address.host_id, threading.Lock())
        if not opening.acquire(timeout=max(deadline.remaining, 0.01)):
            raise Transient(f"host {address.name} is being connected to")
        try:
            with self._lock:
                line = self._lines.get(address.host_id)
            if line is not None and line.address == address:
                return line
            if line is not None:
                self.forget(address.host_id)
            return self._open(address, deadline)
        finally:
            opening.release()

    def _open(self, address: Address, deadline: Deadline) -> _Line:
        kind = self.type_of(address)
        missing = kind.missing()
        if missing is not None:
            raise Transient(f"this worker cannot use {address.kind}: {missing}")
        scratch = self._scratch / f"host-{address.host_id}"
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = HostConfig(
            name=address.name,
            endpoint=address.endpoint,
            scratch=scratch,
            options=dict(address.options),
            username=address.username,
            secret=address.secret,
        )
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix=f"host-{address.name}")
        future = pool.submit(kind.connect, config, deadline)
        try:
            driver = future.result(timeout=deadline.remaining + 1.0)
        except NotInTime:
            pool.shutdown(wait=False, cancel_futures=True)
            raise Transient(f"host {address.name} did not take a connection in time") from None
        except BaseException:
            pool.shutdown(wait=False)
            raise
        line = _Line(address, driver, pool)
        with self._lock:
            self._lines[address.host_id] = line
        return line
