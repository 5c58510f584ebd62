"""Servers that stand still and go on, at work. A machine that went off meanwhile is not started by letting it go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlmodel import Session

from drivers.api import Power, PowerAction
from gateway.compute import server as servers
from gateway.compute.server import Server
from gateway.compute.server_state import Phase
from gateway.jobs.job import Job
from gateway.kernel import errors
from workers.compute.machine import observed
from workers.reach import call
from workers.saga import Change, Run, Step, saga

SAVE_S = 300.0
HALTS = {Power.SUSPENDED: PowerAction.SUSPEND, Power.PAUSED: PowerAction.PAUSE}


def _halt(run: Run) -> Change:
    state = Power(run.arguments["state"])
    run.say(f"The machine is {state.lower()}.")
    return _carry_out(run, _ready(run, Power.RUNNING), HALTS[state], (Power.RUNNING, state))


def _resume(run: Run) -> Change:
    state = Power(run.arguments["state"])
    run.say("The machine goes on.")
    return _carry_out(run, _ready(run, state), PowerAction.ON, (state, Power.RUNNING))


def _ready(run: Run, start: Power) -> Server:
    with run.read() as session:
        server = session.get(Server, run.arguments["server_id"])
    if server is None or server.phase is not Phase.READY or server.host_id is None:
        raise _wrong("gone" if server is None else server.status.value, start)
    return server


def _back(do: Callable[[Run], Change]) -> Callable[[Run], Change | None]:
    """The way back, which is the same the other way round; what somebody stopped or deleted is left alone."""

    def undo(run: Run) -> Change | None:
        try:
            return do(run)
        except errors.InvalidState:
            return None

    return undo


def _carry_out(run: Run, server: Server, action: PowerAction, allowed: tuple[Power, Power]) -> Change:
    uid = server.uid

    def work(driver: Any, deadline: Any) -> Any:
        there = driver.machines.inspect(uid, deadline)
        if there is None or there.power not in allowed:
            raise _wrong("gone" if there is None else there.power.value, allowed[0])
        return driver.machines.power(uid, action, deadline)

    machine = call(run, server.host_id or 0, work, seconds=SAVE_S)

    def change(session: Session, job: Job) -> None:
        found = session.get(Server, job.arguments["server_id"])
        if found is not None:
            servers.observe(session, found, observed(machine))

    return change


def _wrong(current: str, start: Power) -> errors.InvalidState:
    return errors.InvalidState(f"The server is {current}.", current=current, allowed=[start.value])


saga("server.halt", Step("power", _halt, _back(_resume)))
saga("server.resume", Step("power", _resume, _back(_halt)))
