"""Keypairs in the graph."""

import strawberry

from gateway.compute import keypair
from gateway.kernel.access import Need
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.graph import Node, column, node
from resolvers.kernel.roots import mutation, node_query


@node(keypair.NOUN)
class Keypair(Node):
    """One of your SSH public keys."""

    name = column("Its name, unique among yours.")
    public_key = column("The key as OpenSSH writes it.")
    fingerprint = column("Its SHA-256 fingerprint as `ssh-keygen -l` prints it.")
    created_at = column("When it was made or imported.")


node_query(keypair.NOUN, "One of your keypairs by its id.")
connection_query("keypairs", Listing(keypair.NOUN, keypair.find, keypair.Filter, keypair.ORDERS), "Your keypairs.")
mutation(
    "keypairCreate", keypair.create, keypair.KeypairCreate, Need.SIGNED_IN, "Import an SSH key, or have one generated.",
    payload={
        "keypair": (keypair.NOUN, "The new keypair."),
        "private_key": (str, "The private part of a generated key: shown this once and kept nowhere."),
    },
    first=keypair.generate,
    secret=frozenset({"private_key"}),
)  # fmt: skip
mutation(
    "keypairDelete", keypair.delete, keypair.KeypairDelete, Need.SIGNED_IN, "Forget one of your keypairs.",
    payload={"id": (strawberry.ID, "The id that is gone.")},
)  # fmt: skip
