"""Snapshots in the graph."""

from gateway.identity import tenant
from gateway.jobs import job
from gateway.kernel.access import Need
from gateway.volume import snapshot, snapshot_create, volume
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.roots import mutation, node_query


@node(snapshot.NOUN)
class Snapshot(Node):
    """A point-in-time copy of a volume."""

    name = column("Its name; need not be unique.")
    description = column("What it is for.")
    status = column("Where it stands.")
    status_reason = column("Why it is in that state, where that is not plain.")
    size_gib = column("Its size in GiB.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is.")
    volume = edge(volume.NOUN, "volume_id", "The volume it was taken of; null once that is gone.")
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")


node_query(snapshot.NOUN, "A snapshot by its id.")
connection_query(
    "snapshots", Listing(snapshot.NOUN, snapshot.find, snapshot.Filter, snapshot.ORDERS), "Snapshots, oldest first."
)

_SNAPSHOT = (snapshot.NOUN, "The snapshot as it is now.")
_JOB = (job.NOUN, "The job that does it.")

mutation(
    "snapshotCreate", snapshot_create.create, snapshot_create.SnapshotCreate, Need.MEMBER, "Take a volume's snapshot.",
    payload={"snapshot": _SNAPSHOT, "job": _JOB},
)  # fmt: skip
mutation(
    "snapshotDelete", snapshot.delete, snapshot.SnapshotDelete, Need.MEMBER, "Delete a snapshot.",
    payload={"snapshot": _SNAPSHOT, "job": _JOB},
)  # fmt: skip
