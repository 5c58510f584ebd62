"""How workers reach a host: from its row to a driver call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlmodel import Session

from gateway.compute.host import Host
from gateway.kernel.prepared import get
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
            where = run.addresses[host_id] = address(session, host_id)
    return run.hosts.call(where, work, seconds=seconds)


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
