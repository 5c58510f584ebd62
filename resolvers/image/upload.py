"""One request that uploads: what it asks, the bytes into the store, the row beside them.

The lock of the upload is held from before the row says RECEIVING until the last byte is on stable storage. The row
learns of progress about once a second. Complete is what reached the told length (``Upload-Length``, the image's
``sizeBytes``), or, where none was told, a PUT whose body came whole.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from types import TracebackType
from typing import Final, TypeVar
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.image import image as images
from gateway.image import reception, transfer
from gateway.image.formats import MIB, ImageRefused
from gateway.image.image import WAITING, Image, ImageStatus
from gateway.image.link import Permit
from gateway.image.store import StoreFull, UploadBusy, UploadTooLarge, WrongOffset
from gateway.image.transfer import Reception
from gateway.jobs import job as jobs
from gateway.jobs.job import Job
from gateway.kernel.access import Subject
from gateway.kernel.db import Database
from gateway.kernel.errors import Refusal
from gateway.kernel.settings import Settings
from resolvers.image.answers import COMMON, TUS_VERSION, Problem, empty
from resolvers.kernel.context import on_thread

T = TypeVar("T")

CHUNK_BYTES: Final = MIB
TELL_EVERY_S: Final = 1.0
IDLE_S: Final = 60.0
"""A sender that is silent for so long has gone: the lock is freed for its next try."""
_OFFSET_TYPE: Final = "application/offset+octet-stream"
_MOST_DIGITS: Final = 15


@dataclass(frozen=True, slots=True)
class Asked:
    """What an uploading request says of itself. ``offset`` None: from the start, whatever is there already;
    ``length`` is of its body, ``total`` of the whole file, both in bytes and None where not told.
    """

    uid: UUID
    offset: int | None
    length: int | None
    total: int | None
    whole: bool


def asked(request: Request, uid: UUID, largest: int) -> Asked:
    """Read the headers. Raises Problem."""
    version = request.headers.get("tus-resumable", TUS_VERSION)
    if version != TUS_VERSION:
        raise Problem(412, "UNSUPPORTED", f"Only tus {TUS_VERSION} is spoken.", headers={"Tus-Version": TUS_VERSION})
    offset, total = (_number(request, name) for name in ("upload-offset", "upload-length"))
    length = _number(request, "content-length")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "UNSUPPORTED", "Send the file as it is, without Content-Encoding.")
    if request.method == "PATCH":
        if offset is None:
            raise Problem(400, "INVALID", "A PATCH needs Upload-Offset.")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _OFFSET_TYPE:
            raise Problem(415, "UNSUPPORTED", f"A PATCH's Content-Type is {_OFFSET_TYPE}.")
    whole = request.method == "PUT"
    if max(total or 0, (offset or 0) + (length or 0)) > largest:
        raise Problem(413, "INVALID", f"An image may have at most {largest} bytes.", maxSizeBytes=largest)
    return Asked(uid, offset, length, total, whole)


def _number(request: Request, name: str) -> int | None:
    text = request.headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise Problem(400, "INVALID", f"{name} is a whole number of bytes.")
    return int(text)


class Upload:
    """One request's work."""

    def __init__(self, db: Database, settings: Settings, wanted: Asked, permit: Permit) -> None:
        self._db = db
        self._settings = settings
        self._wanted = wanted
        self._permit = permit
        self._store = reception.store_of(settings)

    # ------------------------------------------------------------------------------------------ HEAD

    async def tell(self) -> Response:
        """How far the upload is."""
        image, received = await on_thread(self._look)
        headers = {"Upload-Offset": str(received), **self._expires()}
        if image.expected_bytes is not None or image.status not in WAITING:
            headers["Upload-Length"] = str(received if image.expected_bytes is None else image.expected_bytes)
        else:
            headers["Upload-Defer-Length"] = "1"
        return empty(200, headers)

    def _look(self) -> tuple[Image, int]:
        with self._db.read() as session:
            image = reception.get(session, self._wanted.uid)
        if image.status in (ImageStatus.ERROR, ImageStatus.DELETING):
            raise Problem(410, "INVALID_STATE", f"The image is {image.status.value}.", reason=image.status_reason)
        if image.status not in WAITING:
            return image, image.received_bytes
        received = self._store.received(image.uid) or 0
        if received and received == image.expected_bytes:  # its last request was cut off before it could say so
            self._complete(received, None)
        return image, received

    # ------------------------------------------------------------------------------------------ PUT, PATCH

    async def take(self, request: Request) -> Response:
        """Take the body."""
        try:
            image, received, done = await self._receive(request)
        except WrongOffset as wrong:
            raise Problem(
                409, "CONFLICT", f"The upload continues at byte {wrong.current}.",
                headers={"Upload-Offset": str(wrong.current)}, offset=wrong.current,
            ) from wrong  # fmt: skip
        except UploadBusy as busy:
            raise Problem(
                423, "BUSY", "Another request is writing this upload.", headers={"Retry-After": "5"}
            ) from busy
        except UploadTooLarge as large:
            await on_thread(self._take_back)
            raise Problem(
                413, "INVALID", f"The file may have at most {large.max_size_bytes} bytes.",
                maxSizeBytes=large.max_size_bytes,
            ) from large  # fmt: skip
        except StoreFull as full:
            await on_thread(self._take_back)
            raise Problem(507, "INTERNAL", "The store for images is full.", headers={"Retry-After": "60"}) from full
        except ImageRefused as refused:
            message = f"{refused.message[:1].upper()}{refused.message[1:]}."
            await on_thread(lambda: self._spoil(message))
            raise Problem(422, "IMAGE_REFUSED", message, reason=refused.reason_code.value) from refused
        headers = {"Upload-Offset": str(received), **self._expires()}
        if not self._wanted.whole:
            return empty(204, headers)
        content = {
            "id": images.NOUN.public(image),
            "status": ImageStatus.CHECKING.value if done else ImageStatus.RECEIVING.value,
            "receivedBytes": received,
            "jobId": None if done is None else jobs.NOUN.public(done),
        }
        return JSONResponse(content, status_code=202 if done else 200, headers={**COMMON, **headers})

    async def _receive(self, request: Request) -> tuple[Image, int, Job | None]:
        image = await on_thread(self._waiting)
        terms = reception.terms_of(self._settings, image)
        start = self._wanted.offset
        if start is None:
            start = await on_thread(lambda: self._store.received(image.uid) or 0)
        writing = _Writing(
            transfer.receiving(
                self._store, image.uid, start, terms,
                expected_bytes=(self._wanted.length or 0) if self._wanted.offset is not None else 0,
            )
        )  # fmt: skip
        async with writing as taking:
            if self._wanted.offset is None:
                await steady(taking.restart)
            image = await steady(lambda: self._begin(taking))
            await self._pour(request, taking)
            received = taking.size_bytes
        ended = received == image.expected_bytes or (self._wanted.whole and image.expected_bytes is None)
        if ended and received:
            done = await steady(lambda: self._complete(received, taking.digest))
            return image, received, done
        await steady(lambda: self._progress(received))
        return image, received, None

    async def _pour(self, request: Request, taking: Reception) -> None:
        told = time.monotonic()
        try:
            async for chunk in _chunks(request):
                await steady(lambda chunk=chunk: taking.write(chunk))  # type: ignore[misc]  # mypy cannot infer a defaulted lambda
                if time.monotonic() - told >= TELL_EVERY_S:
                    await steady(lambda: self._progress(taking.size_bytes))
                    told = time.monotonic()
        except (Refusal, ImageRefused, UploadTooLarge, StoreFull):
            raise
        except BaseException:  # the client went, or we are going: what came counts
            await steady(lambda: self._progress(taking.size_bytes))
            raise

    # ------------------------------------------------------------------------------------------ the row

    def _waiting(self) -> Image:
        with self._db.read() as session:
            image = reception.get(session, self._wanted.uid)
        images.require_status(image, WAITING)
        return image

    def _begin(self, taking: Reception) -> Image:
        wanted = self._wanted
        upto = None if wanted.length is None else (wanted.offset or 0) + wanted.length
        try:
            return self._db.run(lambda session: reception.begun(session, wanted.uid, upto, wanted.total))
        except Refusal:
            if taking.size_bytes == 0:
                self._store.abandon(wanted.uid)  # nothing is in the file, and nothing will be
            raise

    def _progress(self, received: int) -> None:
        self._db.run(lambda session: reception.progressed(session, self._wanted.uid, received))

    def _complete(self, received: int, digest: object) -> Job | None:
        subject = Subject(user_id=self._permit.user_id)
        return self._db.run(
            lambda session: reception.completed(session, subject, self._wanted.uid, received, digest)  # type: ignore[arg-type]  # a Digest or None
        )

    def _take_back(self) -> None:
        """The store took this request's bytes back: so does the row."""
        received = self._store.received(self._wanted.uid) or 0
        self._db.run(lambda session: reception.taken_back(session, self._wanted.uid, received))

    def _spoil(self, reason: str) -> None:
        self._db.run(lambda session: reception.refused(session, self._wanted.uid, reason))

    def _expires(self) -> dict[str, str]:
        moment = datetime.fromtimestamp(self._permit.expires_at, UTC)
        return {"Upload-Expires": format_datetime(moment, usegmt=True)}


class _Writing:
    """``transfer.receiving`` for coroutines: entered and left on threads, left also when the task is cancelled."""

    def __init__(self, inner: AbstractContextManager[Reception]) -> None:
        self._inner = inner

    async def __aenter__(self) -> Reception:
        return await steady(self._inner.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await steady(lambda: self._inner.__exit__(kind, error, trace))


async def steady(work: Callable[[], T]) -> T:
    """Run blocking work on a thread and wait for its end even when cancelled: nothing is left half done behind us."""
    task = asyncio.ensure_future(on_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces of :data:`CHUNK_BYTES`. What came before a sender went silent or away is given first."""
    gathered = bytearray()
    body = request.stream().__aiter__()
    while True:
        failure: BaseException | None = None
        piece: bytes | None = None
        try:
            async with asyncio.timeout(IDLE_S):
                piece = await anext(body, None)
        except TimeoutError:
            failure = Problem(408, "TIMEOUT", f"Nothing came for {IDLE_S:.0f} seconds; go on at the offset.")
        except Exception as error:  # noqa: BLE001 - told below, once what came is handed on
            failure = error
        gathered += piece or b""
        while len(gathered) >= CHUNK_BYTES or (gathered and (failure or piece is None)):
            yield bytes(gathered[:CHUNK_BYTES])
            del gathered[:CHUNK_BYTES]
        if failure is not None:
            raise failure
        if piece is None:
            return
