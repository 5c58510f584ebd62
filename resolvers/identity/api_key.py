"""API keys in the graph."""

from gateway.identity import api_key, tenant, user
from gateway.kernel.access import Need
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.roots import mutation


@node(api_key.NOUN)
class ApiKey(Node):
    """How a program calls the cloud: as its user, in one tenant, with at most one role."""

    name = column("What it is for.")
    user = edge(user.NOUN, "user_id", "Whose it is.")
    tenant = edge(tenant.NOUN, "tenant_id", "Where it is good.")
    role = column("What it may do there; less when its user holds less by now.")
    created_at = column("When it was made.")
    expires_at = column("When it ends; null for never.")
    revoked_at = column("When it was revoked; null when it was not.")
    last_used_at = column("When it was last used, to the minute; null for never.")


mutation(
    "apiKeyCreate", api_key.create, api_key.ApiKeyCreate, Need.SIGNED_IN, "Make an API key for yourself.",
    payload={
        "api_key": (api_key.NOUN, "The new key."),
        "token": (str, "Send it as `Authorization: Bearer`; it is told this once and kept nowhere."),
    },
    secret=frozenset({"token"}),
)  # fmt: skip
mutation(
    "apiKeyRevoke", api_key.revoke, api_key.ApiKeyRevoke, Need.SIGNED_IN,
    "End an API key: your own, or one of a tenant that you manage.",
    payload={"api_key": (api_key.NOUN, "The key as it is now.")},
)  # fmt: skip
