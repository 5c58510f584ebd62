"""Flavors in the graph."""

from gateway.compute import flavor
from gateway.kernel.access import Need
from gateway.kernel.money import shown
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.graph import Node, column, computed, node
from resolvers.kernel.roots import mutation, node_query
from resolvers.kernel.scalars import Decimal


@node(flavor.NOUN)
class Flavor(Node):
    """A size that servers come in. It never changes."""

    name = column("Its name.")
    description = column("What it is meant for.")
    vcpus = column("Virtual processors.")
    ram_mib = column("Memory in MiB.")
    disk_gib = column("Size of the root disk in GiB.")
    price_per_hour = computed(
        Decimal | None, lambda row: shown(row.price_micros),
        "What an hour of a server of this size costs, in the currency that `cloud` tells; null: no price was set.",
        "price_micros",
    )  # fmt: skip
    created_at = column("When it was made.")
    deleted_at = column("When it was hidden from new servers; null while it is offered.")


node_query(flavor.NOUN, "A flavor by its id, also one that is no longer offered.")
connection_query(
    "flavors", Listing(flavor.NOUN, flavor.find, flavor.Filter, flavor.ORDERS), "The flavors that are offered."
)
mutation(
    "flavorCreate", flavor.create, flavor.FlavorCreate, Need.ADMIN, "Offer a new flavor.",
    payload={"flavor": (flavor.NOUN, "The new flavor.")},
)  # fmt: skip
mutation(
    "flavorDelete", flavor.delete, flavor.FlavorDelete, Need.ADMIN, "Stop offering a flavor.",
    payload={"flavor": (flavor.NOUN, "The flavor, now hidden from new servers.")},
)  # fmt: skip
