"""The audit trail in the graph."""

from __future__ import annotations

from gateway.identity import audit, tenant, user
from gateway.kernel.access import Need
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.scalars import JSON


@node(audit.NOUN)
class AuditRecord(Node):
    """One mutation as it was asked for, carried out or denied."""

    at = column("When.")
    operation = column("The mutation's name.")
    result = column("OK, or the code of the refusal.")
    user = edge(user.NOUN, "user_id", "Who asked; null for nobody known, and for users who are gone.")
    user_name = column("Their name at that time; empty for nobody known.")
    tenant = edge(tenant.NOUN, "tenant_id", "In which tenant; null for none, and for tenants that are gone.")
    address = column("The address it came from; empty when unknown.")
    request_id = column("The request's id, as in the logs.")
    asked = column("The input as given, without secrets.", shown_as=JSON)
    objects = column("The ids of what was made or changed.")


connection_query(
    "auditRecords", Listing(audit.NOUN, audit.find, audit.Filter, audit.ORDERS),
    "What was asked of the cloud: everything for an operator, else what happened in the tenants that you manage.",
    Need.MANAGER,
)  # fmt: skip
