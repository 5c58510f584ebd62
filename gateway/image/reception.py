"""An image's data coming in: what the row says before, while and after bytes are taken.

Every function is one short unit of work between the chunks, so that a long upload holds no transaction, and every one
looks at the state anew: an image that was deleted meanwhile takes nothing more. Quota follows the bytes, so nobody can
send more than the tenant may have. The bytes themselves are the business of ``transfer``; judging is a job's.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlmodel import Session, select

from gateway.image import image as images
from gateway.image.formats import InspectionLimits
from gateway.image.image import WAITING, Image, ImageStatus
from gateway.image.store import Digest, ImageStore, UploadTooLarge
from gateway.image.transfer import Terms
from gateway.jobs import job as jobs
from gateway.jobs.job import Job
from gateway.kernel.access import Subject
from gateway.kernel.errors import Conflict, NotFound
from gateway.kernel.settings import Settings


def store_of(settings: Settings) -> ImageStore:
    """The image store of a state directory; its folder is made when there is none."""
    kept = ImageStore(settings.state_dir / "images", max_size_bytes=settings.max_image_gib << 30)
    kept.prepare()
    return kept


def terms_of(settings: Settings, image: Image, *, second_opinion: bool = True) -> Terms:
    """On what terms an image's bytes are taken."""
    return Terms(
        declared=image.declared_format,
        expected_sha256=image.expected_sha256,
        max_size_bytes=image.expected_bytes,
        limits=InspectionLimits(
            max_virtual_size_bytes=settings.max_virtual_gib << 30,
            max_size_bytes=settings.max_image_gib << 30,
            second_opinion=second_opinion,
        ),
    )


def get(session: Session, uid: UUID) -> Image:
    """The image of an upload. Raises NotFound when it is gone."""
    image = session.exec(select(Image).where(Image.uid == uid)).first()
    if image is None or image.deleted_at is not None:
        raise NotFound("There is no such image.")
    return image


def begun(session: Session, uid: UUID, upto_bytes: int | None, total_bytes: int | None) -> Image:
    """Data comes in. It will make the file ``upto_bytes`` long, and the whole file has ``total_bytes``, where known.

    Raises NotFound, InvalidState, QuotaExceeded, Conflict for another total than told before, UploadTooLarge.
    """
    image = get(session, uid)
    images.move(image, WAITING, ImageStatus.RECEIVING)
    largest: int = session.info["settings"].max_image_gib << 30
    expected = image.expected_bytes
    if total_bytes is not None and expected not in (None, total_bytes):
        raise Conflict(f"The file was said to have {expected} bytes, not {total_bytes}.")
    if max(total_bytes or 0, upto_bytes or 0) > (largest if expected is None else min(expected, largest)):
        raise UploadTooLarge(min(expected or largest, largest))
    image.expected_bytes = expected if total_bytes is None else total_bytes
    _hold(session, image, max(image.expected_bytes or 0, upto_bytes or 0))
    return image


def progressed(session: Session, uid: UUID, received_bytes: int) -> Image:
    """So many bytes are here. Raises NotFound, InvalidState, QuotaExceeded."""
    image = get(session, uid)
    images.move(image, WAITING, ImageStatus.RECEIVING)
    if image.received_bytes != received_bytes:
        image.received_bytes = received_bytes
        _hold(session, image, received_bytes)
    return image


def taken_back(session: Session, uid: UUID, received_bytes: int) -> None:
    """What came in last is thrown away again; so many bytes are left. With none, the image waits as at first."""
    image = get(session, uid)
    if image.status in WAITING:
        image.received_bytes = received_bytes
        image.status = ImageStatus.RECEIVING if received_bytes else ImageStatus.QUEUED
        images.charge(session, image, max(image.expected_bytes or 0, received_bytes))


def refused(session: Session, uid: UUID, reason: str) -> None:
    """What came in can never become an image."""
    image = get(session, uid)
    if image.status in WAITING:
        image.received_bytes = 0
        images.spoil(session, image, reason)


def completed(session: Session, subject: Subject, uid: UUID, received_bytes: int, digest: Digest | None) -> Job | None:
    """All is here: a job will judge it. Saying it again gives the same job.

    Raises NotFound, InvalidState, QuotaExceeded.
    """
    image = get(session, uid)
    if image.status is ImageStatus.CHECKING:
        return jobs.active(session, images.NOUN.public(image))
    images.move(image, WAITING, ImageStatus.CHECKING)
    image.received_bytes = received_bytes
    _hold(session, image, received_bytes)
    known: dict[str, Any] | None = None
    if digest is not None:
        known = {name: getattr(digest, name) for name in ("sha256", "inode", "size_bytes", "modified_ns")}
    return images.order(session, subject, image, "image.accept", digest=known)


def _hold(session: Session, image: Image, size_bytes: int) -> None:
    """More quota, if that size needs it; never less than what was declared."""
    if image.charged_gib is None or images.gib(size_bytes) > image.charged_gib:
        images.charge(session, image, size_bytes)
