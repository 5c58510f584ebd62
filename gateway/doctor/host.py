"""Examines what the gateway's own process stands on: Python, SQLite, disk, memory, clock and address.

Read-only but for one bound-and-released socket; nothing is left behind.
"""

from __future__ import annotations

import http.client
import os
import platform
import shutil
import socket
import sqlite3
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from gateway.doctor.report import Finding, broken, missing, ok

OLDEST_SQLITE = (3, 35, 0)  # RETURNING
LEAST_DISK_BYTES = 2 * 2**30
LEAST_RAM_BYTES = 512 * 2**20


def python() -> Finding:
    """The interpreter that runs this."""
    detail = (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    )
    if sys.version_info < (3, 11):  # noqa: UP036 - the doctor is the one to say so
        return broken("python", detail, "install Python 3.11 or newer and run `make setup` again", required=True)
    return ok("python", detail, required=True)


def sqlite() -> Finding:
    """The SQLite library inside that interpreter."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        return broken("sqlite", sqlite3.sqlite_version, f"use a Python with SQLite {wanted} or newer", required=True)
    return ok("sqlite", sqlite3.sqlite_version, required=True)


def disk(state_dir: Path) -> Finding:
    """Room under the state directory, and the right to write there."""
    nearest = next(each for each in (state_dir.absolute(), *state_dir.absolute().parents) if each.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        return broken(
            "disk", f"{nearest} cannot be written", "set STRATOGRAPH_STATE_DIR to a folder of yours", required=True
        )
    free = shutil.disk_usage(nearest).free
    detail = f"{free / 2**30:.1f} GiB free in {nearest}"
    if free < LEAST_DISK_BYTES:
        return broken("disk", detail, "free some space, or set STRATOGRAPH_STATE_DIR to a larger disk", required=True)
    return ok("disk", detail, required=True)


def available_ram_bytes() -> int:
    """Memory that new processes could have, in bytes."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def ram() -> Finding:
    """Free memory."""
    free = available_ram_bytes()
    detail = f"{free / 2**30:.1f} GiB available"
    if free < LEAST_RAM_BYTES:
        return broken(
            "memory", detail, "end other programs: the gateway needs 0.5 GiB, and each guest its own", required=True
        )
    return ok("memory", detail, required=True)


def clock() -> Finding:
    """A clock that is not before this very program was written: tokens and leases depend on it."""
    now, written = time.time(), Path(__file__).stat().st_mtime
    detail = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now < written - 86_400:
        return broken(
            "clock",
            f"{detail}, before this program was installed",
            "set the clock (timedatectl set-ntp true)",
            required=True,
        )
    return ok("clock", detail, required=True)


def address(listen: str) -> Finding:
    """Whether the gateway's address can be listened on, or a gateway is there already."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if answers_health(host, int(port)):
                return ok("address", f"a gateway answers on {listen}", required=True)
            return broken(
                "address", f"{listen}: {error.strerror}", "set STRATOGRAPH_LISTEN to a free host:port", required=True
            )
    return ok("address", f"{listen} is free", required=True)


def answers_health(host: str, port: int) -> bool:
    """Whether something answers /healthz there as a gateway does."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def driver(kind: str, lack: str | None) -> Finding:
    """A driver, by what it says of itself: None when everything it needs is there, else what is missing."""
    if lack is None:
        return ok(f"driver {kind}", "ready")
    return missing(f"driver {kind}", lack, f"give it what it lacks, or leave {kind.lower()} out of STRATOGRAPH_DRIVERS")
