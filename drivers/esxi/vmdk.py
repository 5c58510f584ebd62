"""What kind of VMDK a file is, by its header: pure reading, no conversion.

A host takes and gives disks through leases as *stream-optimized* VMDKs only: one file, grains compressed, in order.
What is not that would be refused by the host after all of it was sent, so it is refused before the first byte. The
layout is VMware's published "Virtual Disk Format 5.0".
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SECTOR_BYTES = 512
MAGIC = b"KDMV"
HEADER = struct.Struct("<4sIIQQQQIQQQBccccH")
GRAIN = struct.Struct("<QI")
COMPRESSED, MARKERS = 1 << 16, 1 << 17
DEFLATE = 1
AT_END = 0xFFFF_FFFF_FFFF_FFFF
FOOTER_BYTES = 2 * SECTOR_BYTES
ENTRY_BYTES = 4


@dataclass(frozen=True, slots=True)
class Header:
    """``streams``: whether a lease takes it. ``capacity_bytes``: the size of the disk in it. ``tables_at`` is where the
    tables begin that tell where the grains are, None when they come last; ``tables`` is how many, ``entries`` of how
    many grains each.
    """

    streams: bool
    capacity_bytes: int
    tables_at: int | None
    tables: int
    entries: int


def read(start: bytes) -> Header | None:
    """The header at the beginning of a file, None when it is no sparse VMDK."""
    if len(start) < HEADER.size or not start.startswith(MAGIC):
        return None
    fields = HEADER.unpack_from(start)
    flags, capacity, grain, entries, directory, algorithm = (fields[each] for each in (2, 3, 4, 7, 9, 16))
    if not grain or not entries:
        return None
    streams = flags & COMPRESSED != 0 and flags & MARKERS != 0 and algorithm == DEFLATE
    tables = -(-capacity // (grain * entries))
    at = None if directory == AT_END else directory * SECTOR_BYTES
    return Header(streams, capacity * SECTOR_BYTES, at, tables, entries)


def of(path: Path) -> Header | None:
    """The header of a file. Raises OSError."""
    with path.open("rb") as file:
        return read(file.read(SECTOR_BYTES))


def is_whole(path: Path) -> bool:
    """Whether a stream-optimized file has its end: a footer where the tables come last, else all grains that its tables
    tell of. Raises OSError.
    """
    with path.open("rb") as file:
        header = read(file.read(SECTOR_BYTES))
        size_bytes = os.fstat(file.fileno()).st_size
        if header is None or not header.streams or size_bytes < FOOTER_BYTES:
            return False
        if header.tables_at is None:
            file.seek(-FOOTER_BYTES, os.SEEK_END)
            tail = file.read(FOOTER_BYTES)
            return tail.startswith(MAGIC) and not tail[SECTOR_BYTES:].strip(b"\0")
        try:
            tables = _numbers(file, header.tables_at, header.tables)
            newest = max(
                (max(_numbers(file, each * SECTOR_BYTES, header.entries)) for each in tables if each), default=0
            )
        except EOFError:
            return False
        if not newest:
            return True
        file.seek(newest * SECTOR_BYTES)
        marker = file.read(GRAIN.size)
        return len(marker) == GRAIN.size and file.tell() + GRAIN.unpack(marker)[1] <= size_bytes


def _numbers(file: BinaryIO, at: int, count: int) -> tuple[int, ...]:
    """So many numbers of a table that begins at that byte. Raises EOFError when it is cut short."""
    file.seek(at)
    data = file.read(count * ENTRY_BYTES)
    if len(data) < count * ENTRY_BYTES:
        raise EOFError
    return struct.unpack(f"<{count}I", data)
