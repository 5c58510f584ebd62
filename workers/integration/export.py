"""Exports at work: the file is written beside its place, batch by batch, and appears there complete.

Writing it again gives the same file, as far as the cloud has not changed meanwhile; undoing removes it. A cancel is
heeded between two batches. The reconciler deletes exports whose time is over, and files that no export is about.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final
from uuid import UUID

import structlog
from sqlmodel import Session

from gateway.integration import content
from gateway.integration import export as exports
from gateway.integration.content import Line
from gateway.integration.export import Export
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from workers.saga import Change, Run, Step, saga
from workers.sweep import Context, reconciler

MOST_BYTES: Final = 16 << 30
ORPHAN_S: Final = 3600.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Written:
    """What was written so far."""

    file: BinaryIO
    rows: int = 0
    size_bytes: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, lines: list[Line]) -> None:
        """Append lines. Raises Invalid when the file grows too large."""
        text = "".join(json.dumps(each, ensure_ascii=False, separators=(",", ":")) + "\n" for each in lines)
        data = text.encode()
        if self.size_bytes + len(data) > MOST_BYTES:
            raise errors.Invalid(f"It would be larger than {MOST_BYTES >> 30} GiB: ask for a shorter period.")
        self.file.write(data)
        self.digest.update(data)
        self.rows += len(lines)
        self.size_bytes += len(data)


def _write(run: Run) -> None:
    with run.read() as session:
        found = session.get(Export, run.arguments["export_id"])
    if found is None:
        raise errors.NotFound("The export is gone.")
    target = exports.file_of(run.settings.state_dir, found.uid)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Each attempt writes a file of its own: one that was thought dead may still be writing.
    part = target.with_name(f"{target.name}.{run.uid}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            written = Written(file)
            for batch in content.lines(run.read, found):
                _heed_cancel(run)
                written.add(batch)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    run.say(f"{written.rows} rows, {written.size_bytes} bytes.")
    run.memory["rows"], run.memory["size_bytes"] = written.rows, written.size_bytes
    run.memory["sha256"] = written.digest.hexdigest()


def _publish(run: Run) -> Change:
    told = run.memory["rows"], run.memory["size_bytes"], run.memory["sha256"]

    def change(session: Session, job: Job) -> None:
        exports.written(session, session.get_one(Export, job.arguments["export_id"]), *told)

    return change


def _heed_cancel(run: Run) -> None:
    with run.read() as session:
        if session.get_one(Job, run.job_id).cancel_requested:
            raise errors.Cancelled("It was cancelled on request.")


def _unwrite(run: Run) -> None:
    with run.read() as session:
        found = session.get(Export, run.arguments["export_id"])
    if found is not None:
        exports.file_of(run.settings.state_dir, found.uid).unlink(missing_ok=True)


def _failed(session: Session, job: Job, why: Refusal) -> None:
    found = session.get(Export, job.arguments["export_id"])
    if found is not None:
        exports.failed(session, found, why.message)


saga(
    "export.create",
    Step("write", _write, _unwrite),
    Step("publish", _publish, kept="it changes the export's row alone, with the end of the job"),
    failed=_failed,
)


@reconciler("exports", every_s=60.0)
def look(context: Context) -> None:
    """One turn."""
    state_dir: Path = context.settings.state_dir
    for uid in context.db.run(exports.prune):
        exports.file_of(state_dir, uid).unlink(missing_ok=True)
    with context.db.read() as session:
        known = exports.known(session)
    for path in _orphans(exports.folder(state_dir), known):
        log.info("a file leaves the exports", file=path.name)
        path.unlink(missing_ok=True)


def _orphans(folder: Path, known: set[UUID]) -> Iterator[Path]:
    """Files without an export, and parts that nobody writes any more. Ages are told by the file system's clock."""
    if not folder.is_dir():
        return
    names = {f"{uid}.jsonl" for uid in known}
    for path in folder.iterdir():
        try:
            idle_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        if path.name not in names and idle_s > ORPHAN_S:
            yield path
