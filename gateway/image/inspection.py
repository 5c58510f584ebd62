"""Whether a file may become an image, and what it is: format, size of the disk inside, size of the file.

Invariant: what :func:`inspect` lets through refers to no other file, holds a disk within the limits, is of exactly one
format, and was opened by qemu-img, told that format, without complaint. Three opinions have to agree: oslo.utils'
format inspectors (a tested parser shared with OpenStack), our header rules (``headers``), and qemu-img in a cage
(``second_opinion``). Any surprise in a parser is a refusal, never an exception of another kind. qemu-img sees a file
only after both readings of its header found nothing that points elsewhere. Nothing is repaired or unpacked here.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from gateway.image import headers, second_opinion
from gateway.image.formats import MIB, ImageFormat, ImageRefused, Inspection, InspectionLimits, RefusalCode

__all__ = [
    "ImageFormat",
    "ImageRefused",
    "Inspection",
    "InspectionLimits",
    "RefusalCode",
    "declared_format",
    "inspect",
    "inspect_head",
]

HEAD_BYTES: Final = headers.HEAD_BYTES
#: How far into a file oslo's inspectors may ask to read; VHDX keeps its metadata a few MiB in.
_SEARCH_BYTES: Final = 64 * MIB
_TAIL_BYTES: Final = 4096
_OSLO_FORMATS: Final = {
    "raw": ImageFormat.RAW,
    "gpt": ImageFormat.RAW,  # a partition table makes a disk image no less raw
    "qcow2": ImageFormat.QCOW2,
    "vmdk": ImageFormat.VMDK,
    "vdi": ImageFormat.VDI,
    "vhdx": ImageFormat.VHDX,
    "iso": ImageFormat.ISO,
}
_SAFETY_CODES: Final = {
    "backing_file": RefusalCode.BACKING_FILE,
    "data_file": RefusalCode.EXTERNAL_DATA_FILE,
    "unknown_features": RefusalCode.UNKNOWN_FEATURE,
    "descriptor": RefusalCode.VMDK_DESCRIPTOR,
    "footer": RefusalCode.VMDK_DESCRIPTOR,
    "banned": RefusalCode.UNSUPPORTED_FORMAT,
}
#: Formats whose container says the disk's size; oslo's safety checks have something to check there.
_CONTAINERS: Final = frozenset({ImageFormat.QCOW2, ImageFormat.VMDK, ImageFormat.VDI, ImageFormat.VHDX})

# oslo logs each parser that does not match, some with the file's bytes in it. Our refusal says what matters.
logging.getLogger("oslo_utils.imageutils.format_inspector").setLevel(logging.CRITICAL)


def inspect(path: Path, *, declared: str | None, limits: InspectionLimits) -> Inspection:
    """Say what the file is, or refuse it.

    ``declared`` is the format the user named (any case), None to accept whichever is found. Takes at most
    ``info_timeout_s`` plus the check's time of ``limits``, usually a tenth of a second.

    Raises:
        ImageRefused: the file is no image we accept; its ``reason_code`` says why.
    """
    wanted = declared_format(declared)
    with _open_regular(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        _refuse_size(size_bytes, limits)
        head = os.pread(file.fileno(), HEAD_BYTES, 0)
        tail = os.pread(file.fileno(), headers.SECTOR_BYTES, max(0, size_bytes - headers.SECTOR_BYTES))
        found, inspector = _recognise(file, head, size_bytes)
        _judge_head(found, wanted, head, tail)
        headers.refuse_header(found, head, size_bytes, limits)
        if found in _CONTAINERS:
            _approve(inspector)
        if found is ImageFormat.VHDX and inspector.has_region("metadata"):
            headers.refuse_vhdx_parent(_reader(file), inspector.region("metadata").offset)
        virtual_size_bytes = _virtual_size(found, inspector, size_bytes)
    headers.refuse_virtual_size(virtual_size_bytes, limits)
    inspection = Inspection(found, virtual_size_bytes, size_bytes)
    if found in _CONTAINERS and limits.second_opinion:
        second_opinion.refuse(path, inspection, limits)
    return inspection


def inspect_head(head: bytes, *, declared: str | None, limits: InspectionLimits) -> None:
    """Refuse early, from the first bytes of an upload, what :func:`inspect` would refuse for certain at its end.

    ``head`` is the file's first MiB (``HEAD_BYTES``); with less, nothing is judged. Silence is not consent.

    Raises:
        ImageRefused: the file cannot become an image, whatever follows.
    """
    wanted = declared_format(declared)
    if len(head) < HEAD_BYTES:
        return
    head = head[:HEAD_BYTES]
    found, _inspector = _recognise(io.BytesIO(head), head, len(head))
    _judge_head(found, wanted, head, b"")
    headers.refuse_header(found, head, None, limits)


def declared_format(declared: str | None) -> ImageFormat | None:
    """The format a user named, in any case.

    Raises:
        ImageRefused: there is no such format.
    """
    if declared is None:
        return None
    try:
        return ImageFormat(declared.upper())
    except ValueError:
        known = ", ".join(ImageFormat)
        raise ImageRefused(RefusalCode.UNSUPPORTED_FORMAT, f"the declared format is not one of {known}") from None


@contextlib.contextmanager
def _open_regular(path: Path) -> Iterator[IO[bytes]]:
    """The file itself, opened without following a link or waiting for a pipe's writer."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ImageRefused(RefusalCode.NOT_A_FILE, f"the file cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageRefused(RefusalCode.NOT_A_FILE, "not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def _reader(file: IO[bytes]) -> Callable[[int, int], bytes]:
    """Reads up to so many bytes at an offset; nothing beyond the file's end, or what cannot be an offset."""

    def read(offset: int, length: int) -> bytes:
        return os.pread(file.fileno(), length, offset) if offset <= sys.maxsize - length else b""

    return read


def _refuse_size(size_bytes: int, limits: InspectionLimits) -> None:
    if size_bytes == 0:
        raise ImageRefused(RefusalCode.EMPTY, "the file is empty")
    if size_bytes > limits.max_size_bytes:
        raise ImageRefused(
            RefusalCode.TOO_BIG, f"the file has {size_bytes} bytes; the limit is {limits.max_size_bytes}"
        )


def _oslo() -> Any:
    """oslo.utils' inspectors, loaded with the first image: they are a tenth of what a start would load."""
    from oslo_utils.imageutils import format_inspector

    return format_inspector


def _recognise(file: IO[bytes], head: bytes, size_bytes: int) -> tuple[ImageFormat, Any]:
    """The one format the content has, with oslo's inspector that recognised it."""
    headers.refuse_container(head)
    try:
        inspectors = _match(file, size_bytes)
    except Exception as error:  # oslo's parsers raise whatever their input makes them raise
        raise ImageRefused(RefusalCode.CORRUPT, "the file's header cannot be read") from error
    names = {str(inspector) for inspector in inspectors}
    if names == {"iso", "gpt"}:  # a hybrid ISO, which boots from a USB stick too, is legitimate
        inspectors = [inspector for inspector in inspectors if str(inspector) == "iso"]
    elif len(names) != 1:
        raise ImageRefused(RefusalCode.POLYGLOT, f"the file is of several formats at once: {', '.join(sorted(names))}")
    inspector = inspectors[0]
    found = _OSLO_FORMATS.get(str(inspector))
    if found is None:
        raise ImageRefused(RefusalCode.UNSUPPORTED_FORMAT, f"{str(inspector).upper()} images are not supported")
    return found, inspector


def _match(file: IO[bytes], size_bytes: int) -> list[Any]:
    """Show oslo the head of the file, as much as it wants within the bound, and the tail, for formats with a footer."""
    file.seek(0)
    wrapper = _oslo().InspectWrapper(file)
    while file.tell() < min(size_bytes, _SEARCH_BYTES) and wrapper.formats is None:
        if not wrapper.read(MIB):
            break
    if size_bytes - file.tell() > 0 and wrapper.formats is None:
        file.seek(max(file.tell(), size_bytes - _TAIL_BYTES))
        wrapper.read(_TAIL_BYTES)
    # Not wrapper.close(): that would close the file as well, which belongs to the caller.
    wrapper._finish()  # noqa: SLF001
    return list(wrapper.formats or ())


def _approve(inspector: Any) -> None:
    try:
        inspector.safety_check()
    except _oslo().SafetyCheckFailed as failed:
        name, failure = next(iter(failed.failures.items()))
        code = _SAFETY_CODES.get(name, RefusalCode.UNKNOWN_FEATURE)
        raise ImageRefused(code, f"the {inspector} image is not safe: {failure}") from failed
    except Exception as error:  # an incomplete or contradictory header, by whatever exception the parser met it
        raise ImageRefused(RefusalCode.TRUNCATED, f"the {inspector} image is incomplete") from error


def _judge_head(found: ImageFormat, wanted: ImageFormat | None, head: bytes, tail: bytes) -> None:
    if found is ImageFormat.RAW:
        headers.refuse_disguised_raw(head, tail)
    if wanted is not None and wanted is not found:
        raise ImageRefused(RefusalCode.FORMAT_MISMATCH, f"the file was declared as {wanted} but is {found}")


def _virtual_size(found: ImageFormat, inspector: Any, size_bytes: int) -> int:
    """Bytes of the disk a guest will see. A raw or ISO file is its disk, in whole sectors."""
    sector = headers.SECTOR_BYTES
    if found is ImageFormat.ISO and inspector.virtual_size > size_bytes:
        raise ImageRefused(RefusalCode.TRUNCATED, "the ISO image's volume is longer than the file")
    if found not in _CONTAINERS:
        return -(-size_bytes // sector) * sector
    try:
        return int(inspector.virtual_size)
    except Exception as error:  # see _recognise
        raise ImageRefused(RefusalCode.CORRUPT, "the disk's size cannot be read") from error
