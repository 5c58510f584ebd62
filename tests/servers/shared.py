"""Lets all xdist workers of one test run use the same real server.

The first worker that asks starts it, under a file lock, and notes port, folder and guard in the run's temporary
folder; the others attach to it. Nobody stops it: its guard watches the xdist controller (or pytest itself) and ends
the server, and deletes its data, when that process is gone, even if it was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from tests.servers.counter import locked
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
