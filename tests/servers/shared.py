"""Lets all xdist workers of one test run use the same real server.

The first worker that asks starts it, under a file lock, and notes port, folder and guard in the run's temporary
folder; the others attach to it. Nobody stops it: its guard watches the xdist controller (or pytest itself) and ends
the server, and deletes its data, when that process is gone, even if it was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from tests.servers.daemon import Daemon, guard_runs


class Server(Protocol):
    """What PostgresServer, RabbitServer and RedisServer have in common."""

    port: int
    daemon: Daemon


S = TypeVar("S", bound=Server)


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder that all workers of this run share."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on that file; other workers and processes wait."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def shared(folder: Path, kind: str, create: Callable[[], S], attached: Callable[[int, Path, int], S]) -> S:
    """The run's one server of that kind, started now if it is the first time."""
    note = folder / f"{kind}.json"
    with locked(folder / f"{kind}.lock"):
        if note.exists():
            known = json.loads(note.read_text())
            if guard_runs(known["guard_pid"]):
                return attached(known["port"], Path(known["folder"]), known["guard_pid"])
        server = create()
        daemon = server.daemon
        note.write_text(json.dumps({"port": server.port, "folder": str(daemon.folder), "guard_pid": daemon.guard_pid}))
        return server


def next_number(folder: Path, name: str) -> int:
    """0, 1, 2 ... counted over all workers of this run."""
    path = folder / f"{name}.count"
    with locked(folder / f"{name}.lock"):
        number = int(path.read_text()) if path.exists() else 0
        path.write_text(str(number + 1))
    return number
