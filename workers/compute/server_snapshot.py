"""Server snapshots at work: made, gone back to, deleted, and looked after when somebody else removed one.

After each of these the tree is recorded as the host has it; nothing here computes a tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlmodel import Session, col, select

from drivers.api import Capability, Deadline, Driver, DriverError, MachineSnapshot, MachineSnapshots, Unsupported
from gateway.compute import host as hosts
from gateway.compute import server as servers
from gateway.compute import server_snapshot as snapshots
from gateway.compute import snapshotting
from gateway.compute.host import Amount, Host, HostStatus
from gateway.compute.server import Server
from gateway.compute.server_snapshot import Seen, ServerSnapshot, ServerSnapshotStatus
from gateway.compute.server_state import Observed, Phase
from gateway.jobs import job as jobs
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from workers.compute.machine import observed
from workers.hypervisor import Address
from workers.reach import address_of, call
from workers.saga import Change, Run, Step, saga
from workers.sweep import Context, reconciler

SAVE_S = 1800.0
LOOK_S = 30.0
GONE = "It is gone from its host."
_UNFIT = frozenset({Observed.SUSPENDED, Observed.PAUSED, Observed.ABSENT})

log = structlog.get_logger(__name__)


def _able(driver: Driver) -> MachineSnapshots:
    if not isinstance(driver, MachineSnapshots):
        raise Unsupported(Capability.MACHINE_SNAPSHOT, "this hypervisor's driver takes no snapshots of machines")
    return driver


def _seen(every: Sequence[MachineSnapshot]) -> list[Seen]:
    return [Seen(each.id, each.parent_id, each.memory, each.quiesced, each.current) for each in every]


def _snapshot(session: Session, run_or_job: Run | Job) -> ServerSnapshot:
    found = session.get(ServerSnapshot, run_or_job.arguments["snapshot_id"])
    if found is None:
        raise errors.NotFound("The snapshot is gone.")
    return found


def _pair(run: Run, *, unfit: frozenset[Observed]) -> tuple[Server, ServerSnapshot, int]:
    """Server, snapshot and host of a job that can be carried out. Raises InvalidState, NotFound."""
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        found = _snapshot(session, run)
    if server is None or server.phase is not Phase.READY or server.host_id is None or server.observed in unfit:
        current = "gone" if server is None else server.status.value
        raise errors.InvalidState(f"The server is {current}.", current=current, allowed=["ACTIVE", "STOPPED"])
    return server, found, server.host_id


# ------------------------------------------------------------------------------------------------ create


def _claim(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        found = _snapshot(session, job)
        server = session.get_one(Server, found.server_id)
        amount = Amount(disk_gib=found.size_gib)
        if server.host_id is None or not hosts.claim(session, server.host_id, amount):
            raise errors.NoValidHost("The server's host has no room for the snapshot.", decision=None)
        found.host_id = server.host_id
        job.memory = {**job.memory, "host_id": server.host_id}

    return change


def _unclaim(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        found = session.get(ServerSnapshot, job.arguments["snapshot_id"])
        if found is not None and found.host_id is not None:
            hosts.release(session, found.host_id, Amount(disk_gib=found.size_gib))
            found.host_id = None
        job.memory = {key: value for key, value in job.memory.items() if key != "host_id"}

    return change


def _make(run: Run) -> Change:
    server, found, host_id = _pair(run, unfit=_UNFIT)
    memory, quiesce = found.with_memory, run.arguments["quiesce"]

    def work(driver: Driver, deadline: Deadline) -> Any:
        able = _able(driver)
        made = able.snapshot_machine(server.uid, found.uid, deadline, memory=memory, quiesce=quiesce)
        return made, able.list_machine_snapshots(server.uid, deadline)

    made, every = call(run, host_id, work, seconds=SAVE_S)
    run.say(_told(made, quiesce=quiesce))

    def change(session: Session, job: Job) -> None:
        _snapshot(session, job).status = ServerSnapshotStatus.AVAILABLE
        snapshots.record(session, job.arguments["server_id"], _seen(every))

    return change


def _told(made: MachineSnapshot, *, quiesce: bool) -> str:
    if made.memory:
        return "It was taken with its memory."
    if made.quiesced:
        return "Its guest held still while it was taken."
    return "It was taken as it stood" + ("; nobody in its guest held it still." if quiesce else ".")


def _unmake(run: Run) -> None:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        found = session.get(ServerSnapshot, run.arguments["snapshot_id"])
    if server is None or found is None or "host_id" not in run.memory:
        return

    def work(driver: Driver, deadline: Deadline) -> None:
        if isinstance(driver, MachineSnapshots):
            driver.remove_machine_snapshot(server.uid, found.uid, deadline)

    call(run, run.memory["host_id"], work, seconds=SAVE_S)


def _failed(session: Session, job: Job, why: Refusal) -> None:
    found = session.get(ServerSnapshot, job.arguments["snapshot_id"])
    if found is None:
        return
    snapshots.drop(session, found, why.message)
    snapshots.recount(session, session.get_one(Server, found.server_id))


saga(
    "server_snapshot.create",
    Step("claim", _claim, _unclaim, rows=True),
    Step("snapshot", _make, _unmake),
    failed=_failed,
)


# ------------------------------------------------------------------------------------------------ revert


def _revert(run: Run) -> Change:
    server, found, host_id = _pair(run, unfit=frozenset({Observed.ABSENT}))

    def work(driver: Driver, deadline: Deadline) -> Any:
        able = _able(driver)
        machine = able.revert_machine(server.uid, found.uid, deadline)
        return machine, able.list_machine_snapshots(server.uid, deadline)

    machine, every = call(run, host_id, work, seconds=SAVE_S)
    run.say("The server is back, and runs on." if found.with_memory else "The server is back, and off.")

    def change(session: Session, job: Job) -> None:
        snapshotting.reverted(session, session.get_one(Server, job.arguments["server_id"]), observed(machine))
        snapshots.record(session, job.arguments["server_id"], _seen(every))

    return change


# Not ".revert": a job of a kind so called is one that only goes forward, and this one fails when the host refuses it.
saga("server_snapshot.restore", Step("revert", _revert, kept="what the server did since is lost, whatever comes"))


# ------------------------------------------------------------------------------------------------ delete


def _delete(run: Run) -> Change:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        found = session.get(ServerSnapshot, run.arguments["snapshot_id"])
    every: Sequence[MachineSnapshot] = ()
    if server is not None and found is not None and server.host_id is not None:
        every = call(run, server.host_id, partial(_drop, server.uid, found.uid), seconds=SAVE_S)

    def change(session: Session, job: Job) -> None:
        gone = session.get(ServerSnapshot, job.arguments["snapshot_id"])
        if gone is None:
            return
        snapshots.forget(session, gone)
        snapshots.record(session, job.arguments["server_id"], _seen(every))
        snapshots.recount(session, session.get_one(Server, job.arguments["server_id"]))

    return change


def _drop(server: UUID, snapshot: UUID, driver: Driver, deadline: Deadline) -> Sequence[MachineSnapshot]:
    able = _able(driver)
    able.remove_machine_snapshot(server, snapshot, deadline)
    return able.list_machine_snapshots(server, deadline)


saga("server_snapshot.delete", Step("snapshot", _delete, kept="a deletion goes on until it is done"), forward=True)


# ------------------------------------------------------------------------------------------------ reconciler


@reconciler("server_snapshots", every_s=60.0)
def look(context: Context) -> None:
    """Compare the snapshots of servers with what hosts have; record those that somebody else removed."""
    with context.db.read() as session:
        found = session.exec(
            select(Server, Host)
            .join(Host, col(Host.id) == col(Server.host_id))
            .where(Server.snapshot_count > 0, Server.phase == Phase.READY, Host.status == HostStatus.ONLINE)
            .order_by(col(Host.id), col(Server.id))
        ).all()
        known = [(server, address_of(session, host), _standing(session, server.id)) for server, host in found]
    away: set[int] = set()
    for server, where, before in known:
        if where.host_id not in away and not _looked_at(context, server, where, before):
            away.add(where.host_id)


def _standing(session: Session, server_id: int) -> dict[int, int]:
    """The versions of a server's snapshots, by key."""
    return {each.id: each.version for each in snapshots.of_server(session, server_id)}


def _looked_at(context: Context, server: Server, where: Address, before: dict[int, int]) -> bool:
    """Look at one server; False when its host does not answer."""

    def work(driver: Driver, deadline: Deadline) -> Any:
        return driver.list_machine_snapshots(server.uid, deadline) if isinstance(driver, MachineSnapshots) else None

    try:
        every = context.hosts.call(where, work, seconds=LOOK_S)
    except DriverError as error:
        log.info("snapshots of a server could not be listed", host=where.name, reason=error.reason)
        return False
    if every is not None:
        context.db.run(lambda session: _compare(session, server.id, before, _seen(every)))
    return True


def _compare(session: Session, server_id: int, before: dict[int, int], seen: list[Seen]) -> None:
    """Record what differs, unless a job is at work on the server or was since its host was asked."""
    server = session.get(Server, server_id)
    if server is None or jobs.active(session, servers.NOUN.public(server)) is not None:
        return
    if _standing(session, server_id) != before:
        return
    there = {each.uid for each in seen}
    mine = snapshots.of_server(session, server_id)
    lost = [each for each in mine if each.status is ServerSnapshotStatus.AVAILABLE and each.uid not in there]
    for each in lost:
        log.warning("a server's snapshot is gone from its host", snapshot=snapshots.NOUN.public(each))
        snapshots.drop(session, each, GONE)
        for child in mine:
            if child.parent_id == each.id:
                child.parent_id = each.parent_id
    snapshots.record(session, server_id, seen)
    if lost:
        snapshots.recount(session, server)
