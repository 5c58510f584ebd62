"""Where image files live: one directory, one file per image and format, and one partial file per upload.

``<uid>.upload`` grows by appending at exactly its own length; ``<uid>.<format>`` appears complete, synced and at once,
and is never written again. Invariants: at most one writer per upload (a file lock, so across processes, and gone with
its holder); an offset that was acknowledged is on stable storage; an append that fails for lack of space or for size
leaves the upload as long as it found it. Memory stays bounded by one chunk. Long runs of zeros become holes.

The hash of an upload that came in one piece is known when it ends; one that came in several pieces, or over a restart,
is hashed once when it is finished, so no hash state has to survive anything. What a file *is* is not judged here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from gateway.image.formats import MIB, TIB, ImageFormat
from gateway.image.upload import (
    CHUNK_BYTES,
    FULL_ERRORS,
    AlreadyStored,
    Digest,
    NotStored,
    RangeRefused,
    StoreFull,
    StoreProblem,
    Upload,
    UploadBusy,
    UploadTooLarge,
    WrongOffset,
    converting_full,
    file_sha256,
    locked,
    sync,
)

__all__ = [
    "AlreadyStored",
    "Candidate",
    "Content",
    "Digest",
    "Entry",
    "ImageStore",
    "NotStored",
    "RangeRefused",
    "StoreFull",
    "StoreProblem",
    "Stored",
    "Upload",
    "UploadBusy",
    "UploadTooLarge",
    "WrongOffset",
]

UPLOAD_SUFFIX: Final = "upload"
CHECKSUM_SUFFIX: Final = ".sha256"
_FORMATS: Final = {one.suffix: one for one in ImageFormat}


@dataclass(frozen=True, slots=True)
class Stored:
    """A finished image file: its size in bytes and lower-case SHA-256."""

    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the store. ``format`` is None for an upload; ``modified_at`` is seconds since the epoch."""

    uid: UUID
    format: ImageFormat | None
    path: Path
    size_bytes: int
    modified_at: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """An upload that is about to become an image's file; nobody writes it meanwhile."""

    store: ImageStore
    uid: UUID
    path: Path
    descriptor: int

    def sha256(self, known: Digest | None = None) -> str:
        """Lower-case SHA-256; ``known`` spares reading the file if it is of this very file, unchanged."""
        if known is not None and known == Digest.of(self.descriptor, known.sha256):
            return known.sha256
        return file_sha256(self.descriptor)

    def publish(self, image_format: ImageFormat, sha256: str | None = None) -> Stored:
        """Give the upload the name of the image's file of this format, at once and for good.

        Raises:
            AlreadyStored: there is such a file.
        """
        target = self.store.path(self.uid, image_format)
        if target.exists():
            raise AlreadyStored(f"{self.uid} has a {image_format} file already")
        sha256 = sha256 or file_sha256(self.descriptor)
        os.fsync(self.descriptor)
        self.path.replace(target)
        sync(self.store.root)
        return Stored(target, os.fstat(self.descriptor).st_size, sha256)


@dataclass(frozen=True, slots=True)
class ImageStore:
    """The directory ``root``; ``keep_free_bytes`` of its file system are never filled by uploads."""

    root: Path
    max_size_bytes: int = 2 * TIB
    keep_free_bytes: int = 256 * MIB

    def prepare(self) -> None:
        """Make the directory, readable for its owner only."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def upload_path(self, uid: UUID) -> Path:
        """Where the upload of this image is, or would be."""
        return self.root / f"{uid}.{UPLOAD_SUFFIX}"

    def path(self, uid: UUID, image_format: ImageFormat) -> Path:
        """Where the image's file of this format is, or would be."""
        return self.root / f"{uid}.{image_format.suffix}"

    @staticmethod
    def checksum_path(path: Path) -> Path:
        """Where the SHA-256 of a file that was made here is noted. It goes with the file."""
        return path.with_name(f"{path.name}{CHECKSUM_SUFFIX}")

    def received(self, uid: UUID) -> int | None:
        """How many bytes of the upload are here, None if none was begun."""
        try:
            return self.upload_path(uid).stat().st_size
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def writing(
        self, uid: UUID, offset: int, *, max_size_bytes: int | None = None, expected_bytes: int = 0
    ) -> Iterator[Upload]:
        """The upload, locked and open for appending at ``offset`` bytes; begun if offset is 0 and there is none.

        ``max_size_bytes`` can only lower the store's own limit; ``expected_bytes``, if known, are looked for on the
        file system before the first is written. On leaving, what was written is on stable storage; after StoreFull or
        UploadTooLarge it is taken back.

        Raises:
            WrongOffset, UploadBusy, StoreFull, UploadTooLarge.
        """
        limit = self.max_size_bytes if max_size_bytes is None else min(self.max_size_bytes, max_size_bytes)
        with converting_full(), locked(self.upload_path(uid), create=True) as descriptor:
            upload = Upload(
                descriptor, self.upload_path(uid), max_size_bytes=limit, keep_free_bytes=self.keep_free_bytes
            )
            try:
                try:
                    upload.begin(offset, expected_bytes)
                    yield upload
                finally:
                    upload.settle()
            except (StoreProblem, OSError) as error:
                if isinstance(error, StoreProblem) or error.errno in FULL_ERRORS:
                    upload.take_back()
                raise

    def append(
        self, uid: UUID, offset: int, chunks: Iterable[bytes], *, max_size_bytes: int | None = None
    ) -> int:  # fmt: skip
        """Append ``chunks`` at ``offset`` and answer the upload's new size in bytes. Errors as :meth:`writing`.

        If ``chunks`` raises, what came before is kept and counts.
        """
        with self.writing(uid, offset, max_size_bytes=max_size_bytes) as upload:
            for chunk in chunks:
                upload.write(chunk)
            return upload.size_bytes

    @contextlib.contextmanager
    def finishing(self, uid: UUID) -> Iterator[Candidate]:
        """The upload, locked, so that what is judged is what gets published.

        Raises:
            NotStored: there is no upload.
            UploadBusy: it is still being written.
        """
        path = self.upload_path(uid)
        try:
            with locked(path, create=False) as descriptor:
                yield Candidate(self, uid, path, descriptor)
        except FileNotFoundError:
            raise NotStored(f"nothing was uploaded for {uid}") from None

    def finish(self, uid: UUID, image_format: ImageFormat) -> Stored:
        """Turn the upload into the image's file of this format without judging it. Errors as :meth:`finishing`."""
        with self.finishing(uid) as candidate:
            return candidate.publish(image_format)

    def stored(self, uid: UUID) -> list[ImageFormat]:
        """In which formats the image has a finished file."""
        return [one for one in ImageFormat if self.path(uid, one).exists()]

    def open_range(self, uid: UUID, image_format: ImageFormat, start: int = 0, end: int | None = None) -> Content:
        """The bytes from ``start`` up to, not including, ``end`` (None: the file's end) of a finished file.

        Raises:
            NotStored, RangeRefused.
        """
        try:
            descriptor = os.open(self.path(uid, image_format), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotStored(f"{uid} has no {image_format} file") from None
        size_bytes = os.fstat(descriptor).st_size
        end = size_bytes if end is None else end
        if not 0 <= start <= end <= size_bytes:
            os.close(descriptor)
            raise RangeRefused(size_bytes)
        return Content(descriptor, size_bytes, start, end)

    def abandon(self, uid: UUID) -> bool:
        """Remove the upload, not what was finished before; False if there was none."""
        removed = _unlink(self.upload_path(uid))
        if removed:
            sync(self.root)
        return removed

    def remove(self, uid: UUID, image_format: ImageFormat | None = None) -> int:
        """Remove the file of one format, or all files of the image, its upload too. Answers how many there were."""
        if image_format is not None:
            paths = [self.path(uid, image_format)]
        else:
            paths = [self.upload_path(uid), *(self.path(uid, one) for one in ImageFormat)]
        removed = sum(_unlink(path) for path in paths)
        for path in paths:
            _unlink(self.checksum_path(path))
        if removed:
            sync(self.root)
        return removed

    def entries(self) -> Iterator[Entry]:
        """Every upload and finished file, in no order. Files of other names are :meth:`orphans`' business."""
        for path in self._files():
            uid, suffix = _parse(path)
            if uid is None or (suffix != UPLOAD_SUFFIX and suffix not in _FORMATS):
                continue
            with contextlib.suppress(FileNotFoundError):  # removed while we look
                status = path.stat()
                yield Entry(uid, _FORMATS.get(suffix), path, status.st_size, status.st_mtime)

    def orphans(self, known: Collection[UUID], *, untouched_since: float) -> list[Path]:
        """Files last written before ``untouched_since`` (epoch seconds) which nobody can want any more.

        That is whatever belongs to no uid in ``known``, and temporary files that a killed conversion left behind.
        """
        found = []
        for path in self._files():
            uid, suffix = _parse(path)
            told = path.with_name(path.name.removesuffix(CHECKSUM_SUFFIX))  # itself, when it is no checksum
            plain = suffix.removesuffix(CHECKSUM_SUFFIX)
            wanted = uid in known and (suffix == UPLOAD_SUFFIX or (plain in _FORMATS and told.exists()))
            with contextlib.suppress(FileNotFoundError):
                if not wanted and path.stat().st_mtime < untouched_since:
                    found.append(path)
        return sorted(found)

    def discard(self, orphan: Path) -> bool:
        """Remove one of :meth:`orphans`; False if it was gone already."""
        if orphan.parent != self.root:
            raise NotStored(f"{orphan.name} is no file of this store")
        return _unlink(orphan)

    def free_bytes(self) -> int:
        """Bytes that uploads may still take."""
        status = os.statvfs(self.root)
        return max(0, status.f_bavail * status.f_frsize - self.keep_free_bytes)

    def _files(self) -> Iterator[Path]:
        with os.scandir(self.root) as entries:
            yield from [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]


class Content:
    """A part of a finished file, to be iterated once; its end, ``close`` or leaving a ``with`` closes the file."""

    def __init__(self, descriptor: int, size_bytes: int, start: int, end: int) -> None:
        self._file = os.fdopen(descriptor, "rb", buffering=0)
        self.size_bytes = size_bytes
        self.start = start
        self.end = end

    def __iter__(self) -> Iterator[bytes]:
        position = self.start
        with self._file as file:
            while position < self.end:
                chunk = os.pread(file.fileno(), min(CHUNK_BYTES, self.end - position), position)
                if not chunk:
                    raise NotStored("the file became shorter while it was read")
                position += len(chunk)
                yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, read or not."""
        self._file.close()


def _parse(path: Path) -> tuple[UUID | None, str]:
    """The image's uid, if the name begins with one, and the rest of the name after the first dot."""
    name, _, suffix = path.name.partition(".")
    try:
        return UUID(name), suffix
    except ValueError:
        return None, suffix


def _unlink(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True
