"""Networks in the graph."""

import strawberry

from gateway.identity import tenant
from gateway.jobs import job
from gateway.kernel.access import Need
from gateway.network import network, port, subnet
from resolvers.kernel.connections import Listing, children_connection, connection_query
from resolvers.kernel.graph import Node, children, column, edge, node
from resolvers.kernel.roots import mutation, node_query


@node(network.NOUN)
class Network(Node):
    """A layer 2 segment of a tenant. Networks are apart from each other, also where their ranges are equal."""

    name = column("Its name.")
    description = column("What it is for.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is; null when you may not see that tenant.")
    mtu = column("Largest packet in bytes.")
    shared = column("Whether every tenant may put ports on it.")
    tags = column("Words to find it by.")
    deleting = column("Whether a job is taking it away.")
    subnets = children(subnet.NOUN, "network_id", "Its ranges, at most 16, oldest first.")
    ports = children_connection(
        Listing(port.NOUN, port.find, port.Filter, port.ORDERS), "network_id", "The ports on it that you may see."
    )
    version = column("Raised with every change.")
    created_at = column("When it was made.")
    updated_at = column("When it last changed.")


node_query(network.NOUN, "A network by its id.")
connection_query(
    "networks",
    Listing(network.NOUN, network.find, network.Filter, network.ORDERS),
    "The networks of your tenants, and those shared with all.",
)
mutation(
    "networkCreate", network.create, network.NetworkCreate, Need.MEMBER, "Make a network.",
    payload={"network": (network.NOUN, "The new network.")},
)  # fmt: skip
mutation(
    "networkUpdate", network.update, network.NetworkUpdate, Need.MEMBER, "Change a network.",
    payload={
        "network": (network.NOUN, "The network as it is now."),
        "job": (job.NOUN, "The job that tells its hosts; null when they need not know."),
    },
)  # fmt: skip
mutation(
    "networkDelete", network.delete, network.NetworkDelete, Need.MEMBER,
    "Delete a network that has no ports, with its subnets.",
    payload={
        "id": (strawberry.ID, "The id that is going."),
        "network": (network.NOUN, "The network while a job takes it away; null when it is gone."),
        "job": (job.NOUN, "The job that takes it from its hosts; null when it was on none."),
    },
)  # fmt: skip
