"""The end of an image: off the hosts where nothing is built on it, out of the store, and out of sight.

The job never waits for a host: a copy that is in use, or on a host that does not answer, stays noted, and so does the
hidden row; the reconciler sends this same job again when the copy has become idle. Quota and metering end here, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import structlog
from sqlmodel import Session, col, select

from drivers.api import Deadline, Driver, DriverError
from gateway.image import image as images
from gateway.image.image import Image, ImageCopy
from gateway.jobs.job import Job
from gateway.metering import usage
from workers.hypervisor import Address
from workers.image.image import store
from workers.reach import address
from workers.saga import Change, Run, Step, saga

log = structlog.get_logger(__name__)

REMOVE_S = 60.0


def _copies(run: Run) -> Change | None:
    image_id = run.arguments["image_id"]
    with run.read() as session:
        image = session.get(Image, image_id)
        if image is None:
            return None
        found = session.exec(select(ImageCopy).where(ImageCopy.image_id == image_id)).all()
        where = {copy.id: address(session, copy.host_id) for copy in found}
    gone = [copy_id for copy_id, host in where.items() if _removed(run, host, image.uid)]
    left = len(where) - len(gone)
    run.say(f"Removed from {len(gone)} hosts." + (f" {left} keep it while disks are built on it." if left else ""))

    def change(session: Session, _job: Job) -> None:
        _drop(session, gone)

    return change


def _removed(run: Run, host: Address, uid: UUID) -> bool:
    def remove(driver: Driver, deadline: Deadline) -> None:
        driver.volumes.remove_image(uid, deadline)

    try:
        run.hosts.call(host, remove, seconds=REMOVE_S)
    except DriverError as error:
        log.info("a copy of the image stays for now", host=host.name, reason=error.reason)
        return False
    return True


def _drop(session: Session, copies: Sequence[int]) -> None:
    for copy in session.exec(select(ImageCopy).where(col(ImageCopy.id).in_(copies))):
        session.delete(copy)


def _files(run: Run) -> None:
    with run.read() as session:
        image = session.get(Image, run.arguments["image_id"])
    if image is not None:
        store(run.settings).remove(image.uid)


def _row(run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        image = session.get(Image, job.arguments["image_id"])
        if image is not None:
            usage.closed(session, image.uid)
            images.forget(session, image)

    run.say("Quota was given back.")
    return change


_KEPT = "a deletion goes on until it is done"

saga(
    "image.delete",
    Step("copies", _copies, kept=_KEPT),
    Step("files", _files, kept=_KEPT),
    Step("row", _row, kept=_KEPT),
    forward=True,
)
