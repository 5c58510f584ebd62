"""Hosts at work: the probe job, and the look after those that stop answering."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import structlog
from sqlmodel import Session, select

from drivers import registry
from drivers.api import Deadline, Driver, DriverError, HostFacts, capabilities
from gateway.compute import host as hosts
from gateway.compute.host import Host, HostStatus, Observed
from gateway.compute.migration import VIRT_V2V
from gateway.jobs.job import Job
from gateway.kernel import clock
from workers import shares
from workers.compute import v2v
from workers.hypervisor import Address
from workers.reach import address, address_of, side_by_side
from workers.saga import Change, Run, Step, saga
from workers.sweep import Context, reconciler

PROBE_S = 20.0

log = structlog.get_logger(__name__)


def _facts(where: Address) -> Any:
    def work(driver: Driver, deadline: Deadline) -> tuple[HostFacts, list[str]]:
        facts = driver.facts(deadline)  # first: it also finds out what the host withholds
        can = [each.value for each in capabilities(driver, registry.get(where.kind))]
        return facts, sorted([*can, VIRT_V2V] if v2v.found() else can)

    return work


def _probe(run: Run) -> Change:
    host_id = run.arguments["host_id"]
    with run.read() as session:
        where = address(session, host_id)
    facts, can = run.hosts.call(where, _facts(where), seconds=PROBE_S)
    run.say(f"{facts.hypervisor} {facts.version}: {facts.vcpus} CPUs, {facts.ram_mib} MiB, {facts.disk_gib} GiB")

    def change(session: Session, _job: Job) -> None:
        host = session.get_one(Host, host_id)
        hosts.seen(session, host, Observed(asdict(facts), can), clock.now(session))

    return change


def _lost(session: Session, job: Job, why: Any) -> None:
    host = session.get(Host, job.arguments["host_id"])
    if host is not None:
        hosts.lost(host, why.message)


saga(
    "host.probe",
    Step("probe", _probe, kept="a probe changes nothing on the host"),
    failed=_lost,
)


@reconciler("hosts", every_s=10.0)
def look(context: Context) -> None:
    """Ask every host whether it is there; record only changes."""
    with context.db.read() as session:
        known = [(host, address_of(session, host)) for host in shares.mine(context, session, select(Host))]
    side_by_side(known, lambda each: _look_at(context, *each))


def _look_at(context: Context, known: Host, where: Address) -> None:
    try:
        facts, can = context.hosts.call(where, _facts(where), seconds=PROBE_S)
    except DriverError as error:
        if known.status is not HostStatus.OFFLINE:
            log.warning("host does not answer", host=where.name, reason=error.reason)
            context.db.run(partial(_lose, host_id=known.id, reason=error.reason))
        return
    found = asdict(facts)
    if known.status is not HostStatus.ONLINE or known.facts != found or known.capabilities != can:
        context.db.run(partial(_see, host_id=known.id, observed=Observed(found, can)))


def _see(session: Session, host_id: int, observed: Observed) -> None:
    host = session.get(Host, host_id)
    if host is not None:
        hosts.seen(session, host, observed, clock.now(session))


def _lose(session: Session, host_id: int, reason: str) -> None:
    host = session.get(Host, host_id)
    if host is not None:
        hosts.lost(host, reason)
