"""Disks as files of the worker: taken out of a host, and converted from format to format by qemu-img in its cage.

What leaves a host is the host's word, so a conversion looks at it as at anything from outside, and both formats are
named. Each transfer tells about once a second how far it is, and stops when its job is cancelled.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from drivers.api import Capability as DriverCapability
from drivers.api import (
    Deadline,
    DiskFile,
    DiskFormat,
    DiskSource,
    DiskTransport,
    Driver,
    HostAtFault,
    Refused,
    Transient,
    Unsupported,
)
from gateway.image import conversion
from gateway.image.conversion import ConversionFailed, ConversionLimits, ConversionProblem
from gateway.image.formats import ImageFormat, ImageRefused, InspectionLimits
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, StepStatus
from gateway.kernel import errors
from workers.reach import call
from workers.saga import Run

CARRY_S = 24 * 3600.0
TELL_EVERY_S = 1.0
_PASSING = (ConversionProblem.DISK_FULL, ConversionProblem.TIMEOUT)


def transport(driver: Driver) -> DiskTransport:
    """The driver's verbs for disks on their way. Raises the driver's Unsupported."""
    if not isinstance(driver, DiskTransport):
        raise Unsupported(DriverCapability.DISK_TRANSPORT, "this host cannot hand disks out or take them in")
    return driver


def take_out(run: Run, host_id: int, source: DiskSource, target: Path) -> DiskFile:
    """The disk in a new file at ``target``, which replaces what an earlier try left there."""
    told = Teller(run, f"Taking disk {source.volume_id or source.snapshot_id} out of its host")

    def work(driver: Driver, deadline: Deadline) -> DiskFile:
        return transport(driver).export_disk(source, target, deadline, told)

    target.unlink(missing_ok=True)
    try:
        file: DiskFile = call(run, host_id, work, seconds=CARRY_S)
    except HostAtFault as error:
        # Another host would not help against the one that the disk is on.
        raise Transient(error.reason, vendor_code=error.vendor_code) from error
    return file


def converted(run: Run, file: DiskFile, wanted: DiskFormat, target: Path) -> DiskFile:
    """The same disk as a file of that format; the very same file when it is one already."""
    if file.format is wanted:
        return file
    largest = max(file.virtual_size_bytes, run.settings.max_virtual_gib << 30)
    limits = ConversionLimits(
        timeout_s=CARRY_S,
        max_target_bytes=largest,
        inspection=InspectionLimits(max_virtual_size_bytes=largest, max_size_bytes=max(2 * largest, 1 << 41)),
    )
    told = Teller(run, f"Converting from {file.format.value} to {wanted.value}")
    try:
        found = conversion.convert(
            file.path,
            ImageFormat(file.format.value),
            target,
            ImageFormat(wanted.value),
            limits=limits,
            progress=lambda share: told(round(share * 100), 100),
        )
    except ConversionFailed as error:
        kind = Transient if error.problem in _PASSING else Refused
        raise kind(f"a disk could not be converted to {wanted.value}: {error.message}") from error
    except ImageRefused as error:
        raise Refused(f"what the host handed out is no {file.format.value} disk: {error.message}") from error
    if found.virtual_size_bytes != file.virtual_size_bytes and wanted is not DiskFormat.RAW:
        raise Refused(f"the disk had {file.virtual_size_bytes} bytes and has {found.virtual_size_bytes} converted")
    return DiskFile(found.path, wanted, found.size_bytes, found.virtual_size_bytes, found.sha256)


class Teller:
    """Tells about once a second how far a transfer is, and stops it when the job is to stop. ``what`` may change."""

    def __init__(self, run: Run, what: str) -> None:
        self._run = run
        self.what = what
        self._next = time.monotonic() + TELL_EVERY_S
        with run.read() as session:
            self._attempt = session.get_one(Job, run.job_id).attempt

    def __call__(self, done: int, total: int | None) -> None:
        """As :data:`drivers.api.Progress`."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + TELL_EVERY_S
        share = f" ({100 * done // total} %)" if total else ""
        self._run.db.run(lambda session: self._tell(session, f"{self.what}{share}."))

    def _tell(self, session: Any, message: str) -> None:
        job = jobs.held(session, self._run.job_id, self._attempt)
        if job.cancel_requested:
            raise errors.Cancelled("The job was cancelled.")
        steps = [replace(each, message=message) if each.status is StepStatus.RUNNING else each for each in job.told]
        jobs.write_steps(job, steps)
