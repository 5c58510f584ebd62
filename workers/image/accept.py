"""An image's file made fit for use: what was uploaded is judged, what lies at a URL is fetched and judged.

Both ways end alike: the file is in the store under its final name, the row is ACTIVE, quota and metering know its real
size. A file that is refused leaves nothing but the row in ERROR with the reason; taking back removes the image's files
whether or not they were finished. Only this code, after inspection, ever makes an image ACTIVE.
"""

from __future__ import annotations

import ipaddress
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sqlmodel import Session, col, select

from drivers.api import Transient
from gateway.compute.host import Host, Hypervisor
from gateway.image import image as images
from gateway.image import reception, transfer
from gateway.image.fetch import FetchFailed, FetchLimits
from gateway.image.formats import ImageFormat, ImageRefused
from gateway.image.image import Image, ImageStatus
from gateway.image.store import Digest, NotStored, StoreFull, UploadBusy, UploadTooLarge, WrongOffset
from gateway.image.transfer import Accepted, ChecksumMismatch, Terms
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, StepStatus
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from gateway.metering import usage
from gateway.metering.usage import Metered
from workers.image.image import store
from workers.saga import TRIES, Change, Run, Step, saga

TELL_EVERY_S = 1.0
IMPORT_S = 6 * 3600.0


def _image(session: Session, run_or_job: Run | Job) -> Image:
    image = session.get(Image, run_or_job.arguments["image_id"])
    if image is None or image.deleted_at is not None:
        raise errors.NotFound("The image is gone.")
    return image


def wanted(session: Session, run_or_job: Run | Job) -> Image:
    """The image, unless somebody deletes it meanwhile."""
    image = _image(session, run_or_job)
    if image.status is ImageStatus.DELETING:
        raise errors.Cancelled("The image is being deleted.")
    return image


def terms(run: Run) -> tuple[Image, Terms]:
    """The image, and on what terms its bytes are taken. Raises NotFound, Cancelled."""
    with run.read() as session:
        image = wanted(session, run)
        # Without QEMU on this machine no image can be opened for a second opinion; a cloud of nothing but simulated
        # hosts, which never open one either, goes without it.
        real = session.exec(select(Host.id).where(col(Host.hypervisor) != Hypervisor.SIM).limit(1)).first()
    second_opinion = real is not None or shutil.which("qemu-img") is not None
    return image, reception.terms_of(run.settings, image, second_opinion=second_opinion)


def judged(run: Run, work: Callable[[], Accepted]) -> Accepted:
    """What ``work`` accepted; its refusals as the domain's. What may mend itself is tried again a few times."""
    try:
        return work()
    except ImageRefused as refused:
        raise _refusal(refused.message, refused.reason_code.value) from refused
    except ChecksumMismatch as other:
        raise _refusal(f"The file's SHA-256 is {other.found}, not {other.expected}.", "CHECKSUM_MISMATCH") from other
    except UploadTooLarge as large:
        raise _refusal(f"The file has more than {large.max_size_bytes} bytes.", "TOO_BIG") from large
    except NotStored as none:
        raise _refusal("No data was received.", "EMPTY") from none
    except FetchFailed as error:
        final = _refusal(error.message, error.problem.value)
        raise _perhaps(run, final) if error.retryable else final from error
    except StoreFull as full:
        raise _perhaps(run, _refusal(str(full), "STORE_FULL")) from full
    except (UploadBusy, WrongOffset) as busy:
        raise _perhaps(run, errors.Busy(f"{busy}.", job_id=None)) from busy


def _refusal(message: str, reason: str) -> errors.ImageRefused:
    return errors.ImageRefused(f"{message[:1].upper()}{message[1:].rstrip('.')}.", reason=reason)


def _perhaps(run: Run, final: Refusal) -> Exception:
    """Worth another try, or ``final`` when there were enough."""
    with run.read() as session:
        tries = session.get_one(Job, run.job_id).tries
    return final if tries + 1 >= TRIES else Transient(final.message)


def remember(run: Run, accepted: Accepted) -> None:
    """Keep what was accepted for the step that makes the image ACTIVE."""
    run.memory["accepted"] = {
        "format": accepted.format.value,
        "virtual_size_bytes": accepted.virtual_size_bytes,
        "size_bytes": accepted.size_bytes,
        "sha256": accepted.sha256,
    }
    run.say(f"{accepted.format.value}, {accepted.size_bytes} bytes, SHA-256 {accepted.sha256[:12]}…")


# ------------------------------------------------------------------------------------------------ steps


def _check(run: Run) -> None:
    image, on = terms(run)
    told: dict[str, Any] | None = run.arguments.get("digest")
    known = Digest(**told) if told is not None else None
    remember(run, judged(run, lambda: transfer.accept(store(run.settings), image.uid, on, known=known)))


def _fetch(run: Run) -> None:
    image, on = terms(run)
    url = image.source_url or ""
    with run.read() as session:
        attempt = session.get_one(Job, run.job_id).attempt
    limits = FetchLimits(
        max_bytes=on.limits.max_size_bytes,
        timeout_s=IMPORT_S,
        allowed_networks=tuple(ipaddress.ip_network(each) for each in run.settings.allowed_import_networks),
    )
    told = _Teller(run, image, attempt)
    kept = store(run.settings)
    accepted = judged(run, lambda: transfer.import_url(kept, image.uid, url, on, limits=limits, progress=told))
    remember(run, accepted)


class _Teller:
    """Tells about once a second how far a fetch is, and stops it when it is not wanted any more."""

    def __init__(self, run: Run, image: Image, attempt: int) -> None:
        self._run = run
        self._image = image
        self._attempt = attempt
        self._next = time.monotonic() + TELL_EVERY_S

    def __call__(self, received_bytes: int, total_bytes: int | None) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + TELL_EVERY_S
        self._run.db.run(lambda session: self._tell(session, received_bytes, total_bytes))

    def _tell(self, session: Session, received_bytes: int, total_bytes: int | None) -> None:
        job = jobs.held(session, self._run.job_id, self._attempt)
        image = wanted(session, self._run)
        if job.cancel_requested:
            raise errors.Cancelled("The job was cancelled.")
        image.received_bytes = received_bytes
        images.charge(session, image, max(received_bytes, total_bytes or 0))
        of = f" of {total_bytes}" if total_bytes else ""
        jobs.write_steps(
            job,
            [
                replace(each, message=f"{received_bytes}{of} bytes") if each.status is StepStatus.RUNNING else each
                for each in job.told
            ],
        )
        if total_bytes:
            job.progress = round(0.5 * received_bytes / total_bytes, 4)


def discard(run: Run) -> Change:
    """Take back what was received and accepted."""
    with run.read() as session:
        image = session.get(Image, run.arguments["image_id"])
    if image is not None:
        store(run.settings).remove(image.uid)

    def change(_session: Session, job: Job) -> None:
        job.memory = {key: value for key, value in job.memory.items() if key != "accepted"}

    return change


def activate(_run: Run) -> Change:
    """Make the image ACTIVE as it was accepted."""

    def change(session: Session, job: Job) -> None:
        image = wanted(session, job)
        found = job.memory["accepted"]
        images.charge(session, image, found["size_bytes"])
        image.format = ImageFormat(found["format"])
        image.size_bytes = image.received_bytes = found["size_bytes"]
        image.virtual_size_bytes = found["virtual_size_bytes"]
        image.sha256 = found["sha256"]
        image.status = ImageStatus.ACTIVE
        image.status_reason = None
        usage.opened(session, image.tenant_id, Metered.IMAGE_BYTES, image.uid, found["size_bytes"])

    return change


def deactivate(_run: Run) -> Change:
    """Take that back."""

    def change(session: Session, job: Job) -> None:
        image = session.get(Image, job.arguments["image_id"])
        if image is None or image.status is not ImageStatus.ACTIVE:
            return
        image.status = ImageStatus.CHECKING if job.kind == "image.accept" else ImageStatus.RECEIVING
        image.format = image.size_bytes = image.virtual_size_bytes = image.sha256 = None
        usage.closed(session, image.uid)

    return change


def failed(session: Session, job: Job, why: Refusal) -> None:
    """The image will never be, and says why."""
    image = session.get(Image, job.arguments["image_id"])
    if image is not None and image.deleted_at is None:
        image.received_bytes = 0
        images.spoil(session, image, why.message)


saga(
    "image.accept",
    Step("check", _check, discard),
    Step("activate", activate, deactivate),
    failed=failed,
)
saga(
    "image.import",
    Step("fetch", _fetch, discard),
    Step("activate", activate, deactivate),
    failed=failed,
)
