"""How bytes become an image file: taken in by upload or import, judged on the way, accepted at the end.

It joins ``store``, ``fetch`` and ``inspection`` and adds two rules. A file that is certain to be refused is refused,
and its bytes removed, as soon as its first MiB is there, not after the last of its gigabytes. And what is published is
what was judged: nobody can write in between. The caller (the image noun and its saga) keeps the rows, the quota and
the rights; nothing here knows of them. Every function may be called again after a crash at any point.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from gateway.image import fetch, inspection
from gateway.image.formats import ImageFormat, InspectionLimits
from gateway.image.store import Digest, ImageStore, NotStored, Upload, UploadBusy, WrongOffset
from gateway.image.upload import file_sha256

_JUDGED_BYTES: Final = inspection.HEAD_BYTES


class ChecksumMismatch(Exception):  # noqa: N818 - reads as a statement where it is caught
    """The file is not the one the user meant: its SHA-256 is ``found``, not ``expected``."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the file's SHA-256 is {found}, not {expected}")
        self.expected = expected
        self.found = found


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms bytes are taken: the declared format, the expected lower-case SHA-256 (None: any), the bounds."""

    declared: str | None = None
    expected_sha256: str | None = None
    max_size_bytes: int | None = None
    limits: InspectionLimits = field(default_factory=InspectionLimits)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A finished image file; sizes in bytes, SHA-256 in lower-case hexadecimal digits."""

    path: Path
    format: ImageFormat
    virtual_size_bytes: int
    size_bytes: int
    sha256: str


class Reception:
    """An upload that is judged by its first MiB as soon as that is there. It is a sink for ``fetch``."""

    def __init__(self, upload: Upload, terms: Terms) -> None:
        self._upload = upload
        self._terms = terms
        self._judged = upload.size_bytes >= _JUDGED_BYTES

    @property
    def size_bytes(self) -> int:
        """Bytes received so far, earlier requests' included."""
        return self._upload.size_bytes

    @property
    def digest(self) -> Digest | None:
        """The file's SHA-256, known after the end of :func:`receiving` if all of it came in this one request."""
        return self._upload.digest

    def write(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            ImageRefused: the file cannot become an image; what was received is removed.
            StoreFull, UploadTooLarge: see :meth:`gateway.image.store.ImageStore.writing`.
        """
        self._upload.write(chunk)
        if not self._judged and self._upload.size_bytes >= _JUDGED_BYTES:
            self._judged = True
            head = self._upload.head(_JUDGED_BYTES)
            try:
                inspection.inspect_head(head, declared=self._terms.declared, limits=self._terms.limits)
            except inspection.ImageRefused:
                self._upload.discard()
                raise

    def restart(self) -> None:
        """Forget everything received."""
        self._upload.restart()
        self._judged = False


@contextmanager
def receiving(
    store: ImageStore, uid: UUID, offset: int, terms: Terms, *, expected_bytes: int = 0
) -> Iterator[Reception]:  # fmt: skip
    """The image's upload, continued at ``offset``; :meth:`gateway.image.store.ImageStore.writing` says how it fails."""
    maximum = terms.limits.max_size_bytes
    if terms.max_size_bytes is not None:
        maximum = min(maximum, terms.max_size_bytes)
    with store.writing(uid, offset, max_size_bytes=maximum, expected_bytes=expected_bytes) as upload:
        yield Reception(upload, terms)


def import_url(
    store: ImageStore,
    uid: UUID,
    url: str,
    terms: Terms,
    *,
    limits: fetch.FetchLimits,
    progress: fetch.Progress | None = None,
) -> Accepted:  # fmt: skip
    """Fetch ``url`` from its start, whatever an earlier run left behind, and accept it.

    Raises:
        fetch.FetchFailed, ImageRefused, ChecksumMismatch, StoreFull, UploadTooLarge: no upload is left then.
        UploadBusy, WrongOffset: another run is at work on it.
    """
    if store.received(uid) is None and store.stored(uid):
        return accept(store, uid, terms)
    try:
        with receiving(store, uid, store.received(uid) or 0, terms) as reception:
            reception.restart()
            fetch.fetch(url, reception, limits=limits, progress=progress)
        return accept(store, uid, terms, known=reception.digest)
    except (UploadBusy, WrongOffset):
        raise
    except BaseException:
        store.abandon(uid)
        raise


def accept(store: ImageStore, uid: UUID, terms: Terms, *, known: Digest | None = None) -> Accepted:
    """Judge the whole upload and make it the image's file. Doing it twice equals once.

    ``known`` (:attr:`Reception.digest`) spares reading the file once more. A refused upload stays where it is, so that
    the step can be repeated; ``store.remove`` ends it. Nobody can write the upload between judgement and publication.

    Raises:
        ImageRefused, ChecksumMismatch, NotStored, UploadBusy.
    """
    try:
        with store.finishing(uid) as candidate:
            found = inspection.inspect(candidate.path, declared=terms.declared, limits=terms.limits)
            sha256 = candidate.sha256(known)
            _compare(terms.expected_sha256, sha256)
            path = candidate.publish(found.format, sha256).path
    except NotStored:
        path = _finished_before(store, uid)
        found = inspection.inspect(path, declared=terms.declared, limits=terms.limits)
        with path.open("rb") as file:
            sha256 = file_sha256(file.fileno())
        _compare(terms.expected_sha256, sha256)
    return Accepted(path, found.format, found.virtual_size_bytes, found.size_bytes, sha256)


def _finished_before(store: ImageStore, uid: UUID) -> Path:
    """The one file that an earlier run published before it could say so."""
    formats = store.stored(uid)
    if len(formats) != 1:
        raise NotStored(f"nothing was uploaded for {uid}")
    return store.path(uid, formats[0])


def _compare(expected: str | None, found: str) -> None:
    if expected is not None and expected.lower() != found:
        raise ChecksumMismatch(expected, found)
