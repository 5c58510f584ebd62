"""How workers reach a host: from its row to a driver call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlmodel import Session, col

from gateway.compute.host import Host
from gateway.jobs.job import Job
from gateway.kernel.prepared import Prepared, get, rows_of
from gateway.kernel.secretbox import Sealed
from workers.hypervisor import Address
from workers.saga import Run

T = TypeVar("T")


def address(session: Session, host_id: int) -> Address:
    """How a host is reached. Raises LookupError when it is gone."""
    host = get(session, Host, host_id)
    if host is None:
        raise LookupError(f"host {host_id} is gone")
    return address_of(session, host)


def address_of(session: Session, host: Host) -> Address:
    """How this host is reached."""
    box: Sealed = session.info["sealed"]
    return Address(
        host_id=host.id,
        kind=host.hypervisor.value,
        name=host.name,
        endpoint=host.endpoint,
        options=tuple(sorted(host.options.items())),
        username=host.username,
        secret=box.open(host.sealed_secret) if host.sealed_secret else None,
    )


def call(run: Run, host_id: int, work: Any, *, seconds: float = 120.0) -> Any:
    """Run ``work(driver, deadline)`` on a host, from a step."""
    where = run.addresses.get(host_id)
    if where is None:
        with run.read() as session:
            where = run.addresses[host_id] = address_of(session, host_of(session, run, host_id))
    return run.hosts.call(where, work, seconds=seconds)


_WITH_JOB = Prepared(
    sa.select(
        sa.select(sa.inspect(Job).columns.version).where(col(Job.id) == sa.bindparam("job")).scalar_subquery(),
        *rows_of(Host).columns,
    ).where(col(Host.id) == sa.bindparam("host"))
)
"""A host's row, and how the job's is by now."""


def host_of(session: Session, run: Run, host_id: int) -> Host:
    """A host as this claim of the job found it, and with it the look at the job's row, if one is due: whoever wants a
    host is about to call it. Raises LookupError when it is gone.
    """
    hosts: dict[int, Host] = run.known.setdefault("hosts", {})
    if host_id in hosts:
        return hosts[host_id]
    found = None

    def read() -> int | None:
        nonlocal found
        row = _WITH_JOB.first(session, job=run.job_id, host=host_id)
        found = None if row is None else rows_of(Host).object(session, row[1:])
        return None if row is None else row[0]

    if run.guard is not None:
        run.look(read)
    else:
        found = get(session, Host, host_id)
    if found is None:
        raise LookupError(f"host {host_id} is gone")
    hosts[host_id] = found
    return found


AT_ONCE = 16


def side_by_side(items: Sequence[T], work: Callable[[T], object]) -> None:
    """Run ``work`` for many hosts, a few at a time: one that hangs must not hold up the look at the others. Every
    item is worked on; the first fault that was not expected is raised at the end.
    """
    if len(items) <= 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(items)), thread_name_prefix="look") as pool:
        for done in [pool.submit(work, item) for item in items]:
            done.result()
