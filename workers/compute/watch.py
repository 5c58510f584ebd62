"""Seeing what machines do: by the hypervisor's events at once, and by looking at all of them now and then.

Both ways end in the same observation. Nothing is repaired here by guessing: a machine that stopped shows as stopped,
one that is gone shows as ERROR, and a host that does not answer shows its servers as UNKNOWN.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID
from weakref import WeakKeyDictionary

import structlog
from sqlmodel import Session, col, select

from drivers.api import Deadline, Driver, DriverError, Machine, Watch, Watching
from gateway.compute import migration as migrations
from gateway.compute import server as servers
from gateway.compute.host import Host, HostStatus
from gateway.compute.server import Server
from gateway.compute.server_state import STANDING, Observed
from gateway.jobs import job as jobs
from workers import shares
from workers.compute.heard import Heard, Word, news
from workers.compute.machine import observed
from workers.hypervisor import Address, Hosts
from workers.reach import address_of, side_by_side
from workers.sweep import Context, reconciler

LIST_S = 60.0

log = structlog.get_logger(__name__)


def record(session: Session, uid: UUID, host_id: int, machine: Machine | None) -> None:
    """Record what a host says of one machine, if that host still has the server and the server is made."""
    server = session.exec(select(Server).where(Server.uid == uid, Server.host_id == host_id)).first()
    if server is None or server.phase not in STANDING:
        return
    reason = machine.reason if machine is not None else None
    servers.observe(session, server, observed(machine), reason)


@reconciler("servers", every_s=15.0)
def look(context: Context) -> None:
    """List the machines of every host of ours and record what differs from what is recorded."""
    with context.db.read() as session:
        found = shares.mine(context, session, select(Host))
        known = [(host.id, host.status, address_of(session, host)) for host in found]
    side_by_side(known, lambda each: _look_at(context, *each))


def _look_at(context: Context, host_id: int, status: HostStatus, where: Address) -> None:
    if status is HostStatus.OFFLINE:
        context.db.run(partial(_unknown, host_id=host_id))
        return
    try:
        machines = context.hosts.call(where, lambda driver, deadline: driver.machines.list(deadline), seconds=LIST_S)
    except DriverError as error:
        log.info("machines could not be listed", host=where.name, reason=error.reason)
        return
    try:
        _compare(context, where, {machine.id: machine for machine in machines})
    except DriverError as error:
        log.info("machines could not be looked at", host=where.name, reason=error.reason)


def _unknown(session: Session, host_id: int) -> None:
    statement = select(Server).where(
        Server.host_id == host_id, col(Server.phase).in_(STANDING), col(Server.observed) != Observed.UNKNOWN
    )
    for server in session.exec(statement.limit(500)).all():
        servers.observe(session, server, Observed.UNKNOWN)


def _compare(context: Context, where: Address, machines: dict[UUID, Machine]) -> None:
    """Record what differs: as it is by now, for a server may have been made, or changed, since the list was."""
    with context.db.read() as session:
        rows = session.exec(select(Server).where(Server.host_id == where.host_id)).all()
        kept = migrations.kept_machines(session, where.host_id)
        changed = [
            row.uid
            for row in rows
            if row.phase in STANDING
            and row.observed is not observed(machines.get(row.uid))
            and jobs.active(session, servers.NOUN.public(row)) is None
        ]
    for uid in changed:
        _record_now(context, where, uid)
    strangers = machines.keys() - {row.uid for row in rows} - kept
    if strangers:
        log.warning("machines that no server knows", host=where.name, machines=sorted(map(str, strangers))[:20])


def _record_now(context: Context, where: Address, uid: UUID) -> None:
    """Ask a host how a machine is, and record that, if it is news. Raises DriverError."""
    machine = context.hosts.call(where, lambda driver, deadline: driver.machines.inspect(uid, deadline), seconds=LIST_S)
    if news(context, [Word(where, uid, machine)]):  # else not worth a turn in the queue of writers
        context.db.run(partial(record, uid=uid, host_id=where.host_id, machine=machine))


@dataclass(slots=True)
class _Watches:
    """The open streams of one worker, by host, and what is heard over them."""

    heard: Heard
    open: dict[int, tuple[Address, Watch]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_open: WeakKeyDictionary[Hosts, _Watches] = WeakKeyDictionary()
"""By the connections that they go over."""


@reconciler("watches", every_s=3.0)
def watch(context: Context) -> None:
    """Keep one stream of changes open to every host of ours that answers and can push.

    A stream that has ended is opened again, and its host looked at: nobody has told of what changed in between.
    """
    watches = _open.get(context.hosts)
    if watches is None:
        watches = _open[context.hosts] = _Watches(Heard(context, _record_now))
    with context.db.read() as session:
        online = shares.mine(context, session, select(Host).where(Host.status == HostStatus.ONLINE))
        wanted = {host.id: address_of(session, host) for host in online}
    context.hosts.trim(wanted)
    ended = set()
    with watches.lock:
        for host_id, (where, stream) in list(watches.open.items()):
            if wanted.get(host_id) != where or not stream.alive:
                stream.close()
                del watches.open[host_id]
                ended.add(host_id)
        for host_id, where in wanted.items():
            if host_id not in watches.open:
                begun = _begin(context, where, watches.heard)
                if begun is not None:
                    watches.open[host_id] = (where, begun)
        again = [(host_id, HostStatus.ONLINE, watches.open[host_id][0]) for host_id in ended if host_id in watches.open]
    side_by_side(again, lambda each: _look_at(context, *each))


def watched(hosts: Hosts) -> frozenset[int]:
    """The hosts that a worker has a stream of changes from, by the worker's connections."""
    watches = _open.get(hosts)
    return frozenset(watches.open) if watches is not None else frozenset()


def close_all() -> None:
    """End every stream of this process."""
    for watches in list(_open.values()):
        with watches.lock:
            for _, stream in watches.open.values():
                stream.close()
            watches.open.clear()
        watches.heard.close()
    _open.clear()


def _begin(context: Context, where: Address, heard: Heard) -> Watch | None:
    def work(driver: Driver, deadline: Deadline) -> Watch | None:
        return driver.watch(partial(heard.put, where), deadline) if isinstance(driver, Watching) else None

    try:
        stream: Watch | None = context.hosts.call(where, work, seconds=10.0)
    except DriverError as error:
        log.info("changes cannot be watched", host=where.name, reason=error.reason)
        return None
    return stream
