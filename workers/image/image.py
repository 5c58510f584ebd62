"""Images at work: bringing one to a host, in a format which that host's driver takes.

The variant of an image in another format is made once, beside the original in the store, and found again by its name.
A copy is noted before it is brought to the host and called ready afterwards, so that every host which may hold
something of an image is known when the image goes.
"""

from __future__ import annotations

from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from drivers.api import Deadline, Driver, Transient
from gateway.image import reception
from gateway.image.image import Image, ImageCopy, ImageStatus
from gateway.image.store import ImageStore
from gateway.kernel import errors
from gateway.kernel.prepared import Prepared
from gateway.kernel.settings import Settings
from workers.image import variant
from workers.reach import address
from workers.saga import Run

BRING_S = 3600.0


def store(settings: Settings) -> ImageStore:
    """The image store of a state directory."""
    return reception.store_of(settings)


_READY = Prepared(
    sa.select(col(Image.uid))
    .join(ImageCopy, col(Image.id) == col(ImageCopy.image_id))
    .where(
        col(Image.id) == sa.bindparam("image"),
        col(Image.status) == ImageStatus.ACTIVE,
        col(ImageCopy.host_id) == sa.bindparam("host"),
        col(ImageCopy.ready),
    )
)
"""The ACTIVE image, if it is on a host: the usual case, so asked for first."""


def ensure_on_host(run: Run, image_id: int, host_id: int) -> UUID:
    """Bring an ACTIVE image to a host, if it is not there; its id. Raises InvalidState, Refused, or the driver's
    errors.
    """
    there: UUID | None = run.value(_READY, image=image_id, host=host_id)
    if there is not None:
        return there
    with run.read() as session:
        image = _active(session, image_id)
        where = address(session, host_id)

    def note(session: Session) -> None:
        _active(session, image_id)
        if _copy(session, image_id, host_id) is None:
            session.add(ImageCopy(image_id=image_id, host_id=host_id))

    run.db.run(note)
    try:
        wanted = variant.of(run.settings, image, run.hosts.type_of(where))
    except FileNotFoundError:
        raise errors.InvalidState("The image is gone.", current="gone", allowed=["ACTIVE"]) from None

    def bring(driver: Driver, deadline: Deadline) -> None:
        driver.volumes.ensure_image(wanted, deadline)

    run.hosts.call(where, bring, seconds=BRING_S)

    def ready(session: Session) -> None:
        copy = _copy(session, image_id, host_id)
        if copy is None:
            raise Transient("the image was collected from the host meanwhile")
        copy.ready = True

    run.db.run(ready)
    return image.uid


def _active(session: Session, image_id: int) -> Image:
    image = session.get(Image, image_id)
    if image is None or image.status is not ImageStatus.ACTIVE or image.format is None:
        current = "gone" if image is None or image.deleted_at is not None else image.status.value
        raise errors.InvalidState(f"The image is {current}.", current=current, allowed=["ACTIVE"])
    return image


def _copy(session: Session, image_id: int, host_id: int) -> ImageCopy | None:
    return session.exec(select(ImageCopy).where(ImageCopy.image_id == image_id, ImageCopy.host_id == host_id)).first()
