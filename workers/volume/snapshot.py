"""Snapshots at work: a whole copy beside the volume, on the same host."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from drivers.api import Capability, Deadline, Driver, Snapshots, Unsupported
from gateway.compute import host as hosts
from gateway.compute.host import Amount
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from gateway.volume import snapshot as snapshots
from gateway.volume.snapshot import Snapshot, SnapshotStatus
from gateway.volume.volume import Volume
from workers.reach import call
from workers.saga import Change, Run, Step, saga

COPY_S = 3600.0


def _snapshot(session: Session, run_or_job: Run | Job) -> Snapshot:
    found = session.get(Snapshot, run_or_job.arguments["snapshot_id"])
    if found is None:
        raise errors.NotFound("The snapshot is gone.")
    return found


def _able(driver: Driver) -> Snapshots:
    if not isinstance(driver, Snapshots):
        raise Unsupported(Capability.VOLUME_SNAPSHOT, "this hypervisor's driver takes no snapshots")
    return driver


def _claim(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        volume = session.get(Volume, job.arguments["volume_id"])
        if volume is None or volume.host_id is None:
            raise errors.NotFound("The volume is gone.")
        found = _snapshot(session, job)
        if not hosts.claim(session, volume.host_id, Amount(disk_gib=found.size_gib)):
            raise errors.NoValidHost("The volume's host has no room for the snapshot.", decision=None)
        found.host_id = volume.host_id
        job.memory = {**job.memory, "host_id": volume.host_id}

    return change


def _unclaim(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        if "host_id" not in job.memory:
            return
        found = _snapshot(session, job)
        hosts.release(session, job.memory["host_id"], Amount(disk_gib=found.size_gib))
        found.host_id = None
        job.memory = {key: value for key, value in job.memory.items() if key != "host_id"}

    return change


def _copy(run: Run) -> Change:
    with run.read() as session:
        found = _snapshot(session, run)
        volume = session.get_one(Volume, run.arguments["volume_id"])

    def work(driver: Driver, deadline: Deadline) -> Any:
        return _able(driver).snapshot(volume.uid, found.uid, deadline)

    call(run, run.memory["host_id"], work, seconds=COPY_S)

    def change(session: Session, job: Job) -> None:
        _snapshot(session, job).status = SnapshotStatus.AVAILABLE

    return change


def _uncopy(run: Run) -> Change | None:
    if "host_id" not in run.memory:
        return None
    with run.read() as session:
        uid = _snapshot(session, run).uid

    def work(driver: Driver, deadline: Deadline) -> None:
        if isinstance(driver, Snapshots):
            driver.remove_snapshot(uid, deadline)

    call(run, run.memory["host_id"], work)
    return None


def _failed(session: Session, job: Job, why: Refusal) -> None:
    found = session.get(Snapshot, job.arguments["snapshot_id"])
    if found is not None:
        found.status = SnapshotStatus.ERROR
        found.status_reason = why.message[:500]


saga("snapshot.create", Step("claim", _claim, _unclaim), Step("copy", _copy, _uncopy), failed=_failed)


def _remove(run: Run) -> Change:
    with run.read() as session:
        found = session.get(Snapshot, run.arguments["snapshot_id"])
    if found is not None and found.host_id is not None:
        uid = found.uid
        call(run, found.host_id, lambda driver, deadline: _able(driver).remove_snapshot(uid, deadline))

    def change(session: Session, job: Job) -> None:
        gone = session.get(Snapshot, job.arguments["snapshot_id"])
        if gone is None:
            return
        if gone.host_id is not None:
            hosts.release(session, gone.host_id, Amount(disk_gib=gone.size_gib))
        snapshots.forget(session, gone)

    return change


saga("snapshot.delete", Step("snapshot", _remove, kept="a deletion goes on until it is done"), forward=True)
