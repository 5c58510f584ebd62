"""Servers at work: the sagas of their lives.

Creating: place -> network -> image -> disks -> machine -> power -> active. Every effect is on one host and is taken
back in reverse. Deleting goes only forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from drivers.api import Power, PowerAction, Transient, VolumeSpec
from gateway.compute import host as hosts
from gateway.compute import migration as migrations
from gateway.compute import placing, resizing, server_create, server_snapshot
from gateway.compute import server as servers
from gateway.compute.host import Amount, Hypervisor
from gateway.compute.server import Server
from gateway.compute.server_state import Observed, Phase
from gateway.image.image import Image
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.db import unread
from gateway.kernel.errors import Refusal
from gateway.kernel.prepared import Prepared, get
from gateway.network import port as ports
from gateway.volume import volume as volumes
from gateway.volume.volume import Volume, VolumeStatus
from workers.compute.adopt import disown
from workers.compute.machine import observed, spec
from workers.compute.migration import drop_kept
from workers.image.image import ensure_on_host as ensure_image
from workers.network import network as network_work
from workers.network import port as port_work
from workers.reach import call, host_of
from workers.saga import Change, Run, Step, saga

POWER_S = 60.0
BUILD_S = 600.0
_GIB = 1 << 30


def _server(session: Session, run_or_job: Run | Job) -> Server:
    """The server of a job. Raises NotFound when it is gone."""
    server = get(session, Server, run_or_job.arguments["server_id"])
    if server is None:
        raise _gone_error()
    return server


def _gone_error() -> errors.NotFound:
    return errors.NotFound("The server is gone.")


def _facts(run: Run) -> Server:
    """The server of a job for what never changes about it (ids, size, image): read once. Raises NotFound."""
    found: Server | None = run.known.get("server")
    if found is None:
        with run.read() as session:
            found = run.known["server"] = _server(session, run)
    return found


def _gone(session: Session, run_or_job: Run | Job) -> Server | None:
    """The server of a job that goes on without it: a deletion, or an undo that a deletion came before."""
    return session.get(Server, run_or_job.arguments["server_id"])


def _fresh(session: Session, run_or_job: Run | Job) -> Sequence[Volume]:
    """The volumes that are made with the server."""
    if not run_or_job.arguments["fresh_volumes"]:
        return ()
    return session.exec(select(Volume).where(col(Volume.id).in_(run_or_job.arguments["fresh_volumes"]))).all()


def _host(run: Run) -> int:
    host_id: int = run.memory["host_id"]
    return host_id


# ------------------------------------------------------------------------------------------------ place


def _place(run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        made = server_create.made(session, job.arguments["server_id"])
        if made is None:
            raise _gone_error()
        server = made.server
        asked = server_create.request(session, server, frozenset(run.avoid), held=made.volumes, connected=made.ports)
        amount = asked.amount
        host = placing.place(session, asked.request, amount, "server")
        if host is None:
            raise Transient("other servers took the room first")
        server.host_id = host.id
        server.hypervisor = Hypervisor(host.hypervisor)
        for volume in _fresh(session, job):
            volume.host_id = host.id  # its room is claimed with the server's
        job.memory = {**job.memory, "host_id": host.id, "amount": [amount.vcpus, amount.ram_mib, amount.disk_gib]}
        run.known.update(server=server, tenant_uid=made.tenant_uid, ports=asked.ports, volumes=asked.volumes)
        if asked.ports:
            ports.place(session, [port.id for port in asked.ports], host.id)

    run.say("A host was chosen and its room claimed.")
    return change


def _unplace(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        if "amount" not in job.memory:
            return
        server = _gone(session, job)
        if server is not None and server.host_id is not None:  # else it was deleted meanwhile, with what it held
            hosts.release(session, server.host_id, Amount(*job.memory["amount"]))
            server.host_id = None
            server.hypervisor = None
            for volume in _fresh(session, job):
                volume.host_id = None
        job.memory = {key: value for key, value in job.memory.items() if key not in ("host_id", "amount")}

    return change


# ------------------------------------------------------------------------------------------------ network


def _network(run: Run) -> Change | None:
    mine: list[ports.Port] | None = run.known.get("ports")
    if mine is None:
        with run.read() as session:
            mine = ports.of_server(session, run.arguments["server_id"])
    for network_id in dict.fromkeys(port.network_id for port in mine):
        network_work.ensure_on_host(run, network_id, _host(run))
    for port in mine:
        port_work.ensure_on_host(run, port.id, _host(run))
    run.say(f"Ports ready on the host: {len(mine)}." if mine else "No network was asked for.")
    return None


def _disconnect(run: Run) -> Change | None:
    if "host_id" not in run.memory:
        return None
    with run.read() as session:
        mine = ports.of_server(session, run.arguments["server_id"])
    for port in mine:
        port_work.remove_from_host(run, port.id, _host(run))
    return None


# ------------------------------------------------------------------------------------------------ disks


def _fetch_image(run: Run) -> Change | None:
    image_id = _facts(run).image_id
    if image_id is None:
        run.say("It boots from a volume.")
        return None
    run.known["image_uid"] = ensure_image(run, image_id, _host(run))
    run.say("The image is on the host.")
    return None


_IMAGE_UID = Prepared(sa.select(col(Image.uid)).where(col(Image.id) == sa.bindparam("key")))


def _image_uid(run: Run, server: Server) -> UUID | None:
    if server.image_id is not None and "image_uid" not in run.known:
        run.known["image_uid"] = run.value(_IMAGE_UID, key=server.image_id)
    return run.known.get("image_uid")


def _disks(run: Run) -> Change | None:
    server = _facts(run)
    image_uid = _image_uid(run, server)
    with run.read() as session:
        fresh = _fresh(session, run)
    wanted = [VolumeSpec(volume.uid, volume.size_gib * _GIB) for volume in fresh]
    if server.root_uid is not None and image_uid is not None:
        wanted.insert(0, VolumeSpec(server.root_uid, server.disk_gib * _GIB, image_id=image_uid))
    for each in wanted:
        call(
            run, _host(run), lambda driver, deadline, each=each: driver.volumes.ensure(each, deadline), seconds=BUILD_S
        )
    run.say(f"Disks made: {len(wanted)}.")
    if not fresh:
        return None

    def change(session: Session, job: Job) -> None:
        for volume in _fresh(session, job):
            volume.status = VolumeStatus.ATTACHING

    return change


def _drop_disks(run: Run) -> Change | None:
    if "host_id" not in run.memory:
        return None
    with run.read() as session:
        server = _gone(session, run)
        fresh = _fresh(session, run)
    if server is None:
        return None
    for uid in [*([server.root_uid] if server.root_uid else []), *(volume.uid for volume in fresh)]:
        call(run, _host(run), lambda driver, deadline, uid=uid: driver.volumes.remove(uid, deadline))

    def change(session: Session, job: Job) -> None:
        for volume in _fresh(session, job):
            volume.status = VolumeStatus.CREATING

    return change


# ------------------------------------------------------------------------------------------------ machine


def _machine(run: Run) -> Change | None:
    with run.read() as session:
        known = run.known
        wanted = spec(
            session,
            _facts(run),
            host=host_of(session, run, _host(run)),
            tenant_uid=known.get("tenant_uid"),
            held=known.get("volumes"),
            connected=known.get("ports"),
        )
    call(run, _host(run), lambda driver, deadline: driver.machines.ensure(wanted, deadline), seconds=BUILD_S)
    run.say("The machine is defined.")
    return None


def _unmake(run: Run) -> Change | None:
    if "host_id" not in run.memory:
        return None
    with run.read() as session:
        server = _gone(session, run)
    if server is not None:
        uid = server.uid
        call(run, _host(run), lambda driver, deadline: driver.machines.remove(uid, deadline))
    return None


def _power_on(run: Run) -> Change | None:
    uid = _facts(run).uid
    machine = call(
        run, _host(run), lambda driver, deadline: driver.machines.power(uid, PowerAction.ON, deadline), seconds=POWER_S
    )
    if machine.power is not Power.RUNNING:
        raise Transient(f"the machine is {machine.power.value} after it was powered on")
    run.known["machine"] = machine
    run.say("The machine is powered on.")
    return None


def _active(run: Run) -> Change:
    uid = _facts(run).uid
    machine = run.known.pop("machine", None)  # what the hypervisor said a moment ago, when it was powered on
    if machine is None:
        machine = call(run, _host(run), lambda driver, deadline: driver.machines.inspect(uid, deadline))
    bare = run.known.get("volumes") == []

    def change(session: Session, job: Job) -> None:
        known = run.known.pop("server", None)  # if it was changed since, this is done again and reads it
        server = _server(session, job) if known is None else unread(session, known)
        servers.ready(server)
        servers.observe(session, server, observed(machine))
        for volume in () if bare else volumes.of_server(session, server.id):
            volumes.attached(volume)

    run.say("The hypervisor says that it runs.")
    return change


def _failed(session: Session, job: Job, why: Refusal) -> None:
    server = session.get(Server, job.arguments["server_id"])
    if server is None:
        return
    _let_go(session, server, set(job.arguments["fresh_volumes"]))
    servers.fail(session, server, why.message)


def _let_go(session: Session, server: Server, doomed: set[int]) -> None:
    """Free what the server holds: its own ports and the doomed volumes go, the others are available again."""
    for port in ports.of_server(session, server.id):
        ports.unbind(session, port)
        if port.id in server.own_ports:
            ports.close(session, port)
    for volume in session.exec(select(Volume).where(Volume.server_id == server.id)).all():
        if volume.id in doomed:
            volumes.forget(session, volume)
        else:
            volumes.freed(volume)
    server.own_ports = []


saga(
    "server.create",
    Step("place", _place, _unplace, rows=True),
    Step("network", _network, _disconnect),
    Step("image", _fetch_image, kept="base images stay for the next server and are collected when unused"),
    Step("disks", _disks, _drop_disks),
    Step("machine", _machine, _unmake),
    Step("power", _power_on, kept="removing the machine powers it off"),
    Step("active", _active, kept="it only looks"),
    failed=_failed,
)


# ------------------------------------------------------------------------------------------------ power


def _for_power(run: Run) -> tuple[Any, int]:
    """The uid and host of a server whose power can be changed. Raises InvalidState."""
    with run.read() as session:
        server = _server(session, run)
    if server.phase is not Phase.READY or server.host_id is None:
        raise errors.InvalidState(
            f"The server is {server.status.value}.", current=server.status.value, allowed=["ACTIVE", "STOPPED"]
        )
    return server.uid, server.host_id


def _seen(machine: Any) -> Change:
    def change(session: Session, job: Job) -> None:
        servers.observe(session, _server(session, job), observed(machine))

    return change


def _start(run: Run) -> Change:
    uid, host_id = _for_power(run)
    machine = call(
        run, host_id, lambda driver, deadline: driver.machines.power(uid, PowerAction.ON, deadline), seconds=POWER_S
    )
    return _seen(machine)


def _stop(run: Run) -> Change:
    uid, host_id = _for_power(run)
    patience = float(run.arguments["graceful_timeout_s"])
    machine = None
    if patience:
        machine = call(
            run, host_id, lambda driver, deadline: driver.machines.power(uid, PowerAction.SHUTDOWN, deadline),
            seconds=patience,
        )  # fmt: skip
    if machine is None or machine.power is not Power.OFF:
        run.say("The guest did not shut down in time; it was powered off." if patience else "Powered off.")
        machine = call(
            run,
            host_id,
            lambda driver, deadline: driver.machines.power(uid, PowerAction.OFF, deadline),
            seconds=POWER_S,
        )
    else:
        run.say("The guest shut down.")
    return _seen(machine)


def _reboot(run: Run) -> Change:
    uid, host_id = _for_power(run)
    action = PowerAction.RESET if run.arguments["hard"] else PowerAction.REBOOT
    machine = call(run, host_id, lambda driver, deadline: driver.machines.power(uid, action, deadline), seconds=POWER_S)
    return _seen(machine)


_ONCE = "a change of power is not taken back"

saga("server.start", Step("power", _start, kept=_ONCE))
saga("server.stop", Step("power", _stop, kept=_ONCE))
saga("server.reboot", Step("power", _reboot, kept=_ONCE))


# ------------------------------------------------------------------------------------------------ delete


def _begin(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        server = _gone(session, job)
        if server is None:
            return
        servers.begin_deletion(server)
        job.memory = {**job.memory, "host_id": server.host_id, "uid": str(server.uid)}

    return change


def _delete_machine(run: Run) -> Change:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        kept = migrations.of_server(session, run.arguments["server_id"])
    if server is not None:
        for each in kept:
            drop_kept(run, server, each)
    if server is not None and server.host_id is not None:
        uid = server.uid
        if server.in_place and server.migration_id is None:
            call(run, server.host_id, lambda driver, deadline: disown(driver, uid, deadline))
            run.say("The machine was adopted: it is handed back, with its disks, and stays as it is.")
        else:
            call(run, server.host_id, lambda driver, deadline: driver.machines.remove(uid, deadline))

    def change(session: Session, job: Job) -> None:
        found = _gone(session, job)
        if found is not None:
            servers.observe(session, found, Observed.ABSENT)

    return change


def _goes_along(volume: Volume) -> bool:
    """Whether a volume goes with its server: because its owner said so, or because it never was made."""
    return volume.delete_with_server or volume.status is VolumeStatus.CREATING


def _delete_disks(run: Run) -> Change:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        held = session.exec(select(Volume).where(Volume.server_id == run.arguments["server_id"])).all()
    if server is not None and server.host_id is not None:
        doomed = [volume.uid for volume in held if _goes_along(volume)]
        for uid in [*([server.root_uid] if server.root_uid else []), *doomed]:
            call(run, server.host_id, lambda driver, deadline, uid=uid: driver.volumes.remove(uid, deadline))
    kept = sum(not _goes_along(volume) for volume in held)
    run.say(f"Its disks are gone; {kept} volumes stay." if kept else "Its disks are gone.")

    def change(session: Session, job: Job) -> None:
        for volume in session.exec(select(Volume).where(Volume.server_id == job.arguments["server_id"])).all():
            if _goes_along(volume):
                if volume.host_id is not None:
                    hosts.release(session, volume.host_id, Amount(disk_gib=volume.size_gib))
                volumes.forget(session, volume)
            else:
                volumes.freed(volume)

    return change


def _delete_ports(run: Run) -> Change:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        mine = ports.of_server(session, run.arguments["server_id"])
    if server is not None and server.host_id is not None:
        for port in mine:
            port_work.remove_from_host(run, port.id, server.host_id)

    def change(session: Session, job: Job) -> None:
        found = _gone(session, job)
        if found is not None:
            _let_go(session, found, set())

    return change


def _forget(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        server = _gone(session, job)
        if server is None:
            return
        if server.host_id is not None:
            fresh = Amount(server.vcpus, server.ram_mib, server.disk_gib)
            hosts.release(session, server.host_id, fresh)
        for each in server_snapshot.of_server(session, server.id):
            server_snapshot.forget(session, each)
        migrations.forget(session, server.id)
        resizing.forget(session, server)
        servers.forget(session, server)

    return change


saga(
    "server.delete",
    Step("begin", _begin, kept="a deletion goes on until it is done", rows=True),
    Step("machine", _delete_machine, kept="a deletion goes on until it is done"),
    Step("disks", _delete_disks, kept="a deletion goes on until it is done"),
    Step("network", _delete_ports, kept="a deletion goes on until it is done"),
    Step("release", _forget, kept="a deletion goes on until it is done"),
    forward=True,
)
