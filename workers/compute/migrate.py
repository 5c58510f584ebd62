"""Servers on the move: the saga ``server.migrate``.

place -> ahead -> stop -> copy -> network -> machine -> boot -> verify -> switch. Ahead copies snapshots while the
server still runs, where that was asked for; what counts are copies of disks that stand still. Until the last step the
server is recorded on its old host and every effect is on the new one, so unwinding takes the new host's things away and
starts the old machine again. After it the old machine is kept, off, until workers.compute.migration takes one of the
two away.
"""

from __future__ import annotations

import shutil
from typing import Any
from uuid import UUID, uuid5

from sqlmodel import Session

from drivers.api import HostAtFault, Power, PowerAction, Transient
from gateway.compute import host as hosts
from gateway.compute import migration as migrations
from gateway.compute import placing
from gateway.compute import server as servers
from gateway.compute.carryover import devices_after
from gateway.compute.host import Host
from gateway.compute.machine_model import CopyWhile, GuestConversion, Verification
from gateway.compute.migration import Migration, MigrationStatus
from gateway.compute.server import Server
from gateway.compute.server_state import Phase
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from gateway.network import port as ports
from workers.compute import carry, v2v, verify
from workers.compute.machine import observed, spec
from workers.network import network as network_work
from workers.network import port as port_work
from workers.reach import call
from workers.saga import Change, Run, Step, saga

POWER_S = 60.0
BUILD_S = 600.0


def _move(session: Session, run_or_job: Run | Job) -> tuple[Server, Migration]:
    """The server and its move. Raises NotFound when it is gone."""
    server = session.get(Server, run_or_job.arguments["server_id"])
    migration = session.get(Migration, run_or_job.arguments["migration_id"])
    if server is None or migration is None:
        raise errors.NotFound("The server is gone.")
    return server, migration


def parts(run: Run) -> tuple[Server, Migration]:
    """The server and its move as they are now. Raises NotFound when it is gone."""
    with run.read() as session:
        return _move(session, run)


def _new(run: Run) -> int:
    host_id: int = run.memory["host_id"]
    return host_id


def _old(run: Run, host_id: int, work: Any, *, seconds: float = 120.0) -> Any:
    """A call of the host that the server leaves: another new host would not help against its faults."""
    try:
        return call(run, host_id, work, seconds=seconds)
    except HostAtFault as error:
        raise Transient(error.reason, vendor_code=error.vendor_code) from error


# ------------------------------------------------------------------------------------------------ place


def _place(run: Run) -> Change:
    server, migration = parts(run)
    if migration.conversion is GuestConversion.VIRT_V2V:
        v2v.require()
    uid, source_id = _source(server)
    machine = _old(run, source_id, lambda driver, deadline: driver.machines.inspect(uid, deadline))
    if machine is None or machine.power not in (Power.RUNNING, Power.OFF):
        current = "ABSENT" if machine is None else machine.power.value
        raise errors.InvalidState(f"The machine is {current}.", current=current, allowed=["RUNNING", "OFF"])

    def change(session: Session, job: Job) -> None:
        moving, record = _move(session, job)
        wanted = migrations.request(session, moving, record, job.arguments["availability_zone"], frozenset(run.avoid))
        host = placing.place(session, wanted, record.claim, "server")
        if host is None:
            raise Transient("other servers took the room first")
        record.host_id = host.id
        record.was_running = machine.power is Power.RUNNING
        job.memory = {**job.memory, "host_id": host.id, "source_id": source_id, "ran": record.was_running}

    run.say("A host was chosen and its room claimed.")
    return change


def _source(server: Server) -> tuple[UUID, int]:
    if server.phase is not Phase.READY or server.host_id is None:
        current = server.status.value
        raise errors.InvalidState(f"The server is {current}.", current=current, allowed=["ACTIVE", "STOPPED"])
    return server.uid, server.host_id


def _unplace(run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        if "host_id" not in job.memory:
            return
        migration = session.get(Migration, run.arguments["migration_id"])
        if migration is not None and migration.host_id is not None:
            hosts.release(session, migration.host_id, migration.claim)
            migration.host_id = None
            migration.was_running = False
            migration.seen = None
            migration.verified = Verification.NOT_VERIFIED
        job.memory = {key: value for key, value in job.memory.items() if key not in ("host_id", "source_id", "ran")}

    return change


# ------------------------------------------------------------------------------------------------ ahead


def _copy_ahead(run: Run) -> None:
    with run.read() as session:
        server, migration = _move(session, run)
        disks = migrations.disk_uids(session, server)
    if migration.copy_while is not CopyWhile.RUNNING or not run.memory["ran"]:
        run.say("Nothing is copied before it is stopped." if run.memory["ran"] else "It is off.")
        return
    known = {each["uid"] for each in migration.disks}
    way = carry.way(run, run.memory["source_id"], _new(run), migration.uid)
    try:
        for uid, device in disks:
            if str(uid) not in known:
                one = carry.carry_snapshot(way, uid, device, _snapshot_uid(migration, uid))
                run.db.run(lambda session, one=one: _record(session, migration.id, [one]))  # type: ignore[misc]  # mypy cannot infer a defaulted lambda
    finally:
        shutil.rmtree(way.folder, ignore_errors=True)
    run.say(f"Disks copied from snapshots while it runs: {len(disks)}.")


def _snapshot_uid(migration: Migration, disk_uid: UUID) -> UUID:
    """The snapshot's id: the same each time the step is tried, so that what died is found again."""
    return uuid5(migration.uid, str(disk_uid))


def _drop_ahead(run: Run) -> Change | None:
    if "source_id" not in run.memory:
        return None
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        migration = session.get(Migration, run.arguments["migration_id"])
        disks = migrations.disk_uids(session, server) if server is not None else []
    if migration is not None and migration.copy_while is CopyWhile.RUNNING:
        for uid, _ in disks:
            carry.drop_snapshot(run, run.memory["source_id"], _snapshot_uid(migration, uid))
    return _drop_copies(run)


# ------------------------------------------------------------------------------------------------ stop


def _stop(run: Run) -> Change:
    server, _migration = parts(run)
    uid, source_id = server.uid, run.memory["source_id"]
    machine = None
    patience = float(run.arguments["graceful_timeout_s"])
    if patience and run.memory["ran"]:
        machine = _old(
            run, source_id, lambda driver, deadline: driver.machines.power(uid, PowerAction.SHUTDOWN, deadline),
            seconds=patience,
        )  # fmt: skip
    asked = machine is not None and machine.power is Power.OFF
    if not asked:
        machine = _old(
            run, source_id, lambda driver, deadline: driver.machines.power(uid, PowerAction.OFF, deadline),
            seconds=POWER_S,
        )  # fmt: skip
    if machine is None or machine.power is not Power.OFF:
        raise Transient("the machine is not off")
    if run.memory["ran"]:
        run.say("The guest shut down." if asked else "The guest was powered off.")
    else:
        run.say("It was off.")

    def change(session: Session, job: Job) -> None:
        servers.observe(session, _move(session, job)[0], observed(machine))

    return change


def _start_again(run: Run) -> Change | None:
    if not run.memory.get("ran"):
        return None
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
    if server is None:
        return None
    uid = server.uid
    machine = _old(
        run, run.memory["source_id"],
        lambda driver, deadline: driver.machines.power(uid, PowerAction.ON, deadline), seconds=POWER_S,
    )  # fmt: skip

    def change(session: Session, job: Job) -> None:
        found = session.get(Server, job.arguments["server_id"])
        if found is not None:
            servers.observe(session, found, observed(machine))

    return change


# ------------------------------------------------------------------------------------------------ copy


def _copy(run: Run) -> None:
    with run.read() as session:
        server, migration = _move(session, run)
        disks = migrations.disk_uids(session, server)
    known = {each["uid"]: each for each in migration.disks}
    there = {each.id for each in call(run, _new(run), lambda driver, deadline: driver.volumes.list(deadline))}
    done = {UUID(uid) for uid, each in known.items() if not each.get("ahead")} & there
    unchanged = 0
    left = [(uid, device) for uid, device in disks if uid not in done]
    if left:
        way = carry.way(run, run.memory["source_id"], _new(run), migration.uid)
        try:
            if migration.conversion is GuestConversion.VIRT_V2V:
                made = v2v.carry_all(way, server, disks)
                run.db.run(lambda session: _record(session, migration.id, made))
            else:
                for uid, device in left:
                    ahead = known.get(str(uid)) if uid in there else None
                    one = carry.carry_rest(way, uid, device, ahead) if ahead else carry.carry(way, uid, device)
                    unchanged += ahead is not None and one["sha256_before"] == ahead["sha256_before"]
                    run.db.run(lambda session, one=one: _record(session, migration.id, [one]))  # type: ignore[misc]  # mypy cannot infer a defaulted lambda
        finally:
            shutil.rmtree(way.folder, ignore_errors=True)
    if migration.conversion is GuestConversion.VIRT_V2V:
        run.say(f"Disks carried over: {len(disks)}, changed by virt-v2v.")
        return
    same = f" Unchanged since their snapshot: {unchanged}." if migration.copy_while is CopyWhile.RUNNING else ""
    run.say(f"Disks carried over: {len(disks)}, each with the checksum that it left with.{same}")


def _record(session: Session, migration_id: int, disks: list[dict[str, Any]]) -> None:
    for each in disks:
        migrations.carried(session, migration_id, each)


def _drop_copies(run: Run) -> Change | None:
    if "host_id" not in run.memory:
        return None
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        migration = session.get(Migration, run.arguments["migration_id"])
        disks = migrations.disk_uids(session, server) if server is not None else []
    for uid, _ in disks:
        call(run, _new(run), lambda driver, deadline, uid=uid: driver.volumes.remove(uid, deadline))
    if migration is not None:
        shutil.rmtree(carry.folder_of(run.settings, migration.uid), ignore_errors=True)

    def change(session: Session, job: Job) -> None:
        found = session.get(Migration, job.arguments["migration_id"])
        if found is not None:
            found.disks = []

    return change


# ------------------------------------------------------------------------------------------------ network


def _connect(run: Run) -> None:
    with run.read() as session:
        mine = ports.of_server(session, run.arguments["server_id"])
    for network_id in dict.fromkeys(port.network_id for port in mine):
        network_work.ensure_on_host(run, network_id, _new(run))
    for port in mine:
        port_work.ensure_on_host(run, port.id, _new(run))
    run.say(f"Ports ready on the new host: {len(mine)}." if mine else "It is on no network of the cloud.")


def _reconnect(run: Run) -> None:
    """The ports are recorded on the old host again, where they never ceased to be."""
    if "host_id" not in run.memory:
        return
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        mine = ports.of_server(session, run.arguments["server_id"])
    for port in mine:
        port_work.remove_from_host(run, port.id, _new(run))
        if server is not None and not server.in_place:
            port_work.ensure_on_host(run, port.id, run.memory["source_id"])


# ------------------------------------------------------------------------------------------------ machine


def _machine(run: Run) -> None:
    with run.read() as session:
        server, migration = _move(session, run)
        devices = devices_after(server, migration)
        wanted = spec(session, server, host=session.get(Host, _new(run)), devices=devices)
    call(run, _new(run), lambda driver, deadline: driver.machines.ensure(wanted, deadline), seconds=BUILD_S)
    run.say("The machine is defined, with the same id, MAC addresses and disks.")


def _unmake(run: Run) -> None:
    if "host_id" not in run.memory:
        return
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
    if server is not None:
        uid = server.uid
        call(run, _new(run), lambda driver, deadline: driver.machines.remove(uid, deadline))


def _boot(run: Run) -> None:
    if not run.memory["ran"]:
        run.say("It was off and stays off.")
        return
    server, _migration = parts(run)
    uid = server.uid
    if "leases" not in run.memory:  # those of before its first start, not of before this try
        run.memory["leases"] = dict(verify.signs(run, _new(run), uid).leases)
    machine = call(
        run, _new(run), lambda driver, deadline: driver.machines.power(uid, PowerAction.ON, deadline), seconds=POWER_S
    )
    if machine.power is not Power.RUNNING:
        raise Transient(f"the machine is {machine.power.value} after it was powered on")
    run.say("The machine is powered on.")


# ------------------------------------------------------------------------------------------------ verify


def _verify(run: Run) -> Change:
    server, _migration = parts(run)
    heard = verify.Heard(Verification.NOT_VERIFIED, None)
    if run.memory["ran"]:
        heard = verify.listen(run, _new(run), server.uid)
    run.say(heard.words or "It was off: that its guest boots was not tried.")

    def change(session: Session, job: Job) -> None:
        record = _move(session, job)[1]
        record.verified, record.seen = heard.level, heard.words

    return change


# ------------------------------------------------------------------------------------------------ switch


def _switch(run: Run) -> Change:
    server, _migration = parts(run)
    uid = server.uid
    machine = call(run, _new(run), lambda driver, deadline: driver.machines.inspect(uid, deadline))
    if machine is None:
        raise Transient("the new machine went away")

    def change(session: Session, job: Job) -> None:
        moving, record = _move(session, job)
        migrations.moved(session, moving, record, session.get_one(Host, job.memory["host_id"]))
        servers.observe(session, moving, observed(machine))

    run.say("The server is on its new host. The old machine is kept until serverMigrateConfirm or serverMigrateRevert.")
    return change


def _failed(session: Session, job: Job, why: Refusal) -> None:
    server = session.get(Server, job.arguments["server_id"])
    migration = session.get(Migration, job.arguments["migration_id"])
    if server is not None and migration is not None:
        migrations.end(session, server, migration, MigrationStatus.FAILED, why.message)


saga(
    "server.migrate",
    Step("place", _place, _unplace),
    Step("ahead", _copy_ahead, _drop_ahead),
    Step("stop", _stop, _start_again),
    Step("copy", _copy, _drop_copies),
    Step("network", _connect, _reconnect),
    Step("machine", _machine, _unmake),
    Step("boot", _boot, kept="removing the machine powers it off"),
    Step("verify", _verify, kept="it only looks"),
    Step("switch", _switch, kept="it is the last step: what is recorded by it stays"),
    failed=_failed,
)
