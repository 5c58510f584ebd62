"""Security groups and their rules in the graph."""

import strawberry

from gateway.identity import tenant
from gateway.jobs import job
from gateway.kernel.access import Need
from gateway.network import security_group as group
from gateway.network import security_group_rule as rule
from resolvers.kernel import scalars
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.graph import Node, children, column, computed, edge, node
from resolvers.kernel.roots import mutation, node_query


@node(group.RULE)
class SecurityGroupRule(Node):
    """What a security group lets through. It never changes."""

    security_group = edge(group.NOUN, "security_group_id", "The group it belongs to.")
    direction = column("Which traffic.")
    ether_type = column("Of which family.")
    protocol = column("Of which kind.")
    port_min = column("First port of the destination (ICMP: the type); null for any.")
    port_max = column("Last port of the destination (ICMP: the code); null for any.")
    remote_cidr = column("The other end's range; null for anywhere or a group.", shown_as=scalars.CIDR | None)
    remote_group = edge(group.NOUN, "remote_group_id", "The other end are this group's members on the same network.")
    description = column("What it is for.")
    created_at = column("When it was added.")


@node(group.NOUN)
class SecurityGroup(Node):
    """What may reach the ports of the group, and what they may reach. Everything else is dropped."""

    name = column("Its name, unique in the tenant.")
    description = column("What it is for.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is.")
    is_default = computed(
        bool, lambda row: row.name == group.DEFAULT, "Whether it is the tenant's own, which ports get and which stays.",
        "name",
    )  # fmt: skip
    rules = children(group.RULE, "security_group_id", "Its rules, at most 100, oldest first.")
    version = column("Raised with every change.")
    created_at = column("When it was made.")
    updated_at = column("When it last changed.")


_JOB = (job.NOUN, "The job that tells the hosts of the ports concerned; null when there are none.")

node_query(group.NOUN, "A security group by its id.")
connection_query(
    "securityGroups",
    Listing(group.NOUN, group.find, group.Filter, group.ORDERS),
    "The security groups of your tenants.",
)
mutation(
    "securityGroupCreate", group.create, group.SecurityGroupCreate, Need.MEMBER,
    "Make a security group that lets everything out and nothing in.",
    payload={"security_group": (group.NOUN, "The new group.")},
)  # fmt: skip
mutation(
    "securityGroupDelete", group.delete, group.SecurityGroupDelete, Need.MEMBER,
    "Delete a security group that no port and no other group's rule uses.",
    payload={"id": (strawberry.ID, "The id that is gone.")},
)  # fmt: skip
mutation(
    "securityGroupRuleAdd", rule.add, rule.SecurityGroupRuleAdd, Need.MEMBER, "Let more through.",
    payload={
        "security_group": (group.NOUN, "The group."),
        "rule": (group.RULE, "The new rule."),
        "job": _JOB,
    },
)  # fmt: skip
mutation(
    "securityGroupRuleRemove", rule.remove, rule.SecurityGroupRuleRemove, Need.MEMBER, "Let less through.",
    payload={"id": (strawberry.ID, "The id that is gone."), "security_group": (group.NOUN, "The group."), "job": _JOB},
)  # fmt: skip
