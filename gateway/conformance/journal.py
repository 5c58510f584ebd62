"""The ids that runs make things under, on disk before the host is asked, so that a run that was killed leaves a trace.

One file a run, in the operator's state folder, locked while the run lives. A later run against the same host takes
away what the files of dead runs name, and deletes each once nothing of it is left. A file holds ids and the host's
address, no secret. What a run on another machine left is not known here.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import UUID, uuid4


@dataclass(frozen=True, slots=True)
class Where:
    """The host that a run was against."""

    driver: str
    endpoint: str
    options: str

    @classmethod
    def of(cls, driver: str, endpoint: str, options: dict[str, str]) -> Where:
        """The host and the place on it; what is trusted there may change from run to run."""
        kept = {key: value for key, value in options.items() if key not in {"certificate", "ca_file", "vlan_pool"}}
        return cls(driver, endpoint, json.dumps(kept, sort_keys=True))


class Journal:
    """One run's file. ``note`` returns when the ids are safe on disk."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self.path = file, path

    def note(self, kind: str, *identities: UUID) -> None:
        """Write down that the host is about to be asked for this."""
        self._file.write(json.dumps([kind, *(str(each) for each in identities)]) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def forget(self) -> None:
        """Nothing of it is left."""
        self.path.unlink(missing_ok=True)


@contextmanager
def opened(folder: Path, where: Where) -> Iterator[Journal]:
    """A new run's file. It stays behind unless it is forgotten."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{uuid4()}.jsonl"
    with path.open("x", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps([where.driver, where.endpoint, where.options]) + "\n")
        yield Journal(file, path)


@dataclass(frozen=True, slots=True)
class Left:
    """What a dead run wrote down: each kind with its ids."""

    path: Path
    made: tuple[tuple[str, tuple[UUID, ...]], ...]


@contextmanager
def left(folder: Path, where: Where) -> Iterator[list[Left]]:
    """What dead runs against that host wrote down, held against other runs that look for the same."""
    held: list[IO[str]] = []
    found = []
    try:
        for path in sorted(folder.glob("*.jsonl")):
            held.append(path.open(encoding="utf-8"))
            try:
                fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its run lives
            lines = list(_whole(held[-1]))
            if lines[:1] == [[where.driver, where.endpoint, where.options]]:
                made = tuple((line[0], tuple(UUID(each) for each in line[1:])) for line in lines[1:])
                found.append(Left(path, made))
        yield found
    finally:
        for file in held:
            file.close()


def _whole(file: IO[str]) -> Iterator[list[str]]:
    """The lines that were written to their end."""
    for line in file:
        if line.endswith("\n"):
            yield json.loads(line)
