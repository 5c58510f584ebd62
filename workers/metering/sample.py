"""Samples at work: one bulk call a host, by the worker that visits it; and the forgetting of what is past its time."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import structlog
from sqlmodel import Session, col, select

from drivers.api import DriverError, Power
from drivers.api import Sample as DriverSample
from gateway.compute import console
from gateway.compute.host import Host, HostStatus
from gateway.compute.server import Server
from gateway.integration import webhook
from gateway.jobs import event, idempotency, turn, worker
from gateway.kernel import clock
from gateway.metering import sample
from gateway.metering.sample import Reading
from workers import shares
from workers.hypervisor import Address
from workers.reach import address_of, side_by_side
from workers.sweep import Context, reconciler

SAMPLE_S = 20.0
PRUNE_EVERY = timedelta(hours=1)

log = structlog.get_logger(__name__)


@reconciler("samples", every_s=1.0)
def look(context: Context) -> None:
    """Read every host's counters when it is time."""
    every = timedelta(seconds=context.settings.sample_every_s)
    name = worker.turn("samples", context.worker) if context.worker else "samples"
    if not context.db.run(partial(turn.take, name=name, every=every)):
        return
    with context.db.read() as session:
        online = shares.mine(context, session, select(Host).where(Host.status == HostStatus.ONLINE))
        known = [(host.id, address_of(session, host)) for host in online]
    side_by_side(known, lambda each: _read(context, *each))


def _read(context: Context, host_id: int, where: Address) -> None:
    try:
        found = context.hosts.call(where, lambda driver, deadline: driver.machines.sample(deadline), seconds=SAMPLE_S)
    except DriverError as error:
        log.info("host could not be sampled", host=where.name, reason=error.reason)
        return
    readings = [_reading(each) for each in found if each.power is Power.RUNNING]
    if readings:
        context.db.run(partial(_keep, host_id=host_id, readings=readings))


def _keep(session: Session, host_id: int, readings: list[Reading]) -> int:
    """Keep the readings of servers that are on this host by our rows; strangers have no owner to count for."""
    own = set(session.exec(select(Server.uid).where(col(Server.host_id) == host_id)))
    return sample.record(session, [each for each in readings if each.server_uid in own])


def _reading(found: DriverSample) -> Reading:
    return Reading(
        server_uid=found.machine_id,
        at=found.at,
        cpu_time_ns=found.cpu_time_ns,
        vcpus=found.vcpus,
        ram_mib=found.ram_mib,
        ram_used_mib=found.ram_used_mib,
        disk_read_bytes=found.disk_read_bytes,
        disk_written_bytes=found.disk_written_bytes,
        disk_reads=found.disk_reads,
        disk_writes=found.disk_writes,
        net_received_bytes=found.net_received_bytes,
        net_sent_bytes=found.net_sent_bytes,
        quality=sample.Quality(found.quality.value),
    )


@reconciler("retention", every_s=60.0)
def forget(context: Context) -> None:
    """Forget old samples, events and idempotency keys."""
    if not context.db.run(partial(turn.take, name="retention", every=PRUNE_EVERY)):
        return

    def work(session: Session) -> int:
        own = sample.prune(session, clock.now(session)) + webhook.prune(session) + console.prune(session)
        return own + event.prune(session) + idempotency.prune(session)

    log.info("retention", forgotten=context.db.run(work))
