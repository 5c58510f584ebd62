"""Subnets in the graph."""

import strawberry
from strawberry.types import Info

from gateway.identity import tenant
from gateway.jobs import job
from gateway.kernel.access import Need
from gateway.network import address, network, subnet
from gateway.network.address import Room
from resolvers.kernel import scalars
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Made, Node, column, computed, edge, node, spelt
from resolvers.kernel.roots import mutation, node_query

_LARGEST = 2**63 - 1
_ROOM = (
    (address.PortAddress, "subnet_id", address.held_figures),
    (address.FreeRange, "subnet_id", address.free_figures),
)


@strawberry.type(name="AllocationPool", description="Addresses that may be given out.")
class AllocationPool:
    """From first to last, inclusive."""

    first: scalars.IPAddress = strawberry.field(description="The first address.")
    last: scalars.IPAddress = strawberry.field(description="The last address.")


def _pools(row: subnet.Subnet) -> list[AllocationPool]:
    return [
        AllocationPool(first=scalars.IPAddress(each["first"]), last=scalars.IPAddress(each["last"]))
        for each in row.pools
    ]


@node(subnet.NOUN)
class Subnet(Node):
    """A range of addresses of a network. It never changes."""

    name = column("Its name.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is; null when you may not see that tenant.")
    network = edge(network.NOUN, "network_id", "The network it belongs to.")
    cidr = column("The range.", shown_as=scalars.CIDR)
    ip_version = computed(int, lambda row: row.ip_version, "4 or 6.", "cidr")
    gateway = column("The way out; null when there is none.", shown_as=scalars.IPAddress | None)
    dhcp = column("Whether machines get their addresses by DHCP.")
    dns_servers = column("Told to machines, in order.", shown_as=list[scalars.IPAddress])
    allocation_pools = computed(list[AllocationPool], _pools, "What may be given out.", "pools")
    version = column("Raised with every change.")
    created_at = column("When it was made.")

    @spelt(Made(lambda held, free: address.room(held, free).held, _ROOM))
    @strawberry.field(graphql_type=scalars.BigInt, description="How many addresses ports hold.")
    async def used_addresses(self, info: Info) -> int:
        """The number."""
        return (await _room(self, info)).held

    @spelt(Made(lambda held, free: min(address.room(held, free).free, _LARGEST), _ROOM))
    @strawberry.field(
        graphql_type=scalars.BigInt, description="How many addresses can still be given out; at most 2^63-1 is told."
    )
    async def available_addresses(self, info: Info) -> int:
        """The number."""
        return min((await _room(self, info)).free, _LARGEST)

    @spelt(Made(lambda held, free: address.room(held, free).utilisation, _ROOM))
    @strawberry.field(description="The share of its addresses that ports hold, 0 to 1.")
    async def utilisation(self, info: Info) -> float:
        """The share."""
        return (await _room(self, info)).utilisation


async def _room(root: Node, info: Info) -> Room:
    context: Context = info.context
    found: Room = await context.batch(("subnet", "room"), address.rooms).load(root.row.id)
    return found


node_query(subnet.NOUN, "A subnet by its id.")
connection_query(
    "subnets",
    Listing(subnet.NOUN, subnet.find, subnet.Filter, subnet.ORDERS),
    "The subnets of the networks you may see.",
)
mutation(
    "subnetCreate", subnet.create, subnet.SubnetCreate, Need.MEMBER, "Add a range to a network.",
    payload={
        "subnet": (subnet.NOUN, "The new subnet."),
        "job": (job.NOUN, "The job that tells the network's hosts; null when it is on none."),
    },
)  # fmt: skip
mutation(
    "subnetDelete", subnet.delete, subnet.SubnetDelete, Need.MEMBER,
    "Take a range from a network; no port may have an address in it.",
    payload={
        "id": (strawberry.ID, "The id that is gone."),
        "job": (job.NOUN, "The job that tells the network's hosts; null when it is on none."),
    },
)  # fmt: skip
