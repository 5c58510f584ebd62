"""The cloud's processes as an operator runs them (`stratograph serve`, `stratograph worker`): started, stopped, killed.

Each process leads a group of its own and is ended with it. Settings are the ones given and no others: what the
machine's environment says of STRATOGRAPH_* never reaches a test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from gateway.client import Client
from tests.image.small_disk import on_small_disk
from tests.servers.daemon import free_port

T = TypeVar("T")

PROGRAM = Path(sys.executable).with_name("stratograph")
PASSWORD = "correct horse battery staple"
READY_S = 60.0


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 30.0, every_s: float = 0.1) -> T:
    """What ``look`` finds, as soon as it is something true. Fails after ``seconds`` with the last thing seen."""
    until = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < until, f"{what} did not happen in {seconds:.0f} s; last seen: {found!r}"
        time.sleep(every_s)


@dataclass
class Process:
    """One process; ``start`` may follow ``stop`` or ``kill``."""

    command: str
    environment: Mapping[str, str]
    log: Path
    running: subprocess.Popen[bytes] | None = None
    within: tuple[str, ...] = ()
    """A command that runs it, in its place: `unshare ...`."""

    def start(self) -> None:
        """Start it; returns at once."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STRATOGRAPH_")}
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                (*self.within, PROGRAM, self.command),
                env={**kept, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.running is not None
        return self.running.pid

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal."""
        (os.killpg if group else os.kill)(self.pid, number)

    def ended(self, seconds: float) -> int:
        """Wait for its end; the exit code."""
        assert self.running is not None
        return self.running.wait(seconds)

    def stop(self, seconds: float = 25.0) -> int:
        """End it gracefully; the exit code."""
        self.signal(signal.SIGTERM)
        return self.ended(seconds)

    def kill(self) -> None:
        """End it at once, with everything it started."""
        if self.running is not None and self.running.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.running.wait(20)

    def told(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")


@dataclass
class Gateway(Process):
    """An API process."""

    url: str = ""

    def ready(self) -> None:
        """Wait until it answers."""

        def answers() -> bool:
            assert self.running is not None
            assert self.running.poll() is None, self.told()[-4000:]
            return status(f"{self.url}/readyz") == 200

        wait_for("the gateway's readiness", answers, READY_S)

    def client(self, *, patience_s: float = 0.0) -> Client:
        """An operator's client."""
        made = Client(self.url, patience_s=patience_s)
        made.sign_in("admin", PASSWORD)
        return made


def status(url: str) -> int | None:
    """What HTTP status an address answers with; None when it does not answer."""
    try:
        return httpx2.get(url, timeout=15, trust_env=False).status_code
    except httpx2.TransportError:
        return None


def asked(url: str) -> Any:
    """The JSON that an address answers with."""
    return httpx2.get(url, timeout=15, trust_env=False).json()


@dataclass
class Cloud:
    """Some gateways and workers over one state directory."""

    folder: Path
    settings: dict[str, str]
    gateways: list[Gateway] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)
    disk: str | None = None
    """The size of a file system that the state directory is on, mounted for the gateway alone; `40m`, say."""

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.folder / "state"

    def environment(self, **more: str) -> dict[str, str]:
        """The settings as environment variables."""
        given = {
            "state_dir": str(self.state), "drivers": "sim", "admin_password": PASSWORD, "log_format": "json",
            "sample_every_s": "1", **self.settings, **more,
        }  # fmt: skip
        return {f"STRATOGRAPH_{name.upper()}": value for name, value in given.items()}

    def add_gateway(self) -> Gateway:
        """One more API process, ready."""
        listen = f"127.0.0.1:{free_port()}"
        log = self.folder / f"gateway-{len(self.gateways)}.log"
        within: tuple[str, ...] = ()
        if self.disk is not None:
            self.state.mkdir()
            within = on_small_disk(self.state, self.disk)
        made = Gateway("serve", self.environment(listen=listen), log, url=f"http://{listen}", within=within)
        self.gateways.append(made)
        made.start()
        made.ready()
        return made

    def add_worker(self) -> Process:
        """One more worker process; it becomes ready by itself."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        made = Process("worker", self.environment(), log)
        self.workers.append(made)
        made.start()
        return made

    def end(self) -> None:
        """Kill whatever still runs."""
        for each in (*self.gateways, *self.workers):
            each.kill()


@contextmanager
def cloud(
    folder: Path, *, gateways: int = 1, workers: int = 0, disk: str | None = None, **settings: str
) -> Iterator[Cloud]:
    """A running cloud."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Cloud(folder, settings, disk=disk)
    with ExitStack() as stack:
        stack.callback(made.end)
        for _ in range(gateways):
            made.add_gateway()
        for _ in range(workers):
            made.add_worker()
        yield made
