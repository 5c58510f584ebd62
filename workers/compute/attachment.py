"""Attaching and detaching at work."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from drivers.api import DiskSpec
from gateway.compute.server import Server
from gateway.compute.server_state import Phase
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from gateway.volume import volume as volumes
from gateway.volume.volume import Volume, VolumeStatus
from workers.reach import call
from workers.saga import Change, Run, Step, saga

UNPLUG_S = 60.0


def _pair(run: Run) -> tuple[Server, Volume]:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        volume = session.get(Volume, run.arguments["volume_id"])
    if server is None or volume is None or server.phase is not Phase.READY or server.host_id is None:
        current = "gone" if server is None else server.status.value
        raise errors.InvalidState(f"The server is {current}.", current=current, allowed=["ACTIVE", "STOPPED"])
    if volume.server_id != server.id:
        raise errors.InvalidState("The volume was freed.", current=volume.status.value, allowed=["ATTACHING"])
    if volume.host_id != server.host_id:
        raise errors.NoValidHost("The volume lies on another host than the server.", decision=None)
    return server, volume


def _plug(run: Run) -> Change:
    server, volume = _pair(run)
    disk = DiskSpec(volume.uid, volume.device or "")
    call(run, server.host_id or 0, lambda driver, deadline: driver.machines.attach(server.uid, disk, deadline))
    run.say(f"The server sees it as {volume.device}.")

    def change(session: Session, job: Job) -> None:
        volumes.attached(session.get_one(Volume, job.arguments["volume_id"]))

    return change


def _pull(run: Run) -> Change | None:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        volume = session.get(Volume, run.arguments["volume_id"])
    if server is None or volume is None or server.host_id is None:
        return None
    _detach(run, server, volume)
    return None


def _detach(run: Run, server: Server, volume: Volume) -> Any:
    def work(driver: Any, deadline: Any) -> Any:
        there = driver.machines.inspect(server.uid, deadline)
        if there is None or volume.uid not in there.volumes:
            return None
        return driver.machines.detach(server.uid, volume.uid, deadline)

    return call(run, server.host_id or 0, work, seconds=UNPLUG_S)


def _not_attached(session: Session, job: Job, _why: Refusal) -> None:
    volume = session.get(Volume, job.arguments["volume_id"])
    mine = volume is not None and volume.server_id == job.arguments["server_id"]
    if volume is not None and mine and volume.status is VolumeStatus.ATTACHING:
        volumes.freed(volume)


saga("volume.attach", Step("attach", _plug, _pull), failed=_not_attached)


def _unplug(run: Run) -> Change:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        volume = session.get(Volume, run.arguments["volume_id"])
    if volume is not None and server is not None and server.host_id is not None:
        _detach(run, server, volume)

    def change(session: Session, job: Job) -> None:
        found = session.get(Volume, job.arguments["volume_id"])
        if found is not None and found.status is VolumeStatus.DETACHING:
            volumes.freed(found)

    return change


def _still_attached(session: Session, job: Job, _why: Refusal) -> None:
    volume = session.get(Volume, job.arguments["volume_id"])
    mine = volume is not None and volume.server_id == job.arguments["server_id"]
    if volume is not None and mine and volume.status is VolumeStatus.DETACHING:
        volume.status = VolumeStatus.IN_USE


def _replug(run: Run) -> Change | None:
    """A detachment that failed may have unplugged the disk all the same: it goes back in, unless the server is on its
    way out.
    """
    try:
        server, volume = _pair(run)
    except errors.InvalidState:
        return None
    disk = DiskSpec(volume.uid, volume.device or "")
    call(run, server.host_id or 0, lambda driver, deadline: driver.machines.attach(server.uid, disk, deadline))
    return None


saga("volume.detach", Step("detach", _unplug, _replug), failed=_still_attached)
