"""Locks and counters in files, shared by all xdist workers of a run: who locks a file makes the others wait."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on that file; other workers and processes wait."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def next_number(folder: Path, name: str) -> int:
    """0, 1, 2 ... counted over all processes that use that folder."""
    path = folder / f"{name}.count"
    with locked(folder / f"{name}.lock"):
        number = int(path.read_text()) if path.exists() else 0
        path.write_text(str(number + 1))
    return number
