"""What a simulated host reads of a disk's file: the same checksum, whatever of the file is a hole."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from drivers.api import Deadline
from drivers.sim.transport import MARK, _read

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("size_bytes", "written"),
    [
        (0, {}),
        (10, {}),
        (10, {0: b"0123456789"}),
        (MIB, {}),
        (MIB, {0: MARK + b"name\n"}),
        (MIB, {0: b"begin", 900_000: b"x"}),
        (MIB, {MIB - 1: b"x"}),
        (MIB, {4096: b"x"}),
        (9 * MIB, {0: bytes(4096)}),
        (9 * MIB, {0: bytes(9 * MIB)}),
        (9 * MIB, {0: b"x" * 9 * MIB}),
    ],
)
def test_a_file_is_read_as_it_is(tmp_path: Path, size_bytes: int, written: dict[int, bytes]) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for at, content in written.items():
            file.seek(at)
            file.write(content)
    told: list[tuple[int, int | None]] = []
    content = path.read_bytes()
    found = _read(path, Deadline(30), lambda done, of: told.append((done, of)))
    assert found == (hashlib.sha256(content).hexdigest(), content.count(0) == size_bytes)
    assert told[-1:] == [(size_bytes, size_bytes)] or size_bytes == 0
