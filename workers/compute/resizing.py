"""Servers that get another size: the sagas ``server.resize``, ``resize.confirm`` and ``resize.revert``.

place -> stop -> network -> move -> leave -> size -> start. Mostly network, move and leave have nothing to do: the
server stays, and its host has room for the larger of both sizes. Where it has not, it goes to another host of the
pool. Whatever fails brings back place, size and power. Confirming and reverting only go forward: a disk that grew
does not shrink, and what was decided once is not asked again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlmodel import Session

from drivers.api import Capability, Deadline, Driver, Machine, Power, PowerAction, Refused, Transient, Unsupported
from gateway.compute import relocation, resizing
from gateway.compute import server as servers
from gateway.compute.resizing import Resize, ResizeStatus
from gateway.compute.server import Server
from gateway.jobs.job import Job
from gateway.kernel import clock, errors
from gateway.kernel.errors import Refusal
from workers.compute import relocation as moving
from workers.compute.machine import observed, spec
from workers.compute.power import POWER_S, shut_down
from workers.compute.relocation import carry, server_of
from workers.reach import call
from workers.saga import Change, Run, Step, saga
from workers.sweep import Context, reconciler

BUILD_S = 600.0
EXTEND_S = 600.0
_GIB = 1 << 30
_WHY = "It is being resized."


def _parts(session: Session, run_or_job: Run | Job) -> tuple[Server, Resize]:
    """The server and its resize. Raises NotFound when it is gone."""
    found = session.get(Resize, run_or_job.arguments["resize_id"])
    if found is None:
        raise errors.NotFound("The server is gone.")
    return server_of(session, run_or_job), found


def _left(session: Session, run_or_job: Run | Job) -> tuple[Server, Resize] | None:
    """The same for what is taken back: None when the server is gone."""
    try:
        return _parts(session, run_or_job)
    except errors.NotFound:
        return None


# ------------------------------------------------------------------------------------------------ server.resize


def _place(run: Run) -> Change:
    server = moving.standing(run)
    machine = moving.look(run, server.host_id or 0, server.uid)

    def change(session: Session, job: Job) -> None:
        sized, found = _parts(session, job)
        elsewhere = bool(relocation.pool_of(session, sized.host_id or 0))
        host_id = resizing.place(session, sized, found, frozenset(run.avoid))
        if host_id is None:
            raise Transient("other servers took the room first")
        told = {"source_id": sized.host_id, "target_id": host_id, "ran": machine.power is Power.RUNNING}
        # Only a server that can go elsewhere is tried on another host when this one is at fault.
        job.memory = {**job.memory, **told, **({"host_id": host_id} if elsewhere else {})}

    run.say("The room for its new size is claimed.")
    return change


def _unplace(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        left = _left(session, job)
        if left is not None:
            resizing.unplace(session, *left)
        told = ("source_id", "target_id", "ran", "host_id")
        job.memory = {key: value for key, value in job.memory.items() if key not in told}

    return change


def _stop(run: Run) -> Change | None:
    return moving.stop(run, _WHY)


def _move(run: Run) -> Change | None:
    if moving.stays(run):
        run.say("It stays on its host.")
        return None
    carry(run, run.memory["source_id"], run.memory["target_id"])
    run.say("The machine is on its new host.")
    return _arrived("target_id")


def _move_back(run: Run) -> Change | None:
    if moving.stays(run):
        return None
    carry(run, run.memory["target_id"], run.memory["source_id"])
    return _arrived("source_id")


def _arrived(where: str) -> Change:
    def change(session: Session, job: Job) -> None:
        left = _left(session, job)
        if left is not None:
            resizing.arrived(session, *left, job.memory[where])

    return change


def _size(run: Run) -> Change:
    with run.read() as session:
        server, found = _parts(session, run)
    machine = _define(run, server, found.new.vcpus, found.new.ram_mib)
    run.say(f"The machine has {machine.vcpus} vCPUs and {machine.ram_mib} MiB of memory.")

    def change(session: Session, job: Job) -> None:
        sized, resize = _parts(session, job)
        resizing.sized(sized, resize.new_flavor_id, resize.new)

    return change


def _size_back(run: Run) -> Change | None:
    with run.read() as session:
        left = _left(session, run)
    if left is None or "target_id" not in run.memory:
        return None
    server, found = left
    _define(run, server, found.old.vcpus, found.old.ram_mib)

    def change(session: Session, job: Job) -> None:
        still = _left(session, job)
        if still is not None:
            resizing.sized(still[0], still[1].old_flavor_id, still[1].old)

    return change


def _define(run: Run, server: Server, vcpus: int, ram_mib: int) -> Machine:
    """The machine, which is off, with that many processors and that much memory. Raises Refused."""
    with run.read() as session:
        wanted = replace(spec(session, server), vcpus=vcpus, ram_mib=ram_mib)

    def work(driver: Driver, deadline: Deadline) -> Machine:
        return driver.machines.ensure(wanted, deadline)

    machine: Machine = call(run, server.host_id or 0, work, seconds=BUILD_S)
    if (machine.vcpus, machine.ram_mib) != (vcpus, ram_mib):
        raise Refused(f"the host gives the machine {machine.vcpus} vCPUs and {machine.ram_mib} MiB of memory")
    return machine


def _start(run: Run) -> Change:
    with run.read() as session:
        server = server_of(session, run)
    ran, after_s = bool(run.memory["ran"]), run.settings.resize_confirm_after_s
    machine = _power(run, server.host_id or 0, server.uid, on=ran)
    run.say("It runs with its new size." if ran else "It was off and stays off.")

    def change(session: Session, job: Job) -> None:
        sized, found = _parts(session, job)
        servers.observe(session, sized, observed(machine))
        until = clock.now(session) + timedelta(seconds=after_s) if after_s else None
        resizing.verify(session, sized, found, until)

    return change


def _power(run: Run, host_id: int, uid: UUID, *, on: bool) -> Machine:
    """The machine as it is, running if it shall."""

    def work(driver: Driver, deadline: Deadline) -> Machine | None:
        if on:
            return driver.machines.power(uid, PowerAction.ON, deadline)
        return driver.machines.inspect(uid, deadline)

    machine: Machine | None = call(run, host_id, work, seconds=POWER_S)
    if machine is None or (on and machine.power is not Power.RUNNING):
        raise Transient(f"the machine is {'gone' if machine is None else machine.power.value}")
    return machine


def _halt(run: Run) -> None:
    """Off again, so that it can have its old size."""
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
    if server is not None and run.memory.get("ran"):
        uid, host_id = server.uid, server.host_id or 0
        call(run, host_id, lambda driver, deadline: driver.machines.power(uid, PowerAction.OFF, deadline))


def _failed(session: Session, job: Job, why: Refusal) -> None:
    left = _left(session, job)
    if left is not None:
        resizing.end(session, *left, ResizeStatus.FAILED, why.message)


saga(
    "server.resize",
    Step("place", _place, _unplace),
    Step("stop", _stop, moving.start_again),
    Step("network", moving.connect, moving.disconnect),
    Step("move", _move, _move_back),
    Step("leave", moving.leave, moving.return_ports),
    Step("size", _size, _size_back),
    Step("start", _start, _halt),
    failed=_failed,
)


# ------------------------------------------------------------------------------------------------ resize.confirm


def _decided(run: Run, status: ResizeStatus) -> tuple[Server, Resize] | None:
    """The server and its resize, None when a deletion came first."""
    with run.read() as session:
        left = _left(session, run)
    return left if left is not None and left[1].status is status and left[0].host_id is not None else None


def _remember(run: Run) -> Change | None:
    """Whether it runs, for the next step may have to stop it."""
    left = _decided(run, ResizeStatus.CONFIRMING)
    if left is None or "ran" in run.memory or not _grows(*left):
        return None
    ran = _runs(run, left[0])

    def change(_session: Session, job: Job) -> None:
        job.memory = {**job.memory, "ran": ran}

    return change


def _runs(run: Run, server: Server) -> bool:
    uid = server.uid
    machine = call(run, server.host_id or 0, lambda driver, deadline: driver.machines.inspect(uid, deadline))
    return machine is not None and machine.power is Power.RUNNING


def _grows(server: Server, found: Resize) -> bool:
    return server.root_uid is not None and found.new_disk_gib > found.old_disk_gib


def _grow(run: Run) -> Change | None:
    left = _decided(run, ResizeStatus.CONFIRMING)
    if left is None or "ran" not in run.memory:
        run.say("Its root disk stays as it is.")
        return None
    server, found = left
    run.say(f"Its root disk has {found.new_disk_gib} GiB.")
    try:
        _extend(run, server, found)
    except Unsupported as error:
        if error.capability is not Capability.VOLUME_HOT_EXTEND or not run.memory["ran"]:
            raise
        shut_down(partial(call, run, server.host_id or 0), server.uid, float(run.arguments["graceful_timeout_s"]))
        _extend(run, server, found)
        run.say(f"Its root disk has {found.new_disk_gib} GiB; its host could not grow it under a running guest.")
    return moving.seen(_power(run, server.host_id or 0, server.uid, on=bool(run.memory["ran"])))


def _extend(run: Run, server: Server, found: Resize) -> None:
    uid, size_bytes = server.root_uid, found.new_disk_gib * _GIB

    def work(driver: Driver, deadline: Deadline) -> None:
        if uid is not None:
            driver.volumes.extend(uid, size_bytes, deadline)

    call(run, server.host_id or 0, work, seconds=EXTEND_S)


def _confirmed(_run: Run) -> Change:
    return _ended(ResizeStatus.CONFIRMING, ResizeStatus.CONFIRMED)


def _ended(expected: ResizeStatus, status: ResizeStatus) -> Change:
    def change(session: Session, job: Job) -> None:
        left = _left(session, job)
        if left is not None and left[1].status is expected:
            resizing.end(session, *left, status)

    return change


_ON = "what was decided goes on until it is done"

saga(
    "resize.confirm",
    Step("begin", _remember, kept=_ON),
    Step("disk", _grow, kept=_ON),
    Step("release", _confirmed, kept=_ON),
    forward=True,
)


# ------------------------------------------------------------------------------------------------ resize.revert


def _begin(run: Run) -> Change | None:
    """Remember how things stand: the steps that follow change it."""
    left = _decided(run, ResizeStatus.REVERTING)
    if left is None or "ran" in run.memory:
        return None
    server, found = left
    host_id, ran = server.host_id or 0, _runs(run, server)

    def change(_session: Session, job: Job) -> None:
        # Whence it goes and where to, as for the moves of other sagas; both the same when it stays.
        told = {"source_id": host_id, "target_id": found.host_id if found.moved else host_id, "ran": ran}
        job.memory = {**job.memory, **told}

    run.say("It runs and is shut down for a moment." if ran else "It is off.")
    return change


def _forward(work: Any) -> Any:
    """A step of the way back, unless a deletion came first."""

    def do(run: Run) -> Change | None:
        left = _decided(run, ResizeStatus.REVERTING)
        found: Change | None = work(run, *left) if left is not None and "ran" in run.memory else None
        return found

    return do


def _shut_down(run: Run, server: Server, _found: Resize) -> Change:
    """Whatever it does: somebody may have paused it at its host."""
    ask = partial(call, run, server.host_id or 0)
    patience_s = float(run.arguments["graceful_timeout_s"]) if run.memory["ran"] else 0.0
    machine, asked = shut_down(ask, server.uid, patience_s)
    run.say("The guest shut down." if asked else "The guest was powered off.")
    return moving.seen(machine, _WHY if run.memory["ran"] else None)


def _smaller(run: Run, server: Server, found: Resize) -> Change:
    machine = _define(run, server, found.old.vcpus, found.old.ram_mib)
    run.say(f"The machine has {machine.vcpus} vCPUs and {machine.ram_mib} MiB of memory.")

    def change(session: Session, job: Job) -> None:
        left = _left(session, job)
        if left is not None:
            resizing.sized(left[0], left[1].old_flavor_id, left[1].old)

    return change


def _return(run: Run, _server: Server, _found: Resize) -> Change | None:
    if moving.stays(run):
        return None
    moving.connect(run)
    carry(run, run.memory["source_id"], run.memory["target_id"])
    run.say("The machine is on its old host.")
    return _arrived("target_id")


def _leave(run: Run, _server: Server, _found: Resize) -> None:
    moving.leave(run)


def _on(run: Run, server: Server, _found: Resize) -> Change:
    machine = _power(run, server.host_id or 0, server.uid, on=bool(run.memory["ran"]))
    run.say("It runs with its old size." if run.memory["ran"] else "It is off, as it was.")

    def change(session: Session, job: Job) -> None:
        left = _left(session, job)
        if left is not None and left[1].status is ResizeStatus.REVERTING:
            servers.observe(session, left[0], observed(machine))
            resizing.end(session, *left, ResizeStatus.REVERTED)

    return change


saga(
    "resize.revert",
    Step("begin", _begin, kept=_ON),
    Step("stop", _forward(_shut_down), kept=_ON),
    Step("size", _forward(_smaller), kept=_ON),
    Step("move", _forward(_return), kept=_ON),
    Step("leave", _forward(_leave), kept=_ON),
    Step("start", _forward(_on), kept=_ON),
    forward=True,
)


# ------------------------------------------------------------------------------------------------ in time


@reconciler("resizes", every_s=30.0)
def confirm_overdue(context: Context) -> None:
    """Confirm new sizes that nobody confirmed or reverted in time."""
    with context.db.read() as session:
        waiting = resizing.overdue(session)
    for resize_id in waiting:
        context.db.run(partial(resizing.confirm_overdue, resize_id=resize_id))
