"""The way from workers to hypervisors: open connections by host, and a bound on how long any call may take.

A vendor's C call cannot be interrupted, so each call runs on a thread of a crew that all hosts share (workers.crew);
when the deadline passes the caller gets Transient and the thread is left behind. A host whose calls all hang is refused
at once and costs nobody else anything. The connection to a host that was removed is closed after a while, for nobody
uses it. Credentials are read from the host's row and never logged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog

from drivers import registry
from drivers.api import Deadline, Driver, DriverType, HostConfig, Transient
from gateway.kernel.core import CORE
from workers.crew import Crew, HungError, LateError

T = TypeVar("T")

CALL_S = 120.0
"""How long one driver call may take unless the caller says otherwise."""
BULK_S = 600.0
"""A call that may take longer moves whole disks: it is not for the core that the short ones share."""
IDLE_S = 600.0
"""A connection that was not used for so long is closed."""

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
    used_at: float
    at_work: int = 0


class Hosts:
    """Open connections of this process."""

    def __init__(self, scratch: Path, crew: Crew | None = None) -> None:
        self._scratch = scratch
        self._crew = crew if crew is not None else Crew()
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
        self._count(line, 1)
        try:
            return self._crew.run(address.host_id, lambda: _done(work, line.driver, deadline, seconds), seconds + 1.0)
        except LateError:
            log.warning("driver call did not answer in time", host=address.name, seconds=seconds)
            raise Transient(f"host {address.name} did not answer within {seconds:.0f} seconds") from None
        except HungError:
            raise Transient(f"host {address.name} does not answer: earlier calls to it still hang") from None
        finally:
            self._count(line, -1)

    def forget(self, host_id: int) -> None:
        """Close the connection to a host, if there is one."""
        with self._lock:
            line = self._lines.pop(host_id, None)
        if line is not None:
            line.driver.close()

    @property
    def connected(self) -> frozenset[int]:
        """Keys of the hosts that this process has a connection to."""
        with self._lock:
            return frozenset(self._lines)

    def trim(self, keep: Container[int]) -> None:
        """Close the connections that were not used for a while, but for those to keep."""
        before = time.monotonic() - IDLE_S
        with self._lock:
            idle = [
                host_id for host_id, line in self._lines.items()
                if host_id not in keep and not line.at_work and line.used_at < before
            ]  # fmt: skip
        for host_id in idle:
            self.forget(host_id)

    def close(self) -> None:
        """Close every connection."""
        for host_id in list(self._lines):
            self.forget(host_id)
        self._crew.close()

    def _count(self, line: _Line, sign: int) -> None:
        with self._lock:
            line.at_work += sign
            line.used_at = time.monotonic()

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

    def config(self, address: Address) -> HostConfig:
        """A host as drivers are told of it, for verbs that name another one."""
        return HostConfig(
            name=address.name,
            endpoint=address.endpoint,
            scratch=self._scratch / f"host-{address.host_id}",
            options=dict(address.options),
            username=address.username,
            secret=address.secret,
        )

    def _open(self, address: Address, deadline: Deadline) -> _Line:
        kind = self.type_of(address)
        missing = kind.missing()
        if missing is not None:
            raise Transient(f"this worker cannot use {address.kind}: {missing}")
        config = self.config(address)
        config.scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            driver = self._crew.run(
                address.host_id, lambda: kind.connect(config, deadline), max(deadline.remaining, 0.0) + 1.0
            )
        except LateError:
            raise Transient(f"host {address.name} did not take a connection in time") from None
        except HungError:
            raise Transient(f"host {address.name} does not answer: earlier calls to it still hang") from None
        line = _Line(address, driver, time.monotonic())
        with self._lock:
            self._lines[address.host_id] = line
        return line


def _done(work: Callable[[Driver, Deadline], T], driver: Driver, deadline: Deadline, seconds: float) -> T:
    if seconds <= BULK_S:
        return work(driver, deadline)
    with CORE.apart():
        return work(driver, deadline)
