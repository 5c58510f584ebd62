"""Looks after what images leave behind, in rows, on hosts and in the store.

It compares and submits jobs: uploads that nobody sent anything to for long are deleted, one whose last byte came but
whose end was never told is completed, and deleted images whose copies became idle are deleted once more. Only files
that no job could be about are removed here: those without a row, uploads that nobody waits for, and old variants.
Ages of rows are told by the cloud's clock, ages of files by the file system's.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from sqlmodel import Session, col, select

from gateway.image import image as images
from gateway.image import image_change, link, reception
from gateway.image.image import NOUN, WAITING, Image, ImageCopy, ImageStatus
from gateway.image.store import Entry, ImageStore
from gateway.jobs import job as jobs
from gateway.jobs.job import Job
from gateway.kernel import clock
from gateway.kernel.access import CLOUD
from gateway.kernel.errors import Refusal
from workers.image.image import store
from workers.sweep import Context, reconciler

WAITS: Final = link.UPLOAD_LASTS + timedelta(days=1)
"""How long an image waits for the next byte."""
SOON: Final = timedelta(minutes=1)
LATE: Final = timedelta(days=1)
"""A copy that a host would not give up is asked for again after a quarter of the time since the deletion, within
these bounds."""
ORPHAN_S: Final = 3600.0
VARIANT_S: Final = 7 * 86400.0

log = structlog.get_logger(__name__)


@reconciler("images", every_s=30.0)
def look(context: Context) -> None:
    """One turn."""
    kept = store(context.settings)
    _complete(context, kept)
    context.db.run(_expire)
    context.db.run(_again)
    _tidy(context, kept)


def _complete(context: Context, kept: ImageStore) -> None:
    """Uploads that are whole, though nobody said so."""
    with context.db.read() as session:
        waiting = session.exec(
            select(Image).where(Image.status == ImageStatus.RECEIVING, col(Image.expected_bytes).is_not(None))
        ).all()
    for image in waiting:
        received = kept.received(image.uid)
        if image.source_url is None and received is not None and received == image.expected_bytes:
            _told(context, image.uid, received)


def _told(context: Context, uid: UUID, received: int) -> None:
    try:
        context.db.run(lambda session: reception.completed(session, CLOUD, uid, received, None))
    except Refusal as refused:
        log.info("an upload is whole but cannot be completed", image=str(uid), reason=refused.message)


def _expire(session: Session) -> None:
    """Uploads that nobody goes on with."""
    since = clock.now(session) - WAITS
    stale = select(Image).where(
        col(Image.status).in_(WAITING), col(Image.source_url).is_(None), col(Image.updated_at) < since
    )
    for image in session.exec(stale.limit(100)):
        image.status_reason = "Nothing was uploaded for too long."
        image_change.doom(session, CLOUD, image)


def _again(session: Session) -> None:
    """Deleted images of which something is left that may go now."""
    hidden = session.exec(select(Image).where(col(Image.deleted_at).is_not(None)).limit(1000)).all()
    for image in hidden:
        copies = session.exec(select(ImageCopy).where(ImageCopy.image_id == image.id)).all()
        idle = [copy for copy in copies if not images.in_use_on(session, image.id, copy.host_id)]
        free = not copies and not images.referred(session, image.id)
        if (idle or free) and not _lately(session, image):
            images.order(session, CLOUD, image, "image.delete")


def _lately(session: Session, image: Image) -> bool:
    now = clock.now(session)
    since = now - min(max((now - (image.deleted_at or now)) / 4, SOON), LATE)
    mine = select(Job).where(Job.target == NOUN.public(image), Job.kind == "image.delete")
    newest = session.exec(mine.order_by(col(Job.id).desc()).limit(1)).first()
    return newest is not None and (newest.status in jobs.LIVE or newest.created_at > since)


# ------------------------------------------------------------------------------------------------ the store


def _tidy(context: Context, kept: ImageStore) -> None:
    now = time.time()
    with context.db.read() as session:
        rows = session.exec(select(Image).where(col(Image.deleted_at).is_(None)))
        known = {image.uid: image for image in rows}
    for orphan in kept.orphans(known, untouched_since=now - ORPHAN_S):
        log.info("an orphan leaves the image store", file=orphan.name)
        kept.discard(orphan)
    for entry in list(kept.entries()):
        image = known.get(entry.uid)
        if image is not None and _unwanted(image, entry, now - entry.modified_at):
            log.info("a file leaves the image store", file=entry.path.name)
            kept.discard(entry.path)


def _unwanted(image: Image, entry: Entry, age_s: float) -> bool:
    if entry.format is None:
        busy = (*WAITING, ImageStatus.CHECKING, ImageStatus.DELETING)
        return image.status not in busy and age_s > ORPHAN_S
    variant = image.status is ImageStatus.ACTIVE and entry.format is not image.format
    return variant and age_s > VARIANT_S
