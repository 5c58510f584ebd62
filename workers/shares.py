"""Each host is visited by one of the living workers: it asks whether the host is there, lists what it has, reads its
counters and keeps the stream of its changes. Jobs are carried out by any worker.

Invariant: a host has one owner among the workers that show signs of life (``gateway/jobs/worker.py``), and a worker
that died is missed after ``LASTS`` at most; whatever it visited, others visit at their next turn. A context without a
worker's name visits all: somebody who is alone.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

from sqlmodel import Session

from gateway.compute.host import Host
from gateway.jobs import worker
from gateway.kernel.db import Database
from gateway.kernel.errors import Unavailable
from workers.sweep import Context, reconciler


def mine(context: Context, session: Session, hosts: Any) -> list[Host]:
    """Those of the hosts that a statement finds which this worker visits now."""
    found = session.exec(hosts)
    if not context.worker:
        return list(found)
    names = worker.alive(session)
    return [host for host in found if worker.owner(names, host.id) == context.worker]


@reconciler("workers", every_s=4.0)
def show(context: Context) -> None:
    """Give a sign of life, and forget workers that have given none for too long."""
    if context.worker:
        context.db.run(partial(worker.show, name=context.worker))


def leave(db: Database, name: str) -> None:
    """Have others visit that worker's hosts from now on; without a database its sign of life runs out by itself."""
    with suppress(Unavailable):
        db.run(partial(worker.forget, names=[name]))
