"""Memberships in the graph."""

from gateway.identity import member, role, tenant, user
from gateway.kernel.access import Need
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.roots import mutation


@node(role.NOUN)
class Membership(Node):
    """A user's role in a tenant."""

    user = edge(user.NOUN, "user_id", "Who.")
    tenant = edge(tenant.NOUN, "tenant_id", "Where.")
    role = column("What they may do there.")
    created_at = column("Since when they belong to the tenant.")
    updated_at = column("When the role was last changed.")
    version = column("Rises with every change.")


mutation(
    "memberAdd", member.add, member.MemberAdd, Need.MANAGER, "Give a user a role in a tenant, or another one.",
    payload={"membership": (role.NOUN, "The role as it is now.")},
)  # fmt: skip
mutation(
    "memberRemove", member.remove, member.MemberRemove, Need.SIGNED_IN,
    "End a user's role in a tenant, and the API keys they have there.",
    payload={"tenant": (tenant.NOUN, "The tenant; null when you left it."), "user": (user.NOUN, "Who left.")},
)  # fmt: skip
