"""Server snapshots in the graph."""

from gateway.compute import server, server_snapshot, snapshotting
from gateway.identity import tenant
from gateway.jobs import job
from gateway.kernel.access import Need
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.graph import children as edges
from resolvers.kernel.roots import mutation, node_query

LISTING = Listing(
    server_snapshot.NOUN, server_snapshot.find, server_snapshot.Filter, server_snapshot.ORDERS
)  # fmt: skip


@node(server_snapshot.NOUN)
class ServerSnapshot(Node):
    """A whole server at one moment."""

    name = column("Its name; need not be unique.")
    description = column("What it is for.")
    status = column("Where it stands.")
    status_reason = column("Why it is in that state, where that is not plain.")
    server = edge(server.NOUN, "server_id", "The server, with which it goes.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is.")
    parent = edge(server_snapshot.NOUN, "parent_id", "The snapshot that it was made after; null for a first one.")
    children = edges(server_snapshot.NOUN, "parent_id", "Those made after it, oldest first.")
    current = column("Whether the next one would be its child.")
    with_memory = column("Whether what ran is kept, too: the server then runs on where it was; else it is off.")
    quiesced = column("Whether its guest had written all down and held still; else its disks are as after a power cut.")
    size_gib = column("What is charged for it, in GiB: the most that it can take, all disks and the memory.")
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")


node_query(server_snapshot.NOUN, "A server snapshot by its id.")
connection_query("serverSnapshots", LISTING, "Server snapshots, oldest first.")

_PAYLOAD = {
    "server_snapshot": (server_snapshot.NOUN, "The snapshot as it is now."),
    "server": (server.NOUN, "The server as it is now."),
    "job": (job.NOUN, "The job that does it."),
}

mutation(
    "serverSnapshotCreate", snapshotting.create, snapshotting.ServerSnapshotCreate, Need.MEMBER,
    "Take a snapshot of a whole server; while it has any, its devices and its size stay.", payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "serverSnapshotRevert", snapshotting.revert, snapshotting.ServerSnapshotRevert, Need.MEMBER,
    "Bring a server back to a snapshot; what it did since is lost.", payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "serverSnapshotDelete", snapshotting.delete, snapshotting.ServerSnapshotDelete, Need.MEMBER,
    "Delete a server snapshot; those made after it stay.", payload=_PAYLOAD,
)  # fmt: skip
