"""An image's file as a host's driver takes it: its own, or a variant made of it, once, and checked each time.

A variant lies beside the image in the store, under the format's name, with its SHA-256 in a file beside it. Whoever
needs it first makes it and the others wait; one whose content is not what was noted is made anew, so a disk that rots
is noticed here and not by a guest. The collector removes variants that nobody wanted for long (collect.py).
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from drivers.api import DiskFormat, DriverType, ImageSpec, Refused, Transient
from gateway.image import conversion, reception
from gateway.image.conversion import ConversionFailed, ConversionLimits, ConversionProblem
from gateway.image.formats import ImageFormat, ImageRefused
from gateway.image.image import Image
from gateway.image.store import ImageStore
from gateway.image.upload import file_sha256
from gateway.kernel.settings import Settings

WAIT_S: Final = 3600.0
LOOK_AGAIN_S: Final = 0.2
SHA256: Final = re.compile(r"[0-9a-f]{64}")
LOCK_SUFFIX: Final = ".lock"
STREAM: Final = "stream.vmdk"
"""The name of a VMDK made of a VMDK: uploads may be sparse ones, which hosts take no disk from."""
_VMDK: Final = struct.Struct("<4sII")
_STREAM_FLAGS: Final = 0x30000  # compressed grains, and markers between them
_MAY_MEND: Final = frozenset({ConversionProblem.DISK_FULL, ConversionProblem.TIMEOUT})


def of(settings: Settings, image: Image, kind: DriverType) -> ImageSpec:
    """The image as ``kind`` takes it. Raises Refused when it cannot be made so, FileNotFoundError when it is gone."""
    kept, own = reception.store_of(settings), image.format
    if own is None:
        raise AssertionError("an ACTIVE image has a format")
    takes = [ImageFormat(each.value) for each in kind.image_formats]
    source = kept.path(image.uid, own)
    if own in takes and not (own is takes[0] is ImageFormat.VMDK and not is_stream(source)):
        return _spec(image, source, own, image.sha256 or "")
    target = takes[0]
    path = kept.path(image.uid, target) if target is not own else kept.root / f"{image.uid}.{STREAM}"
    with _alone(path):
        sha256 = _noted(path)
        if sha256 is None:
            sha256 = _make(settings, source, own, path, target)
            _note(path, sha256)
        os.utime(path)  # it is wanted: it shall not be collected now
    return _spec(image, path, target, sha256)


def is_stream(path: Path) -> bool:
    """Whether a VMDK is a stream-optimized one. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_VMDK.size)
    return len(head) == _VMDK.size and _VMDK.unpack(head)[2] & _STREAM_FLAGS == _STREAM_FLAGS


def _spec(image: Image, path: Path, image_format: ImageFormat, sha256: str) -> ImageSpec:
    return ImageSpec(
        id=image.uid,
        path=path,
        format=DiskFormat(image_format.value),
        size_bytes=path.stat().st_size,
        virtual_size_bytes=image.virtual_size_bytes or 0,
        sha256=sha256,
    )


def _make(settings: Settings, source: Path, own: ImageFormat, path: Path, target: ImageFormat) -> str:
    limits = ConversionLimits(max_target_bytes=settings.max_virtual_gib << 30)
    try:
        return conversion.convert(source, own, path, target, limits=limits).sha256
    except ConversionFailed as error:
        kind = Transient if error.problem in _MAY_MEND else Refused
        raise kind(f"the image cannot be converted to {target.value}: {error.message}") from error
    except ImageRefused as refused:
        if not source.exists():
            raise FileNotFoundError(source) from refused
        raise Refused(f"the image's file is not sound any more: {refused.message}") from refused


def _noted(path: Path) -> str | None:
    """The variant's SHA-256 when its content is still what was noted, None when it has to be made."""
    try:
        noted = ImageStore.checksum_path(path).read_text().strip()
        with path.open("rb") as file:
            return noted if SHA256.fullmatch(noted) and file_sha256(file.fileno()) == noted else None
    except FileNotFoundError:
        return None


def _note(path: Path, sha256: str) -> None:
    note = ImageStore.checksum_path(path)
    partial = note.with_name(f"{note.name}.partial")
    partial.write_text(f"{sha256}\n")
    partial.replace(note)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold that nobody else, in whatever process, makes this variant. Raises Transient when that takes too long."""
    lock = path.with_name(f"{path.name}{LOCK_SUFFIX}")
    until = time.monotonic() + WAIT_S
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Transient("another worker is converting the image") from None
                time.sleep(LOOK_AGAIN_S)
        yield
    finally:
        lock.unlink(missing_ok=True)  # who waits has it open; at worst two make the same, and the last one counts
        os.close(descriptor)
