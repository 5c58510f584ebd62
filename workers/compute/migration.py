"""Moves of servers when they are over: the sagas ``migration.confirm`` and ``migration.revert``.

Both only go forward: each takes one of the two machines away for good, and waits for its host as long as it takes. The
two never run beside each other. A machine that was adopted is never destroyed, only handed back.
"""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from drivers.api import Driver, PowerAction
from gateway.compute import migration as migrations
from gateway.compute import server as servers
from gateway.compute.migration import Migration, MigrationStatus
from gateway.compute.server import Server
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.network import port as ports
from gateway.network.network import Network
from workers.compute.adopt import disown
from workers.compute.machine import observed
from workers.compute.migrate import POWER_S, parts
from workers.network import network as network_work
from workers.network import port as port_work
from workers.reach import call
from workers.saga import Change, Run, Step, saga

# ------------------------------------------------------------------------------------------------ confirm


def drop_kept(run: Run, server: Server, migration: Migration) -> None:
    """Take what the other host keeps of a server away from there; a machine that was adopted is handed back. Twice
    equals once.
    """
    _drop_machine(run, server, migration)
    _drop_disks(run, server, migration)
    _drop_ports(run, server, migration)


def _drop_machine(run: Run, server: Server, migration: Migration) -> None:
    if migration.host_id is None:
        return
    uid = server.uid
    if server.in_place:
        call(run, migration.host_id, lambda driver, deadline: disown(driver, uid, deadline))
    else:
        call(run, migration.host_id, lambda driver, deadline: driver.machines.remove(uid, deadline))


def _drop_disks(run: Run, server: Server, migration: Migration) -> None:
    if migration.host_id is None or server.in_place:
        return
    with run.read() as session:
        disks = migrations.disk_uids(session, server)
    for uid, _ in disks:
        call(run, migration.host_id, lambda driver, deadline, uid=uid: driver.volumes.remove(uid, deadline))


def _drop_ports(run: Run, server: Server, migration: Migration) -> None:
    if migration.host_id is None:
        return
    with run.read() as session:
        mine = ports.of_server(session, server.id)
        networks = {port.id: session.get_one(Network, port.network_id).uid for port in mine}
    for port in mine:
        if port.host_id != migration.host_id:
            network_uid = networks[port.id]
            call(
                run, migration.host_id,
                lambda driver, deadline, n=network_uid, p=port.uid: driver.networks.remove_port(n, p, deadline),
            )  # fmt: skip
    for network_id in dict.fromkeys(port.network_id for port in mine):
        network_work.leave_host(run, network_id, migration.host_id)


def _forward(work: Any, said: str) -> Any:
    def do(run: Run) -> None:
        try:
            server, migration = parts(run)
        except errors.NotFound:
            return  # the server was deleted, with all that was kept of it
        work(run, server, migration)
        run.say(said)

    return do


def _confirmed(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        server = session.get(Server, job.arguments["server_id"])
        migration = session.get(Migration, job.arguments["migration_id"])
        if server is not None and migration is not None and migration.status is MigrationStatus.CONFIRMING:
            migrations.end(session, server, migration, MigrationStatus.CONFIRMED)

    return change


_ON = "what was decided goes on until it is done"

saga(
    "migration.confirm",
    Step("machine", _forward(_drop_machine, "The old machine is gone from its host, or handed back."), kept=_ON),
    Step("disks", _forward(_drop_disks, "Nothing of its disks is left on the old host."), kept=_ON),
    Step("network", _forward(_drop_ports, "Nothing of its ports is left on the old host."), kept=_ON),
    Step("release", _confirmed, kept=_ON),
    forward=True,
)


# ------------------------------------------------------------------------------------------------ revert


def _remove_new(run: Run, server: Server, migration: Migration) -> None:
    """The new machine goes first: the two must never run beside each other."""
    if server.host_id is None or migration.status is not MigrationStatus.REVERTING:
        return
    uid, host_id = server.uid, server.host_id
    call(run, host_id, lambda driver, deadline: driver.machines.remove(uid, deadline))
    with run.read() as session:
        disks = migrations.disk_uids(session, server)
    for disk, _ in disks:
        call(run, host_id, lambda driver, deadline, disk=disk: driver.volumes.remove(disk, deadline))


def _ports_back(run: Run, server: Server, migration: Migration) -> None:
    if server.host_id is None or migration.host_id is None or migration.status is not MigrationStatus.REVERTING:
        return
    with run.read() as session:
        mine = ports.of_server(session, server.id)
    for port in mine:
        port_work.remove_from_host(run, port.id, server.host_id)
        if not server.in_place:
            port_work.ensure_on_host(run, port.id, migration.host_id)


def _back(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        server = session.get(Server, job.arguments["server_id"])
        migration = session.get(Migration, job.arguments["migration_id"])
        if server is not None and migration is not None and migration.status is MigrationStatus.REVERTING:
            migrations.moved_back(session, server, migration)

    return change


def _old_on(run: Run) -> Change | None:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        migration = session.get(Migration, run.arguments["migration_id"])
    if server is None or migration is None or server.host_id is None:
        return None
    uid, was_running = server.uid, migration.was_running

    def work(driver: Driver, deadline: Any) -> Any:
        if was_running:
            return driver.machines.power(uid, PowerAction.ON, deadline)
        return driver.machines.inspect(uid, deadline)

    machine = call(run, server.host_id, work, seconds=POWER_S)
    run.say("The old machine runs again." if was_running else "The old machine is off, as it was.")

    def change(session: Session, job: Job) -> None:
        found = session.get(Server, job.arguments["server_id"])
        if found is not None:
            servers.observe(session, found, observed(machine))

    return change


saga(
    "migration.revert",
    Step("machine", _forward(_remove_new, "The new machine and its disks are gone."), kept=_ON),
    Step("network", _forward(_ports_back, "The ports are on the old host again."), kept=_ON),
    Step("switch", _back, kept=_ON),
    Step("power", _old_on, kept=_ON),
    forward=True,
)
