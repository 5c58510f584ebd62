"""Tenants in the graph."""

from gateway.identity import api_key, quota, role, tenant
from gateway.kernel.access import Need
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.graph import Node, children, column, node
from resolvers.kernel.roots import mutation, node_query


@node(tenant.NOUN)
class Tenant(Node):
    """A project, team or customer: the owner of resources."""

    name = column("Its name, unique in the cloud.")
    description = column("What it is for.")
    members = children(role.NOUN, "tenant_id", "Who belongs to it, and as what.")
    quotas = children(quota.NOUN, "tenant_id", "How much of each resource it may have, and has.")
    api_keys = children(api_key.NOUN, "tenant_id", "Its API keys: all of them for its managers, else your own.")
    created_at = column("When it was made.")
    updated_at = column("When it was last changed.")
    deleted_at = column("When it was deleted; only ever seen in the answer to that.")
    version = column("Rises with every change; give it as `expectedVersion`.")


node_query(tenant.NOUN, "A tenant by id, if you belong to it or are an operator.")
connection_query(
    "tenants", Listing(tenant.NOUN, tenant.find, tenant.Filter, tenant.ORDERS),
    "The tenants you belong to, or all for an operator.",
)  # fmt: skip
mutation(
    "tenantCreate", tenant.create, tenant.TenantCreate, Need.ADMIN, "Make a tenant with the default quotas.",
    payload={"tenant": (tenant.NOUN, "The new tenant.")},
)  # fmt: skip
mutation(
    "tenantUpdate", tenant.update, tenant.TenantUpdate, Need.ADMIN, "Change a tenant.",
    payload={"tenant": (tenant.NOUN, "The tenant as it is now.")},
)  # fmt: skip
mutation(
    "tenantDelete", tenant.delete, tenant.TenantDelete, Need.ADMIN, "Delete a tenant that owns nothing any more.",
    payload={"tenant": (tenant.NOUN, "The tenant as it was left.")},
)  # fmt: skip
