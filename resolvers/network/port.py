"""Ports in the graph."""

from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from gateway.compute import server
from gateway.identity import tenant
from gateway.kernel.access import Need
from gateway.network import address, membership, network, port, subnet
from gateway.network import security_group as groups
from resolvers.kernel import scalars
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Node, Rows, column, edge, node, record, spelt, wrap
from resolvers.kernel.roots import mutation, node_query


@record(address.PortAddress)
class FixedIp:
    """An address that a port holds, and where it is from."""

    row: strawberry.Private[address.PortAddress]

    ip_address = column("The address.", of="address", shown_as=scalars.IPAddress)
    subnet = edge(subnet.NOUN, "subnet_id", "The subnet it is from.")


@node(port.NOUN)
class Port(Node):
    """A machine's place on a network."""

    name = column("Its name.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is.")
    network = edge(network.NOUN, "network_id", "The network it is on.")
    mac_address = column("Its MAC address, unique in the cloud.", of="mac", shown_as=scalars.MacAddress)
    port_security = column("Whether rules are enforced and false addresses dropped.")
    status = column("Where it stands.")
    server = edge(server.NOUN, "server_id", "The server that has it or is promised it; null when none is.")
    version = column("Raised with every change.")
    created_at = column("When it was made.")
    updated_at = column("When it last changed.")

    @spelt(Rows(address.PortAddress, "port_id", "address"))
    @strawberry.field(graphql_type=list[scalars.IPAddress], description="Its addresses, at most 8.")
    async def ip_addresses(self, info: Info) -> list[Any]:
        """The addresses."""
        return [each.address for each in await _addresses(self, info)]

    @spelt(Rows(address.PortAddress, "port_id"))
    @strawberry.field(description="Its addresses with their subnets, at most 8.")
    async def fixed_ips(self, info: Info) -> list[FixedIp]:
        """The addresses."""
        return [FixedIp(row=each) for each in await _addresses(self, info)]

    @spelt(Rows(groups.SecurityGroup, "id", link=(groups.PortSecurityGroup, "port_id", "security_group_id", ("id",))))
    @strawberry.field(description="Its security groups, at most 10; none when port security is off.")
    async def security_groups(
        self, info: Info
    ) -> list[Annotated["SecurityGroup", strawberry.lazy("resolvers.network.security_group")]]:  # type: ignore[name-defined]  # noqa: F821 - found by strawberry
        """The groups."""
        context: Context = info.context
        found = await context.batch(("port", "groups"), membership.of_ports).load(self.row.id)
        return [wrap(each) for each in found or ()]


async def _addresses(root: Node, info: Info) -> list[address.PortAddress]:
    context: Context = info.context
    return await context.batch(("port", "addresses"), address.of_ports).load(root.row.id) or []


node_query(port.NOUN, "A port by its id.")
connection_query("ports", Listing(port.NOUN, port.find, port.Filter, port.ORDERS), "The ports of your tenants.")
mutation(
    "portCreate", port.create, port.PortCreate, Need.MEMBER, "Make a port that no server has yet.",
    payload={"port": (port.NOUN, "The new port.")},
)  # fmt: skip
mutation(
    "portDelete", port.delete, port.PortDelete, Need.MEMBER, "Delete a port that no server has.",
    payload={"id": (strawberry.ID, "The id that is gone.")},
)  # fmt: skip
