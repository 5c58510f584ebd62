"""One real server of the tests: started under a guard, paused, killed, restarted on its port, and ended by pid.

`Daemon` is what PostgreSQL, RabbitMQ and Redis have in common. The guard (guard.py) ends the server when the test run
is gone, so that nothing of a crashed run stays behind. Deadlines are in seconds. Nothing here touches a system
instance: each server has its own port, its own folder and, where the server has them, its own node name and cookie.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers import guard

ROOT = Path(__file__).resolve().parents[2]
# Below the range from which the kernel takes ports for outgoing connections: a port stays free from kill to restart.
PORTS = range(15_000, 32_000)


class ServerError(Exception):
    """A server ended or did not answer in time; the message holds the end of its log."""


class PackageMissingError(Exception):
    """The server's program is not installed; the message names the Debian package."""


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    for _ in range(200):
        port = random.choice(PORTS)  # noqa: S311  # a port number is no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError("no free port found")


def run_pid() -> int:
    """The process that stands for this test run: the xdist controller, or pytest itself."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Return as soon as the condition holds. Raises ServerError after that many seconds."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ServerError(f"{what} within {seconds} s")
        time.sleep(0.02)


@dataclass(kw_only=True)
class Daemon:
    """A server process and how to treat it. `answers` says whether it serves requests now."""

    command: Sequence[str]
    folder: Path
    answers: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    watch_pid: int = field(default_factory=run_pid)
    guard_pid: int = 0
    pid: int = 0

    @property
    def log(self) -> Path:
        """What the server printed, over all its starts."""
        return self.folder / "server.log"

    def start(self, *, seconds: float = 60.0) -> None:
        """Start the server on its port and wait until it answers."""
        status = self.folder / "server.pid"
        status.unlink(missing_ok=True)
        options = ["--watch", str(self.watch_pid), "--status", str(status), "--folder", str(self.folder)]
        options += ["--signal", str(int(self.stop_signal))]
        if self.user is not None:
            options += ["--user", self.user]
        with self.log.open("ab") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-m", "tests.servers.guard", *options, "--", *self.command],
                cwd=ROOT,
                env={
                    "PATH": os.environ["PATH"] + ":/usr/sbin",
                    "LC_ALL": "C.UTF-8",
                    "PYTHONPATH": str(ROOT),
                    **self.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.guard_pid = self._guard.pid
        try:
            wait_until(lambda: self._up(status), seconds, f"{self.command[0]} did not answer")
        except ServerError as failure:
            self._end_guard()
            raise ServerError(f"{failure}; its log ends:\n{self.log.read_text(errors='replace')[-2000:]}") from None
        self.pid = int(status.read_text())

    def _up(self, status: Path) -> bool:
        if self._guard.poll() is not None:
            raise ServerError(f"{self.command[0]} ended at once")
        return status.exists() and self.answers()

    def _processes(self) -> list[int]:
        return guard.descendants(self.guard_pid)

    def _signal(self, number: signal.Signals) -> None:
        for each in self._processes():
            with contextlib.suppress(ProcessLookupError):  # servers end their own helpers at any time
                os.kill(each, number)

    def pause(self) -> None:
        """Freeze the server with all its processes: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the server at once, without any chance to tidy up; `start` brings it back on the same port."""
        self._signal(signal.SIGKILL)
        self._await_guard()

    def stop(self) -> None:
        """End the server in good order and delete its folder."""
        self._end_guard()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_guard(self) -> None:
        if self.guard_pid and guard_runs(self.guard_pid):
            os.kill(self.guard_pid, signal.SIGTERM)
        self._await_guard()

    def _await_guard(self) -> None:
        """Wait until the guard, and with it every process of the server, is gone."""
        own = getattr(self, "_guard", None)
        wait_until(
            lambda: own.poll() is not None if own else not guard_runs(self.guard_pid), 30, "the guard did not end"
        )
        self.guard_pid = self.pid = 0


def guard_runs(pid: int) -> bool:
    """Whether that process is a guard that runs (its pid might have gone to another process)."""
    try:
        return b"tests.servers.guard" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def make_folder(kind: str, user: str | None = None) -> Path:
    """A new folder outside pytest's own (which other users may not enter), owned by that user."""
    folder = Path(tempfile.mkdtemp(prefix=f"stratograph-{kind}-"))
    if user is not None:
        shutil.chown(folder, user, user)
    return folder
