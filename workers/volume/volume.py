"""Volumes at work: made on the host with most room (or where their snapshot lies), grown, deleted."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from drivers.api import Transient, VolumeSpec
from gateway.compute import host as hosts
from gateway.compute import placing
from gateway.compute.host import Amount
from gateway.compute.placement import Request
from gateway.identity import quota
from gateway.identity.quota import Resource
from gateway.image.image import Image
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from gateway.metering import usage
from gateway.metering.usage import Metered
from gateway.volume import volume as volumes
from gateway.volume.snapshot import Snapshot
from gateway.volume.volume import Volume, VolumeStatus
from workers.image.image import ensure_on_host as ensure_image
from workers.reach import call
from workers.saga import Change, Run, Step, saga

COPY_S = 3600.0
_GIB = 1 << 30


def _volume(session: Session, run_or_job: Run | Job) -> Volume:
    volume = session.get(Volume, run_or_job.arguments["volume_id"])
    if volume is None:
        raise errors.NotFound("The volume is gone.")
    return volume


def _place(run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        volume = _volume(session, job)
        source = session.get(Snapshot, volume.snapshot_id) if volume.snapshot_id is not None else None
        wanted = Request(
            vcpus=0,
            ram_mib=0,
            disk_gib=volume.size_gib,
            hypervisor=job.arguments["hypervisor"],
            availability_zone=job.arguments["availability_zone"],
            needs=frozenset({"VOLUMES"}),
            only=frozenset({source.host_id}) if source is not None and source.host_id is not None else None,
            avoid=frozenset(run.avoid),
        )
        amount = Amount(disk_gib=volume.size_gib)
        host = placing.place(session, wanted, amount, "volume")
        if host is None:
            raise Transient("others took the room first")
        volume.host_id = host.id
        job.memory = {**job.memory, "host_id": host.id, "gib": volume.size_gib}

    run.say("A host was chosen and its room claimed.")
    return change


def _unplace(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        if "gib" not in job.memory:
            return
        hosts.release(session, job.memory["host_id"], Amount(disk_gib=job.memory["gib"]))
        _volume(session, job).host_id = None
        job.memory = {key: value for key, value in job.memory.items() if key not in ("host_id", "gib")}

    return change


def _fetch_image(run: Run) -> Change | None:
    with run.read() as session:
        image_id = _volume(session, run).image_id
    if image_id is None:
        run.say("It is made from no image.")
        return None
    ensure_image(run, image_id, run.memory["host_id"])
    run.say("The image is on the host.")
    return None


def _make(run: Run) -> Change:
    with run.read() as session:
        volume = _volume(session, run)
        image = session.get(Image, volume.image_id) if volume.image_id is not None else None
        source = session.get(Snapshot, volume.snapshot_id) if volume.snapshot_id is not None else None
    wanted = VolumeSpec(
        volume.uid,
        volume.size_gib * _GIB,
        image_id=image.uid if image is not None else None,
        snapshot_id=source.uid if source is not None else None,
    )
    call(run, run.memory["host_id"], lambda driver, deadline: driver.volumes.ensure(wanted, deadline), seconds=COPY_S)

    def change(session: Session, job: Job) -> None:
        _volume(session, job).status = VolumeStatus.AVAILABLE

    return change


def _unmake(run: Run) -> Change | None:
    if "host_id" not in run.memory:
        return None
    with run.read() as session:
        uid = _volume(session, run).uid
    call(run, run.memory["host_id"], lambda driver, deadline: driver.volumes.remove(uid, deadline))

    def change(session: Session, job: Job) -> None:
        _volume(session, job).status = VolumeStatus.CREATING

    return change


def _failed(session: Session, job: Job, why: Refusal) -> None:
    volume = session.get(Volume, job.arguments["volume_id"])
    if volume is not None:
        volume.status = VolumeStatus.ERROR
        volume.status_reason = why.message[:500]


saga(
    "volume.create",
    Step("place", _place, _unplace),
    Step("image", _fetch_image, kept="base images stay for the next volume and are collected when unused"),
    Step("volume", _make, _unmake),
    failed=_failed,
)


# ------------------------------------------------------------------------------------------------ extend


def _claim_more(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        volume = _volume(session, job)
        if volume.host_id is None or not hosts.claim(session, volume.host_id, Amount(disk_gib=job.arguments["more"])):
            raise errors.NoValidHost("The volume's host has not that much room.", decision=None)
        job.memory = {**job.memory, "claimed": volume.host_id}

    return change


def _unclaim(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        if "claimed" in job.memory:
            hosts.release(session, job.memory["claimed"], Amount(disk_gib=job.arguments["more"]))
            job.memory = {key: value for key, value in job.memory.items() if key != "claimed"}

    return change


def _as_before(volume: Volume, job: Job) -> VolumeStatus:
    """What a volume is after its extension; its server may have been deleted meanwhile, and it freed."""
    before = VolumeStatus(job.arguments["before"])
    return VolumeStatus.AVAILABLE if volume.server_id is None else before


def _grow(run: Run) -> Change:
    with run.read() as session:
        volume = _volume(session, run)
    size = run.arguments["size_gib"]
    call(run, volume.host_id or 0, lambda driver, deadline: driver.volumes.extend(volume.uid, size * _GIB, deadline))

    def change(session: Session, job: Job) -> None:
        grown = _volume(session, job)
        grown.size_gib = size
        grown.status = _as_before(grown, job)
        usage.opened(session, grown.tenant_id, Metered.VOLUME_GIB, grown.uid, size)

    return change


def _not_grown(session: Session, job: Job, _why: Refusal) -> None:
    volume = session.get(Volume, job.arguments["volume_id"])
    if volume is not None and volume.status is VolumeStatus.EXTENDING:
        volume.status = _as_before(volume, job)
    if job.tenant_id is not None:  # also when the volume went with its server meanwhile
        quota.give(session, job.tenant_id, {Resource.VOLUME_GIB: job.arguments["more"]})


saga(
    "volume.extend",
    Step("claim", _claim_more, _unclaim),
    Step("extend", _grow, kept="a disk is never shrunk; one that grew without a record is grown again or left larger"),
    failed=_not_grown,
)


# ------------------------------------------------------------------------------------------------ delete


def _remove(run: Run) -> Change:
    with run.read() as session:
        volume = session.get(Volume, run.arguments["volume_id"])
    if volume is not None and volume.host_id is not None:
        uid = volume.uid
        call(run, volume.host_id, lambda driver, deadline: driver.volumes.remove(uid, deadline))

    def change(session: Session, job: Job) -> None:
        found: Any = session.get(Volume, job.arguments["volume_id"])
        if found is None:
            return
        if found.host_id is not None:
            hosts.release(session, found.host_id, Amount(disk_gib=found.size_gib))
        volumes.forget(session, found)

    return change


saga("volume.delete", Step("volume", _remove, kept="a deletion goes on until it is done"), forward=True)
