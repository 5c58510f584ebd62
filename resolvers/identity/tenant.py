"""Tenants in the graph."""

from __future__ import annotations

from gateway.identity import tenant
from resolvers.kernel.graph import Node, column, node


@node(tenant.NOUN)
class Tenant(Node):
    """Who owns resources."""

    name = column("Its name, unique in the cloud.")
    description = column("What it is for.")
