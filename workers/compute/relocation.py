"""Servers on their way to another host of their pool: the saga ``server.relocate``.

place -> stop -> network -> move -> leave -> start. A server that moves live, or that is off, is not stopped. The steps
are those of ``server.resize`` too, which moves a server when its host has no room for its new size: which hosts they
are about is in the job's memory (``source_id`` and ``target_id``; both the same when it stays). From the move on the
server is recorded on its new host. Whatever fails is taken back to the old one, where the room is held until the end.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlmodel import Session

from drivers.api import (
    Capability,
    Deadline,
    Driver,
    HostAtFault,
    Power,
    PowerAction,
    Relocation,
    Transient,
    Unsupported,
)
from gateway.compute import host as hosts
from gateway.compute import placing, relocation
from gateway.compute import server as servers
from gateway.compute.host import Amount
from gateway.compute.server import Server
from gateway.compute.server_state import Phase
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.network import port as ports
from gateway.network.port import Port, PortStatus
from workers.compute.machine import observed
from workers.compute.power import POWER_S, shut_down
from workers.network import network as network_work
from workers.network import port as port_work
from workers.reach import address, call
from workers.saga import Change, Run, Step, saga

RELOCATE_S = 3600.0


def server_of(session: Session, run_or_job: Run | Job) -> Server:
    """The server of a job. Raises NotFound when it is gone."""
    server = session.get(Server, run_or_job.arguments["server_id"])
    if server is None:
        raise errors.NotFound("The server is gone.")
    return server


def stays(run: Run) -> bool:
    """Whether the job leaves the server on its host: because it was so decided, or nothing was decided yet."""
    return bool(run.memory.get("source_id") == run.memory.get("target_id"))


def old(run: Run, work: Any, *, seconds: float = 120.0) -> Any:
    """A call of the host that the server is to leave: another new host would not help against its faults."""
    try:
        return call(run, run.memory["source_id"], work, seconds=seconds)
    except HostAtFault as error:
        raise Transient(error.reason, vendor_code=error.vendor_code) from error


def look(run: Run, host_id: int, uid: Any) -> Any:
    """The machine, which runs or is off. Raises InvalidState."""

    def work(driver: Driver, deadline: Deadline) -> Any:
        return driver.machines.inspect(uid, deadline)

    machine = call(run, host_id, work)
    if machine is None or machine.power not in (Power.RUNNING, Power.OFF):
        current = "ABSENT" if machine is None else machine.power.value
        raise errors.InvalidState(f"The machine is {current}.", current=current, allowed=["RUNNING", "OFF"])
    return machine


def standing(run: Run) -> Server:
    """The server, on a host and waiting for nothing. Raises NotFound, InvalidState."""
    with run.read() as session:
        server = server_of(session, run)
    if server.phase is not Phase.READY or server.host_id is None:
        current = server.status.value
        raise errors.InvalidState(f"The server is {current}.", current=current, allowed=["ACTIVE", "STOPPED"])
    return server


def seen(machine: Any, why: str | None = None) -> Change:
    """Record what was seen of the machine; ``why`` it stands where it stands."""

    def change(session: Session, job: Job) -> None:
        server = session.get(Server, job.arguments["server_id"])
        if server is not None:
            servers.observe(session, server, observed(machine))
            server.status_reason = why if why is not None else server.status_reason

    return change


# ------------------------------------------------------------------------------------------------ stop


def stop(run: Run, why: str) -> Change | None:
    """Shut the machine down where it is, if it ran."""
    if not run.memory["ran"]:
        run.say("It was off.")
        return None
    with run.read() as session:
        uid = server_of(session, run).uid
    machine, asked = shut_down(partial(old, run), uid, float(run.arguments["graceful_timeout_s"]))
    run.say("The guest shut down." if asked else "The guest was powered off.")
    return seen(machine, why)


def start_again(run: Run) -> Change | None:
    """Have the machine run where it was, if it ran."""
    if not run.memory.get("ran"):
        return None
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
    if server is None:
        return None
    uid = server.uid
    machine = old(run, lambda driver, deadline: driver.machines.power(uid, PowerAction.ON, deadline), seconds=POWER_S)
    return seen(machine)


# ------------------------------------------------------------------------------------------------ network


def _plugged(run: Run) -> list[Port]:
    """The ports that the machine is on."""
    with run.read() as session:
        mine = ports.of_server(session, run.arguments["server_id"])
    return [port for port in mine if port.status is not PortStatus.ATTACHING]


def connect(run: Run) -> None:
    """Make the server's ports on the host that it goes to, too."""
    if stays(run):
        run.say("It stays on its host.")
        return
    mine = _bring_ports(run, run.memory["target_id"])
    run.say(f"Ports ready on the new host: {mine}." if mine else "It is on no network of the cloud.")


def disconnect(run: Run) -> None:
    """The ports are on the old host again, where they never ceased to be."""
    if not stays(run):
        _take_ports(run, run.memory["target_id"])
        _bring_ports(run, run.memory["source_id"])


def leave(run: Run) -> None:
    """Take the server's ports from the host that it left."""
    if not stays(run):
        _take_ports(run, run.memory["source_id"])
        run.say("Nothing of its ports is left on the old host.")


def return_ports(run: Run) -> None:
    """Make the ports on the old host again, before the machine comes back to it."""
    if not stays(run):
        _bring_ports(run, run.memory["source_id"])


def _bring_ports(run: Run, host_id: int) -> int:
    mine = _plugged(run)
    for network_id in dict.fromkeys(port.network_id for port in mine):
        network_work.ensure_on_host(run, network_id, host_id)
    for port in mine:
        port_work.ensure_on_host(run, port.id, host_id)
    return len(mine)


def _take_ports(run: Run, host_id: int) -> None:
    for port in _plugged(run):
        port_work.remove_from_host(run, port.id, host_id)


# ------------------------------------------------------------------------------------------------ move


def carry(run: Run, source_id: int, target_id: int) -> Any:
    """Have the machine be on the other host, as it is."""
    with run.read() as session:
        uid = server_of(session, run).uid
        there = run.hosts.config(address(session, target_id))

    def work(driver: Driver, deadline: Deadline) -> Any:
        if not isinstance(driver, Relocation):
            raise Unsupported(Capability.RELOCATE, "the host hands no machines to others")
        return driver.relocate(uid, there, deadline)

    return call(run, source_id, work, seconds=RELOCATE_S)


def _move(run: Run) -> Change:
    machine = carry(run, run.memory["source_id"], run.memory["target_id"])
    run.say(
        "The machine is on its new host, as it ran." if machine.power is Power.RUNNING else "It is on its new host."
    )

    def change(session: Session, job: Job) -> None:
        _arrive(session, job, "target_id", "source_id")
        servers.observe(session, server_of(session, job), observed(machine))

    return change


def _move_back(run: Run) -> Change | None:
    if "held" not in run.memory:
        return None
    machine = carry(run, run.memory["target_id"], run.memory["source_id"])

    def change(session: Session, job: Job) -> None:
        _arrive(session, job, "source_id", "target_id")
        servers.observe(session, server_of(session, job), observed(machine))

    return change


def _arrive(session: Session, job: Job, to: str, left: str) -> None:
    """The server is recorded there; the room is held on the other host."""
    relocation.moved(session, server_of(session, job), job.memory[to])
    job.memory = {**job.memory, "held": [job.memory[left], *job.memory["held"][1:]]}


# ------------------------------------------------------------------------------------------------ server.relocate


def _place(run: Run) -> Change:
    server = standing(run)
    machine = look(run, server.host_id or 0, server.uid)
    running = machine.power is Power.RUNNING

    def change(session: Session, job: Job) -> None:
        moving = server_of(session, job)
        amount = relocation.amount_of(session, moving)
        wanted = relocation.request(session, moving, amount, frozenset(run.avoid), job.arguments["target_id"])
        host = placing.place(session, wanted, amount, "server")
        if host is None:
            raise Transient("other servers took the room first")
        job.memory = {
            **job.memory,
            "host_id": host.id,
            "target_id": host.id,
            "source_id": moving.host_id,
            "held": [host.id, amount.vcpus, amount.ram_mib, amount.disk_gib],
            "ran": running and not job.arguments["live"],
        }

    run.say("A host was chosen and its room claimed.")
    return change


def _unplace(_run: Run) -> Change:
    def change(session: Session, job: Job) -> None:
        if "held" not in job.memory:
            return
        _release(session, job)
        told = ("host_id", "target_id", "source_id", "ran")
        job.memory = {key: value for key, value in job.memory.items() if key not in told}

    return change


def _release(session: Session, job: Job) -> None:
    host_id, *amount = job.memory["held"]
    hosts.release(session, host_id, Amount(*amount))
    job.memory = {key: value for key, value in job.memory.items() if key != "held"}


def _stop(run: Run) -> Change | None:
    if run.arguments["live"]:
        run.say("It is moved as it is.")
        return None
    return stop(run, "It is being moved to another host.")


def _start(run: Run) -> Change:
    with run.read() as session:
        uid = server_of(session, run).uid
    ran, target_id = run.memory["ran"], run.memory["target_id"]

    def work(driver: Driver, deadline: Deadline) -> Any:
        if ran:
            return driver.machines.power(uid, PowerAction.ON, deadline)
        return driver.machines.inspect(uid, deadline)

    machine = call(run, target_id, work, seconds=POWER_S)
    if machine is None or (ran and machine.power is not Power.RUNNING):
        raise Transient(f"the machine is {'gone' if machine is None else machine.power.value} on its new host")
    run.say("It is powered on." if ran else "The new host has it as it was.")

    def change(session: Session, job: Job) -> None:
        servers.observe(session, server_of(session, job), observed(machine))
        _release(session, job)

    return change


def _halt(run: Run) -> None:
    """Off again before it goes back, if it was this job that started it."""
    if not run.memory.get("ran") or "held" not in run.memory:
        return
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
        uid, host_id = (server.uid, server.host_id) if server is not None else (None, None)
    if host_id is not None:
        call(run, host_id, lambda driver, deadline: driver.machines.power(uid, PowerAction.OFF, deadline))


saga(
    "server.relocate",
    Step("place", _place, _unplace),
    Step("stop", _stop, start_again),
    Step("network", connect, disconnect),
    Step("move", _move, _move_back),
    Step("leave", leave, return_ports),
    Step("start", _start, _halt),
)
