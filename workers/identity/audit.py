"""Seals the audit trail soon after its records are committed."""

from __future__ import annotations

from gateway.identity import audit_seal
from workers.sweep import Context, reconciler


@reconciler("audit.seal", every_s=10.0)
def look(context: Context) -> None:
    """Seal all records that are not sealed yet. Several processes at once make one chain."""
    while audit_seal.seal(context.db):
        pass
