"""Processes under measurement: a gateway, a worker or the limit server, started for one bench and ended by its pid.

CPU is user plus system time of the process from /proc, memory its VmRSS and Pss. Nothing here needs a package beyond
the standard library, so that measuring costs the machine little.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.kernel.settings import Settings
from tests.servers.daemon import ROOT, ServerError
from tests.servers.guard import descendants

_TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 90.0
PROGRAM = str(Path(sys.executable).with_name("stratograph"))


@dataclass(slots=True)
class Measured:
    """A process that runs. ``started_s`` is the time from exec until ready, ``start_cpu_ms`` its CPU until then."""

    popen: subprocess.Popen[bytes]
    log: Path
    started_s: float = 0.0
    start_cpu_ms: float = 0.0

    @property
    def cpu_ms(self) -> float:
        """CPU used so far, in milliseconds (a resolution of one tick, ten of them)."""
        return cpu_ms(self.popen.pid)

    @property
    def rss_mib(self) -> float:
        """Resident memory."""
        return _kib(Path(f"/proc/{self.popen.pid}/status"), "VmRSS:") / 1024

    @property
    def pss_mib(self) -> float:
        """Memory, with what is shared counted in proportion."""
        return _kib(Path(f"/proc/{self.popen.pid}/smaps_rollup"), "Pss:") / 1024

    def stop(self) -> None:
        """End it in good order."""
        self.popen.terminate()
        try:
            self.popen.wait(20)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(20)


def cpu_ms(pid: int) -> float:
    """CPU of one process, in milliseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS


def tree_cpu_ms(pid: int) -> float:
    """CPU of a process's descendants that still run (a PostgreSQL and its backends, say)."""
    total = 0.0
    for each in descendants(pid):
        try:
            total += cpu_ms(each)
        except OSError:  # it ended between the two looks
            continue
    return total


def start(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Measured:
    """Start a Python program of ours (``argv`` are the interpreter's arguments). It keeps compiled modules, as is usual
    and as an installed package has them: compiling ours anew takes half a second.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("STRATOGRAPH_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    with log.open("ab") as out:
        popen = subprocess.Popen(
            [sys.executable, *argv], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env={**inherited, **environment},
        )  # fmt: skip
    return Measured(popen, log)


def serve(environment: Mapping[str, str], log: Path) -> Measured:
    """A gateway that answers ``/readyz``. ``environment`` has STRATOGRAPH_LISTEN."""
    began = time.monotonic()
    process = start((PROGRAM, "serve"), environment, log)
    await_url(process, f"http://{environment['STRATOGRAPH_LISTEN']}/readyz")
    process.started_s = time.monotonic() - began
    process.start_cpu_ms = process.cpu_ms
    return process


def worker(environment: Mapping[str, str], log: Path) -> Measured:
    """A worker that says it is ready."""
    began = time.monotonic()
    process = start((PROGRAM, "worker"), environment, log)
    await_line(process, "workers are ready")
    process.started_s = time.monotonic() - began
    process.start_cpu_ms = process.cpu_ms
    return process


def await_line(process: Measured, text: str) -> None:
    """Return when the log has the text. Raises ServerError with the end of the log."""
    deadline = time.monotonic() + START_SECONDS
    while text not in process.log.read_text(errors="replace"):
        _check(process, deadline)
        time.sleep(0.01)


def await_url(process: Measured, url: str) -> None:
    """Return when the URL answers 200. Raises ServerError with the end of the log."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - a URL of the loopback address
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            _check(process, deadline)
            time.sleep(0.01)


def _check(process: Measured, deadline: float) -> None:
    if process.popen.poll() is not None or time.monotonic() > deadline:
        process.popen.kill()
        raise ServerError(f"it did not start; its log ends:\n{process.log.read_text(errors='replace')[-3000:]}")


def _kib(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ServerError(f"{path} has no {name}")


def settings(given: Settings, port: int, **more: object) -> dict[str, str]:
    """The environment of a process of ours on this state directory and database; ``more`` are further settings."""
    named = {
        "state_dir": given.state_dir, "database_url": given.database, "listen": f"127.0.0.1:{port}", "drivers": "sim",
        "admin_password": "a-password-of-the-admin", "log_format": "json", "log_level": "INFO", "rate_limit": 0, **more,
    }  # fmt: skip
    return {f"STRATOGRAPH_{name.upper()}": str(value) for name, value in named.items()}
