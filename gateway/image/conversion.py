"""Turning an image file of one format into another one, by qemu-img in a cage.

Invariant: the target's name appears only once the whole result is written, inspected, hashed and on stable storage;
whatever goes wrong leaves neither it nor a temporary file. The source is inspected again before qemu-img reads its
content, so a file that was exchanged meanwhile is refused like a new one. Both formats are always named. Nothing is
decided here about when or for whom to convert, and the source is never changed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from gateway.image import inspection, qemu_img
from gateway.image.formats import GIB, MIB, TIB, ImageFormat, ImageRefused, Inspection, InspectionLimits, RefusalCode
from gateway.kernel.core import CORE

Progress = Callable[[float], None]

PARTIAL_SUFFIX: Final = ".partial"
_PERCENT: Final = re.compile(rb"\((\d{1,3}\.\d\d)/100%\)")
_PERCENT_BYTES: Final = len(b"(100.00/100%)")
_DISK_FULL: Final = ("No space left on device", "Disk quota exceeded")
_TOO_BIG: Final = ("File too large",)
_FILE_TOO_LARGE_STATUS: Final = -signal.SIGXFSZ
_HEADROOM_BYTES: Final = 64 * MIB  # tables of the target, which RLIMIT_FSIZE counts too
_NO_ROOM_BYTES: Final = MIB
_ERROR_CHARACTERS: Final = 160


class ConversionProblem(StrEnum):
    """What kind of failure a conversion met."""

    TIMEOUT = "TIMEOUT"
    TOO_BIG = "TOO_BIG"
    DISK_FULL = "DISK_FULL"
    BROKEN = "BROKEN"
    UNSUPPORTED = "UNSUPPORTED"
    TOOL_MISSING = "TOOL_MISSING"


class ConversionFailed(Exception):  # noqa: N818 - reads as a statement where it is caught
    """No target was made. ``problem`` is for programs, ``message`` a sentence for people.

    DISK_FULL and TIMEOUT may succeed when tried again elsewhere or later; the others will not.
    """

    def __init__(self, problem: ConversionProblem, message: str) -> None:
        super().__init__(f"{problem}: {message}")
        self.problem = problem
        self.message = message


@dataclass(frozen=True, slots=True)
class ConversionLimits:
    """Bounds of one conversion.

    ``max_target_bytes`` bounds the target's apparent size, so a raw target's virtual size too.
    """

    timeout_s: float = 3600.0
    memory_bytes: int = GIB
    max_target_bytes: int = 2 * TIB
    inspection: InspectionLimits = field(default_factory=InspectionLimits)


@dataclass(frozen=True, slots=True)
class Converted:
    """The finished target: sizes in bytes (``allocated_bytes`` is what it takes on the disk) and lower-case SHA-256."""

    path: Path
    format: ImageFormat
    virtual_size_bytes: int
    size_bytes: int
    allocated_bytes: int
    sha256: str


#: Options of each target: no lazy refcounts (a qcow2 that is never dirty), and for VMDK the one kind that ESXi and the
#: OVF format take, which our own inspection accepts as well.
_TARGET_OPTIONS: Final[dict[ImageFormat, list[str]]] = {
    ImageFormat.RAW: [],
    ImageFormat.QCOW2: ["-o", "compat=1.1,lazy_refcounts=off"],
    ImageFormat.VMDK: ["-o", "subformat=streamOptimized"],
    ImageFormat.VDI: [],
    ImageFormat.VHDX: ["-o", "subformat=dynamic"],
}


def convert(
    source: Path,
    source_format: ImageFormat,
    target: Path,
    target_format: ImageFormat,
    *,
    limits: ConversionLimits,
    progress: Progress | None = None,
) -> Converted:
    """Convert ``source`` to ``target``, replacing it if it exists, and answer what the target is.

    ``progress`` is called with a rising share between 0 and 1; what it raises stops the conversion and goes on.

    Raises:
        ConversionFailed: see :class:`ConversionProblem`; there is no target then.
        ImageRefused: the source is not a safe image of ``source_format``.
    """
    if target_format not in _TARGET_OPTIONS:
        raise ConversionFailed(ConversionProblem.UNSUPPORTED, f"an image cannot be converted to {target_format}")
    found = inspection.inspect(source, declared=source_format, limits=limits.inspection)
    if target_format is ImageFormat.RAW and found.virtual_size_bytes > limits.max_target_bytes:
        raise ConversionFailed(
            ConversionProblem.TOO_BIG,
            f"the disk has {found.virtual_size_bytes} bytes; the limit is {limits.max_target_bytes}",
        )
    with _partial(target) as partial:
        _run(source, found, partial, target_format, limits=limits, progress=progress)
        converted = _verify(partial, target_format, found.virtual_size_bytes, limits)
        _publish(partial, target)
    return replace(converted, path=target)


@contextlib.contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A private, empty file beside ``target``, gone afterwards unless it has become the target."""
    path = target.with_name(f"{target.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ConversionFailed(ConversionProblem.DISK_FULL, "the disk for images is full") from error
        raise


def _run(
    source: Path,
    found: Inspection,
    partial: Path,
    target_format: ImageFormat,
    *,
    limits: ConversionLimits,
    progress: Progress | None,
) -> None:
    arguments = ["convert", "-p", "-f", found.format.qemu_name, "-O", target_format.qemu_name]
    arguments += [*_TARGET_OPTIONS[target_format], qemu_img.absolute(source), qemu_img.absolute(partial)]
    bounds = qemu_img.Bounds(
        timeout_s=limits.timeout_s,
        memory_bytes=limits.memory_bytes,
        file_bytes=limits.max_target_bytes + _HEADROOM_BYTES,
    )
    try:
        outcome = qemu_img.run(arguments, bounds, _listener(progress) if progress else None)
    except qemu_img.ToolMissing as missing:
        raise ConversionFailed(ConversionProblem.TOOL_MISSING, str(missing)) from missing
    except qemu_img.RunTimedOut as late:
        raise ConversionFailed(
            ConversionProblem.TIMEOUT, f"the conversion did not end in {limits.timeout_s:g} s"
        ) from late
    if outcome.exit_status != 0:
        raise _failure(outcome, source, partial, bounds)


def _listener(progress: Progress) -> Callable[[bytes], None]:
    """Calls ``progress`` for each percentage in qemu-img's output that is higher than the one before."""
    rest, highest = b"", -1.0

    def heard(piece: bytes) -> None:
        nonlocal rest, highest
        text = rest + piece
        for percent in _PERCENT.findall(text):
            share = min(1.0, float(percent) / 100)
            if share > highest:
                highest = share
                progress(share)
        rest = text[-_PERCENT_BYTES + 1 :]  # a percentage may come in two pieces

    return heard


def _failure(
    outcome: qemu_img.Outcome, source: Path, partial: Path, bounds: qemu_img.Bounds
) -> ConversionFailed:  # fmt: skip
    error = outcome.error
    # A stream-optimised VMDK is written in order by parallel coroutines: the one behind the one that found no room
    # complains of an invalid argument instead. So look at the room itself, too.
    file_system = os.statvfs(partial.parent)
    no_room = file_system.f_bavail * file_system.f_frsize < _NO_ROOM_BYTES
    at_bound = partial.stat().st_size > bounds.file_bytes - _NO_ROOM_BYTES
    if no_room or any(text in error for text in _DISK_FULL):
        return ConversionFailed(ConversionProblem.DISK_FULL, "the disk for images is full")
    if at_bound or outcome.exit_status == _FILE_TOO_LARGE_STATUS or any(text in error for text in _TOO_BIG):
        return ConversionFailed(ConversionProblem.TOO_BIG, "the converted image is larger than the limit")
    reason = error.strip().splitlines()[-1] if error.strip() else f"exit status {outcome.exit_status}"
    for path, name in ((source, "source"), (partial, "target")):
        reason = reason.replace(qemu_img.absolute(path), name)
    reason = "".join(character for character in reason if character.isprintable())[:_ERROR_CHARACTERS]
    return ConversionFailed(ConversionProblem.BROKEN, f"qemu-img failed: {reason.removeprefix('qemu-img: ')}")


def _verify(partial: Path, target_format: ImageFormat, virtual_size_bytes: int, limits: ConversionLimits) -> Converted:
    """Look at the result as at any other file: right format, right disk size, within the bounds."""
    # A raw target is whatever its content looks like: a disk image inside a disk is the guest's business.
    if target_format is ImageFormat.RAW:
        found = Inspection(ImageFormat.RAW, partial.stat().st_size, partial.stat().st_size)
    else:
        own = replace(limits.inspection, max_expansion_ratio=2**31)  # what we packed ourselves is no bomb
        try:
            found = inspection.inspect(partial, declared=target_format, limits=own)
        except ImageRefused as refused:
            if refused.reason_code is RefusalCode.TOO_COMPLEX:
                raise ConversionFailed(ConversionProblem.TIMEOUT, refused.message) from refused
            raise ConversionFailed(ConversionProblem.BROKEN, f"the result is unsound: {refused.message}") from refused
    if found.size_bytes > limits.max_target_bytes:
        raise ConversionFailed(ConversionProblem.TOO_BIG, "the converted image is larger than the limit")
    if found.virtual_size_bytes != virtual_size_bytes:
        raise ConversionFailed(
            ConversionProblem.BROKEN, f"the result has {found.virtual_size_bytes} bytes, not {virtual_size_bytes}"
        )
    with CORE.apart(), partial.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        allocated_bytes = os.fstat(file.fileno()).st_blocks * 512
    return Converted(
        path=partial,
        format=target_format,
        virtual_size_bytes=found.virtual_size_bytes,
        size_bytes=found.size_bytes,
        allocated_bytes=allocated_bytes,
        sha256=sha256,
    )


def _publish(partial: Path, target: Path) -> None:
    """Bring content, then name, to stable storage."""
    _sync(partial)
    partial.replace(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
