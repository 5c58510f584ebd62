"""Placing: choose the best host from the inventory, and claim room on it, in the caller's unit of work.

Invariant: what is counted in fits, whatever others do at the same time; the claim alone decides, and the inventory only
says whom to ask first. When others hold or took the best host the next best is asked, so parallel placements do not
queue up behind each other.
"""

from __future__ import annotations

from sqlmodel import Session

from gateway.compute import host as hosts
from gateway.compute import inventory
from gateway.compute.host import Amount
from gateway.compute.placement import Candidate, Decision, Request, decide
from gateway.kernel.errors import NoValidHost

ROUNDS = 8
"""How often all of the best may be taken by others before it is given up."""


def place(session: Session, wanted: Request, amount: Amount, what: str) -> Candidate | None:
    """Claim room for what is wanted; the host, or None when others were faster again and again. Raises NoValidHost
    with the explanation when no host fits.
    """
    known = inventory.of(session)
    for _ in range(ROUNDS):
        best = known.rank(wanted)
        if not best:
            raise NoValidHost(
                f"No host can take the {what}.", decision=decide(wanted, known.everyone(session)).to_json()
            )
        for wait in (False, True):
            for host in best:
                if hosts.claim(session, host.id, amount, wait=wait):
                    return host
                known.doubt(host.id)
        if not hosts.has_claimed(session):
            known.reread(session, [host.id for host in best])
    return None


def explain(session: Session, wanted: Request) -> Decision:
    """Where it would be placed now, and why not elsewhere."""
    known = inventory.of(session)
    return decide(wanted, known.everyone(session), known.rank(wanted))


__all__ = ["explain", "place"]
