"""How workers reach a host: from its row to a driver call."""

from __future__ import annotations

from typing import Any

from sqlmodel import Session

from gateway.compute.host import Host
from gateway.kernel.secretbox import Sealed
from workers.hypervisor import Address
from workers.saga import Run


def address(session: Session, host_id: int) -> Address:
    """How a host is reached. Raises LookupError when it is gone."""
    host = session.get(Host, host_id)
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
    with run.read() as session:
        where = address(session, host_id)
    return run.hosts.call(where, work, seconds=seconds)
