"""One upload being written: its lock, its length, its hash, and what the store answers when it cannot go on.

Invariants: the lock belongs to one writer in all processes and vanishes with its holder; a chunk is written where the
last one ended; whatever failed for room can be taken back to the length at which this append began. Which file it is
and what it becomes is the business of ``store``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gateway.image.formats import MIB
from gateway.kernel.core import CORE

CHUNK_BYTES: Final = MIB
FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SPACE_CHECK_BYTES: Final = 64 * MIB
_ZEROS: Final = bytes(CHUNK_BYTES)


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
class Digest:
    """The lower-case SHA-256 of a file, and by which marks to know whether the file is still that one."""

    sha256: str
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, descriptor: int, sha256: str) -> Self:
        """The digest ``sha256`` bound to the open file as it is now."""
        status = os.fstat(descriptor)
        return cls(sha256, status.st_ino, status.st_size, status.st_mtime_ns)


class Upload:
    """An upload being written, handed out locked by ``ImageStore.writing``. Not for several threads at once.

    ``digest`` is known after it was settled, if everything came in this one piece.
    """

    def __init__(self, descriptor: int, path: Path, *, max_size_bytes: int, keep_free_bytes: int) -> None:
        self._keep_free_bytes = keep_free_bytes
        self._descriptor = descriptor
        self._path = path
        self._max_size_bytes = max_size_bytes
        self._began_at = os.fstat(descriptor).st_size
        self._unchecked_bytes = 0
        self._hash = hashlib.sha256() if self._began_at == 0 else None
        self._gone = False
        self.size_bytes = self._began_at
        self.digest: Digest | None = None

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
            sync(self._path.parent)  # the name of a new file has to be as durable as its content
        if self._hash:
            self.digest = Digest.of(self._descriptor, self._hash.hexdigest())

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
        if status.f_bavail * status.f_frsize - self._keep_free_bytes < needed_bytes:
            raise StoreFull("the store for images is full")


@contextlib.contextmanager
def locked(path: Path, *, create: bool) -> Iterator[int]:
    """The file's descriptor, with the lock held that only one writer in all processes can hold."""
    while True:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UploadBusy("another request is writing this upload") from None
            if not _names(path, descriptor):
                continue  # whoever held the lock before us removed or finished the file
            yield descriptor
            return
        finally:
            os.close(descriptor)


def _names(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def converting_full() -> Iterator[None]:
    """Turns the kernel's ways of saying "no room" into StoreFull."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_ERRORS:
            raise StoreFull("the store for images is full") from error
        raise


def file_sha256(descriptor: int) -> str:
    """Lower-case SHA-256 of the whole file."""
    with CORE.apart(), os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Bring a directory's names to stable storage."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
