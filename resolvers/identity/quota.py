"""Quotas in the graph."""

from gateway.identity import quota
from gateway.kernel.access import Need
from resolvers.kernel.graph import Node, column, node
from resolvers.kernel.roots import mutation


@node(quota.NOUN)
class Quota(Node):
    """A tenant's limit and use of one resource."""

    resource = column("What is limited.")
    limit = column("How much the tenant may have; -1 for any amount.")
    used = column("How much it has.")


mutation(
    "quotaSet", quota.change, quota.QuotaSet, Need.ADMIN, "Set how much of some resources a tenant may have.",
    payload={"quotas": ([quota.NOUN], "All quotas of the tenant as they are now.")},
)  # fmt: skip
