"""Server groups in the graph."""

import strawberry

from gateway.compute import server, server_group
from gateway.identity import tenant
from gateway.kernel.access import Need
from resolvers.kernel.connections import Listing, children_connection, connection_query
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.roots import mutation, node_query


@node(server_group.NOUN)
class ServerGroup(Node):
    """Servers that shall lie together, or apart. It never changes."""

    name = column("Its name, unique in the tenant.")
    policy = column("How its members lie to each other.")
    max_per_host = column("How many members a host may have, with `ANTI_AFFINITY`.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is.")
    servers = children_connection(
        Listing(server.NOUN, server.find, server.Filter, server.ORDERS), "group_id", "Its members, oldest first."
    )
    created_at = column("When it was made.")


_GROUP = (server_group.NOUN, "The new group.")

node_query(server_group.NOUN, "A server group by its id.")
connection_query(
    "serverGroups",
    Listing(server_group.NOUN, server_group.find, server_group.Filter, server_group.ORDERS),
    "The server groups of your tenants.",
)
mutation(
    "serverGroupCreate", server_group.create, server_group.ServerGroupCreate, Need.MEMBER,
    "Make a server group; give its id as `groupId` to `serverCreate`.",
    payload={"server_group": _GROUP},
)  # fmt: skip
mutation(
    "serverGroupDelete", server_group.delete, server_group.ServerGroupDelete, Need.MEMBER,
    "Delete a server group that no server is in.",
    payload={"id": (strawberry.ID, "The id that is gone.")},
)  # fmt: skip
