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
import errno
import fcntl
import hashlib
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from uuid import UUID

from gateway.image.formats import MIB, TIB, ImageFormat

CHUNK_BYTES: Final = MIB
UPLOAD_SUFFIX: Final = "upload"
_SPACE_CHECK_BYTES: Final = 64 * MIB
_ZEROS: Final = bytes(CHUNK_BYTES)
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORMATS: Final = {one.suffix: one for one in ImageFormat}


class StoreProblem(Exception):  # noqa: N818 - the root of the store's answers, caught but never raised
    """What the store may answer instead of doing what it was asked."""


class StoreFull(StoreProblem):
    """There is no room. The upload is as long as it was before this append."""


class UploadTooLarge(StoreProblem):
    """More bytes than allowed were sent. ``max_size_bytes`` is the limit."""

    def __init__(self, max_size_bytes: int) -> None:
        super().__init__(f"an image file may have at most {max_size_bytes} bytes")
        self.max_size_bytes = max_size_bytes


class UploadBusy(StoreProblem):
    """Another request is writing this upload, or finishing it, just now."""


class WrongOffset(StoreProblem):
    """An append did not begin where the upload ends. ``current`` is the offset, in bytes, it has to begin at."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"the upload continues at byte {current}, not {asked}")
        self.asked = asked
        self.current = current


class NotStored(StoreProblem):
    """There is no such file."""


class AlreadyStored(StoreProblem):
    """The image has a finished file of this format, which nothing may replace."""


class RangeRefused(StoreProblem):
    """The range does not lie within the file. ``size_bytes`` is the file's size."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"the range does not lie within the file's {size_bytes} bytes")
        self.size_bytes = size_bytes


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
        with _space(), _locked(self.upload_path(uid), create=True) as descriptor:
            upload = Upload(self, descriptor, self.upload_path(uid), limit)
            try:
                try:
                    upload.begin(offset, expected_bytes)
                    yield upload
                finally:
                    upload.settle()
            except (StoreProblem, OSError) as error:
                if isinstance(error, StoreProblem) or error.errno in _FULL:
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

    def finish(self, uid: UUID, image_format: ImageFormat, *, sha256: str | None = None) -> Stored:
        """Turn the upload into the image's file of this format, at once and for good. Doing it twice equals once.

        ``sha256`` spares reading the file if :attr:`Upload.sha256` told it.

        Raises:
            NotStored: there is neither an upload nor a finished file.
            UploadBusy: the upload is still being written.
            AlreadyStored: there are both.
        """
        upload, target = self.upload_path(uid), self.path(uid, image_format)
        with contextlib.suppress(FileNotFoundError), _locked(upload, create=False) as descriptor:
            if target.exists():
                raise AlreadyStored(f"{uid} has a {image_format} file already")
            sha256 = sha256 or _sha256(descriptor)
            os.fsync(descriptor)
            upload.replace(target)
            self._sync()
        try:
            descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotStored(f"nothing was uploaded for {uid}") from None
        try:
            return Stored(target, os.fstat(descriptor).st_size, sha256 or _sha256(descriptor))
        finally:
            os.close(descriptor)

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

    def remove(self, uid: UUID, image_format: ImageFormat | None = None) -> int:
        """Remove the file of one format, or all files of the image, its upload too. Answers how many there were."""
        if image_format is not None:
            paths = [self.path(uid, image_format)]
        else:
            paths = [self.upload_path(uid), *(self.path(uid, one) for one in ImageFormat)]
        removed = sum(_unlink(path) for path in paths)
        if removed:
            self._sync()
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
            wanted = uid in known and (suffix == UPLOAD_SUFFIX or suffix in _FORMATS)
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

    def _sync(self) -> None:
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Upload:
    """An upload being written, handed out locked by :meth:`ImageStore.writing`. Not for several threads at once."""

    def __init__(self, store: ImageStore, descriptor: int, path: Path, max_size_bytes: int) -> None:
        self._store = store
        self._descriptor = descriptor
        self._path = path
        self._max_size_bytes = max_size_bytes
        self._began_at = os.fstat(descriptor).st_size
        self._unchecked_bytes = 0
        self._hash = hashlib.sha256() if self._began_at == 0 else None
        self._gone = False
        self.size_bytes = self._began_at

    @property
    def sha256(self) -> str | None:
        """Lower-case SHA-256 of all that is there, or None if it did not come in this one piece."""
        return self._hash.hexdigest() if self._hash else None

    def begin(self, offset: int, expected_bytes: int) -> None:
        """Check that this append may begin at all."""
        if offset != self.size_bytes:
            raise WrongOffset(offset, self.size_bytes)
        if offset + expected_bytes > self._max_size_bytes:
            raise UploadTooLarge(self._max_size_bytes)
        self._look_for(expected_bytes)

    def write(self, chunk: bytes) -> None:
        """Append ``chunk``, of any length."""
        if self.size_bytes + len(chunk) > self._max_size_bytes:
            raise UploadTooLarge(self._max_size_bytes)
        if len(chunk) <= CHUNK_BYTES:
            self._write(chunk)
            return
        for start in range(0, len(chunk), CHUNK_BYTES):
            self._write(chunk[start : start + CHUNK_BYTES])

    def head(self, length: int) -> bytes:
        """The first ``length`` bytes, or as many as there are."""
        os.ftruncate(self._descriptor, self.size_bytes)  # a hole at the end is not in the file yet
        return os.pread(self._descriptor, length, 0)

    def restart(self) -> None:
        """Throw away everything received so far and begin anew."""
        os.ftruncate(self._descriptor, 0)
        self._began_at = self.size_bytes = 0
        self._hash = hashlib.sha256()

    def discard(self) -> None:
        """Remove the upload altogether; it must not be written afterwards."""
        self._path.unlink(missing_ok=True)
        self._gone = True

    def take_back(self) -> None:
        """Undo this append. An upload that is empty then is removed."""
        os.ftruncate(self._descriptor, self._began_at)
        self.size_bytes = self._began_at
        if self._began_at == 0:
            self.discard()

    def settle(self) -> None:
        """Bring what was written to stable storage."""
        if self._gone:
            return
        os.ftruncate(self._descriptor, self.size_bytes)
        os.fsync(self._descriptor)
        if self._began_at == 0:
            self._store._sync()  # noqa: SLF001 - the name of a new file has to be as durable as its content

    def _write(self, piece: bytes) -> None:
        self._unchecked_bytes += len(piece)
        if self._unchecked_bytes >= _SPACE_CHECK_BYTES:
            self._look_for(0)
        if not _ZEROS.startswith(piece):  # zeros become a hole; settle() sets the length
            written = 0
            while written < len(piece):
                written += os.pwrite(self._descriptor, piece[written:], self.size_bytes + written)
        self.size_bytes += len(piece)
        if self._hash:
            self._hash.update(piece)

    def _look_for(self, needed_bytes: int) -> None:
        self._unchecked_bytes = 0
        status = os.fstatvfs(self._descriptor)
        if status.f_bavail * status.f_frsize - self._store.keep_free_bytes < needed_bytes:
            raise StoreFull("the store for images is full")


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


@contextlib.contextmanager
def _locked(path: Path, *, create: bool) -> Iterator[int]:
    """The file's descriptor, with the lock held that only one writer in all processes can hold."""
    while True:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UploadBusy("another request is writing this upload") from None
            if not _is(path, descriptor):
                continue  # whoever held the lock before us removed or finished the file
            yield descriptor
            return
        finally:
            os.close(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull("the store for images is full") from error
        raise


def _sha256(descriptor: int) -> str:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


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
