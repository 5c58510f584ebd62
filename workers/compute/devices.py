"""Servers with other devices: the saga ``server.devices``. The machine is forgotten and defined anew; its disks and
ports are things of their own and stay.
"""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from gateway.compute import server as servers
from gateway.compute.machine_model import Devices
from gateway.compute.server import Server
from gateway.compute.server_state import Observed, Phase
from gateway.jobs.job import Job
from gateway.kernel import errors
from workers.compute.machine import observed, spec
from workers.reach import call
from workers.saga import Change, Run, Step, saga

BUILD_S = 600.0


def _define(run: Run, server: Server, devices: Devices) -> Any:
    """The machine with these devices, off."""
    with run.read() as session:
        wanted = spec(session, server, devices=devices)

    def work(driver: Any, deadline: Any) -> Any:
        driver.machines.remove(wanted.id, deadline)
        return driver.machines.ensure(wanted, deadline)

    return call(run, server.host_id or 0, work, seconds=BUILD_S)


def _change(run: Run) -> Change:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
    off = server is not None and server.phase is Phase.READY and server.observed is Observed.OFF
    if server is None or not off or server.host_id is None or server.migration_id is not None:
        current = "gone" if server is None else server.status.value
        raise errors.InvalidState(f"The server is {current}.", current=current, allowed=["STOPPED"])
    devices = Devices(run.arguments["devices"])
    machine = _define(run, server, devices)
    run.say(f"The machine is defined anew, with {devices.value} devices.")

    def change(session: Session, job: Job) -> None:
        found = session.get_one(Server, job.arguments["server_id"])
        found.devices = Devices(job.arguments["devices"])
        servers.observe(session, found, observed(machine))

    return change


def _change_back(run: Run) -> Change | None:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
    before = Devices.OWN if run.arguments["devices"] == Devices.VMWARE else Devices.VMWARE
    if server is None or server.host_id is None or server.phase is not Phase.READY:
        return None
    if server.observed is Observed.OFF:  # else the machine was never touched
        _define(run, server, before)

    def change(session: Session, job: Job) -> None:
        found = session.get(Server, job.arguments["server_id"])
        if found is not None:
            found.devices = before

    return change


saga("server.devices", Step("machine", _change, _change_back))
