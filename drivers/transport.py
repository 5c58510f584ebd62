"""Disks on their way out of a host and into another: the verb pair behind migration, download and upload.

Part of the contract in drivers.api, from where everyone imports it. A disk leaves a host as a file of the worker in
whatever format that host writes best, and comes in as the first format that the driver's type names; what lies between
(a conversion by qemu-img, with both formats named) is the worker's business. A file counts only when it is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from uuid import UUID

if TYPE_CHECKING:
    from drivers.api import Deadline, DiskFormat, Volume

Progress = Callable[[int, int | None], None]
"""Told now and then how many bytes went over, and how many there will be (None: nobody knows). What it raises stops
the transfer, which then leaves nothing, and goes on to the caller.
"""


def untold(_done_bytes: int, _total_bytes: int | None) -> None:
    """The progress that nobody wants to hear of."""


@dataclass(frozen=True, slots=True)
class DiskSource:
    """Which disk leaves the host: exactly one of a volume and a snapshot."""

    volume_id: UUID | None = None
    snapshot_id: UUID | None = None

    def __post_init__(self) -> None:
        if (self.volume_id is None) == (self.snapshot_id is None):
            raise ValueError("a disk's source is either a volume or a snapshot")


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A whole disk in a file of the worker: its format, its own size, the disk's size, and its lower-case SHA-256."""

    path: Path
    format: DiskFormat
    size_bytes: int
    virtual_size_bytes: int
    sha256: str


@runtime_checkable
class DiskTransport(Protocol):
    """Brings disks out of a host and into it."""

    def export_disk(
        self, source: DiskSource, target: Path, deadline: Deadline, progress: Progress = untold
    ) -> DiskFile:  # fmt: skip
        """Write the disk to ``target``, a path of the worker where no file is (mode 0600; gone again on any error).

        The file depends on nothing, whatever the disk was built on. Raises Refused when there is no such disk, and
        while the machine that holds the volume is not off (a suspended guest's memory holds what it has not written):
        take a snapshot and export that, or stop the machine.
        """

    def import_disk(self, volume_id: UUID, file: DiskFile, deadline: Deadline, progress: Progress = untold) -> Volume:
        """Make a volume of the file's size and content, which depends on nothing. One that is there is left as it is.

        The file has the first format of :attr:`DriverType.image_formats` (a VMDK: stream-optimized) and was inspected
        or made by us. Raises Refused for another format, and when size or checksum differ; then nothing is left.
        """
