"""The console log: what virtlogd wrote into the pool, read through libvirt's download stream.

virtlogd starts a new file at 2 MiB and keeps the one before as ``.log.0``; both are read when the newest is shorter
than what was asked for. Older ones are not.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from drivers.api import Capability, Deadline
from drivers.kvm import files
from drivers.kvm.errors import told
from drivers.kvm.link import Link
from drivers.kvm.names import PoolFile


def tail(link: Link, machine_id: UUID, max_bytes: int, deadline: Deadline) -> bytes:
    """The newest ``max_bytes`` bytes; empty when there is no log."""
    newest_first: list[bytes] = []
    left = max_bytes
    with told(f"reading the console log of {machine_id}", Capability.CONSOLE_LOG):
        where = files.pool(link, deadline)
        for extension in ("log", "log.0"):
            piece = _tail(where, PoolFile("console", machine_id, extension), left, deadline)
            newest_first.append(piece)
            left -= len(piece)
    return b"".join(reversed(newest_first))


def _tail(where: Any, file: PoolFile, max_bytes: int, deadline: Deadline) -> bytes:
    volume = files.look_up(where, file)
    sizes = files.info(volume) if volume is not None else None
    if volume is None or sizes is None or max_bytes <= 0:
        return b""
    length = min(max_bytes, sizes[0])
    if not length:
        return b""
    return files.download(volume, sizes[0] - length, length, deadline)
