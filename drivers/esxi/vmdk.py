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

SECTOR_BYTES = 512
MAGIC = b"KDMV"
HEADER = struct.Struct("<4sIIQQQQIQQQBccccH")
COMPRESSED, MARKERS = 1 << 16, 1 << 17
DEFLATE = 1
AT_END = 0xFFFF_FFFF_FFFF_FFFF
TAIL_BYTES = 2 * SECTOR_BYTES


@dataclass(frozen=True, slots=True)
class Header:
    """``streams``: whether a lease takes it; ``footer``: whether a whole file ends with a copy of this header."""

    streams: bool
    footer: bool
    capacity_bytes: int


def read(start: bytes) -> Header | None:
    """The header at the beginning of a file, None when it is no sparse VMDK."""
    if len(start) < HEADER.size or not start.startswith(MAGIC):
        return None
    fields = HEADER.unpack_from(start)
    flags, capacity, table, algorithm = fields[2], fields[3], fields[9], fields[16]
    streams = flags & COMPRESSED != 0 and flags & MARKERS != 0 and algorithm == DEFLATE
    return Header(streams, table == AT_END, capacity * SECTOR_BYTES)


def of(path: Path) -> Header | None:
    """The header of a file. Raises OSError."""
    with path.open("rb") as file:
        return read(file.read(SECTOR_BYTES))


def is_whole(path: Path) -> bool:
    """Whether a stream-optimized file has its end: what broke off half-way has no footer. Raises OSError."""
    with path.open("rb") as file:
        header = read(file.read(SECTOR_BYTES))
        size_bytes = os.fstat(file.fileno()).st_size
        if header is None or not header.streams or size_bytes % SECTOR_BYTES or size_bytes < 2 * TAIL_BYTES:
            return False
        file.seek(-TAIL_BYTES, os.SEEK_END)
        tail = file.read(TAIL_BYTES)
    ended = not tail[SECTOR_BYTES:].strip(b"\0")
    return ended and (not header.footer or tail.startswith(MAGIC))
