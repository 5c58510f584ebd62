"""Images made of disks: the saga ``image.capture``. capture -> activate.

The disk leaves its host as a file, is converted to the format that was asked for, and goes into the image store like an
upload: bounded, hashed, and judged by the same inspection before it counts. Files on the way lie in a folder of the
image and are gone when it is over, whatever happened.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from sqlmodel import Session, col, select

from drivers.api import DiskFile, DiskFormat, DiskSource
from gateway.compute import capture
from gateway.compute.server import Server
from gateway.image import transfer
from gateway.image.image import Image, ImageStatus
from gateway.image.store import ImageStore
from gateway.image.transfer import Accepted, Terms
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from gateway.kernel.settings import Settings
from gateway.volume.snapshot import Snapshot
from gateway.volume.volume import Volume
from workers.compute import disks
from workers.image import accept
from workers.image.image import store
from workers.saga import Change, Run, Step, saga
from workers.sweep import Context, reconciler

FOLDER: Final = "captures"
CHUNK_BYTES: Final = 1 << 20


def _source(session: Session, run: Run) -> tuple[DiskSource, int]:
    """The disk as it is now, and its host. Raises NotFound when it is gone."""
    arguments = run.arguments
    snapshot = session.get(Snapshot, arguments["snapshot_id"]) if "snapshot_id" in arguments else None
    volume = session.get(Volume, arguments["volume_id"]) if "volume_id" in arguments else None
    server = session.get(Server, arguments["server_id"]) if "server_id" in arguments else None
    found = snapshot or volume or server
    uid = server.root_uid if found is server is not None else found.uid if found is not None else None
    if found is None or uid is None or found.host_id is None:
        raise errors.NotFound("The disk is gone.")
    return (DiskSource(snapshot_id=uid) if found is snapshot else DiskSource(volume_id=uid)), found.host_id


def _capture(run: Run) -> None:
    with run.read() as session:
        source, host_id = _source(session, run)
    image, terms = accept.terms(run)
    if image.declared_format is None:
        raise AssertionError("a captured image's format is named")
    kept = store(run.settings)
    if kept.received(image.uid) is not None or not kept.stored(image.uid):  # else an earlier try came so far
        folder = _folder(run.settings) / str(image.uid)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        try:
            left = disks.take_out(run, host_id, source, folder / "left")
            made = disks.converted(run, left, DiskFormat(image.declared_format.value), folder / "made")
            accept.remember(run, accept.judged(run, lambda: _taken_in(kept, image, made, terms)))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    else:
        accept.remember(run, accept.judged(run, lambda: transfer.accept(kept, image.uid, terms)))


def _taken_in(kept: ImageStore, image: Image, file: DiskFile, terms: Terms) -> Accepted:
    """The file as the image's own, judged like an upload; what an earlier try left is thrown away."""
    kept.abandon(image.uid)
    receiving = transfer.receiving(kept, image.uid, 0, terms, expected_bytes=file.size_bytes)
    with file.path.open("rb") as content, receiving as taking:
        while piece := content.read(CHUNK_BYTES):
            taking.write(piece)
    return transfer.accept(kept, image.uid, terms, known=taking.digest)


def _activate(run: Run) -> Change:
    activated = accept.activate(run)

    def change(session: Session, job: Job) -> None:
        activated(session, job)
        capture.freed(session, job.arguments)

    return change


def _failed(session: Session, job: Job, why: Refusal) -> None:
    capture.freed(session, job.arguments)
    accept.failed(session, job, why)


saga(
    "image.capture",
    Step("capture", _capture, accept.discard),
    Step("activate", _activate, accept.deactivate),
    failed=_failed,
)


def _folder(settings: Settings) -> Path:
    return settings.state_dir / FOLDER


@reconciler("captures", every_s=300.0)
def tidy(context: Context) -> None:
    """Delete what workers that died left of disks on their way."""
    there = _folder(context.settings)
    if not there.is_dir():
        return
    with context.db.read() as session:
        receiving = select(Image.uid).where(col(Image.status) == ImageStatus.RECEIVING)
        wanted = {str(uid) for uid in session.exec(receiving)}
    for folder in there.iterdir():
        if folder.name not in wanted:
            shutil.rmtree(folder, ignore_errors=True)
