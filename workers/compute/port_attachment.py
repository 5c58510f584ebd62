"""Ports plugged in and out at work. A port comes to the host before it is plugged in, and leaves it after it is
unplugged; each of the two is taken back by itself.
"""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from drivers.api import Capability, Deadline, Driver, NicSpec, PortPlugging, Unsupported
from gateway.compute import port_attachment
from gateway.compute.server import Server
from gateway.compute.server_state import Observed, Phase
from gateway.jobs.job import Job
from gateway.kernel import errors
from gateway.kernel.errors import Refusal
from gateway.network.network import Network
from gateway.network.port import Port, PortStatus
from workers.network import port as port_work
from workers.reach import call
from workers.saga import Change, Run, Step, saga

UNPLUG_S = 60.0
_UNFIT = frozenset({Observed.SUSPENDED, Observed.PAUSED, Observed.ABSENT})


def _able(driver: Driver) -> PortPlugging:
    if not isinstance(driver, PortPlugging):
        raise Unsupported(Capability.PORT_HOT_ATTACH, "this hypervisor's driver plugs no ports")
    return driver


def _there(session: Session, run_or_job: Run | Job) -> tuple[Server | None, Port | None]:
    """The server, and the port as long as it is that server's."""
    server = session.get(Server, run_or_job.arguments["server_id"])
    port = session.get(Port, run_or_job.arguments["port_id"])
    mine = port is not None and port.server_id == run_or_job.arguments["server_id"]
    return server, port if mine else None


def _pair(run: Run) -> tuple[Server, Port, int]:
    """Server, port and host of a job that can be carried out. Raises InvalidState."""
    with run.read() as session:
        server, port = _there(session, run)
    if server is None or server.phase is not Phase.READY or server.host_id is None or server.observed in _UNFIT:
        current = "gone" if server is None else server.status.value
        raise errors.InvalidState(f"The server is {current}.", current=current, allowed=["ACTIVE", "STOPPED"])
    if server.migration_id is not None:
        message = "The server's last move is not confirmed yet."
        raise errors.InvalidState(message, current="MIGRATING", allowed=["ACTIVE", "STOPPED"])
    if port is None:
        raise errors.InvalidState("The port was freed.", current="AVAILABLE", allowed=["ATTACHING", "DETACHING"])
    return server, port, server.host_id


def _bring(run: Run) -> None:
    _, port, host_id = _pair(run)
    port_work.ensure_on_host(run, port.id, host_id)
    run.say("The port is ready on the server's host.")


def _take_away(run: Run) -> None:
    with run.read() as session:
        server, port = _there(session, run)
    host_id = port.host_id if port is not None else None
    if port is not None and server is not None and (host_id or server.host_id) is not None:
        port_work.remove_from_host(run, port.id, host_id or server.host_id or 0)


def _plug(run: Run) -> Change:
    server, port, host_id = _pair(run)
    with run.read() as session:
        network = session.get_one(Network, port.network_id)
    nic = NicSpec(port.uid, network.uid, port.mac)
    call(run, host_id, lambda driver, deadline: _able(driver).plug_port(server.uid, nic, deadline))
    run.say(f"The server has an interface with the address {port.mac}.")

    def change(session: Session, job: Job) -> None:
        _, mine = _there(session, job)
        if mine is not None:
            port_attachment.attached(mine)

    return change


def _pull(run: Run) -> None:
    """Unplug it, wherever the job has come to."""
    with run.read() as session:
        server, port = _there(session, run)
    if server is None or port is None or server.host_id is None:
        return

    def work(driver: Driver, deadline: Deadline) -> Any:
        if isinstance(driver, PortPlugging):
            driver.unplug_port(server.uid, port.uid, deadline)

    call(run, server.host_id, work, seconds=UNPLUG_S)


def _unplugged(run: Run) -> Change:
    """Taking an attachment back: the port is a promise again."""
    _pull(run)

    def change(session: Session, job: Job) -> None:
        _, port = _there(session, job)
        if port is not None and port.status is PortStatus.IN_USE:
            port.status = PortStatus.ATTACHING

    return change


def _not_attached(session: Session, job: Job, _why: Refusal) -> None:
    server, port = _there(session, job)
    if port is not None and port.status is PortStatus.ATTACHING:
        port_attachment.freed(session, port, server, close=job.arguments["fresh"])


saga("port.attach", Step("host", _bring, _take_away), Step("plug", _plug, _unplugged), failed=_not_attached)


def _unplug(run: Run) -> None:
    _pull(run)
    run.say("The server has no interface on the port any more.")


def _replug(run: Run) -> None:
    """A detachment that failed: the interface goes back in, unless the server is on its way out."""
    try:
        _plug(run)
    except errors.InvalidState:
        return


def _leave(run: Run) -> Change:
    _take_away(run)

    def change(session: Session, job: Job) -> None:
        server, port = _there(session, job)
        if port is not None and port.status is PortStatus.DETACHING:
            port_attachment.freed(session, port, server, close=job.arguments["delete"])

    return change


def _return(run: Run) -> None:
    try:
        _bring(run)
    except errors.InvalidState:
        return


def _still_attached(session: Session, job: Job, _why: Refusal) -> None:
    _, port = _there(session, job)
    if port is not None and port.status is PortStatus.DETACHING:
        port.status = PortStatus.IN_USE


saga("port.detach", Step("unplug", _unplug, _replug), Step("host", _leave, _return), failed=_still_attached)
