"""Forgets sessions that were over long ago."""

from __future__ import annotations

from gateway.identity import session
from workers.sweep import Context, reconciler


@reconciler("session.prune", every_s=3600.0)
def look(context: Context) -> None:
    """Forget them."""
    context.db.run(session.prune)
