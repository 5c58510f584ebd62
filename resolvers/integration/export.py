"""Exports in the graph."""

from typing import Any

import strawberry

from gateway.identity import tenant
from gateway.integration import export
from gateway.jobs import job
from gateway.kernel.access import Need
from resolvers.kernel.connections import Listing, children_connection, connection_query
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Node, column, edge, node, rendered
from resolvers.kernel.roots import mutation, node_query
from resolvers.kernel.scalars import BigInt


def _download_url(context: Context, row: Any) -> str | None:
    return export.link(context.services.db, row)


@node(export.NOUN)
class Export(Node):
    """A file of JSON Lines: what a tenant has, used, or what happened to it. It is there for a day."""

    kind = column("What it holds.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is.")
    start = column("The begin of its period; null where it has none.", of="start_at")
    end = column("The end of its period; null: when it was asked for.", of="end_at")
    status = column("Where it stands.")
    status_reason = column("Why it is in that state, where that is not plain.")
    row_count = column("How many lines it has; null until it is READY.", shown_as=BigInt | None)
    size_bytes = column("Size of its file, in bytes; null until it is READY.", shown_as=BigInt | None)
    sha256 = column("SHA-256 of its file, in hexadecimal; null until it is READY.")
    expires_at = column("When it is deleted; null while it is being written.")
    jobs = children_connection(
        Listing(job.NOUN, job.find, job.Filter, job.ORDERS), "target", "What was done to it, oldest first."
    )
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")

    download_url = rendered(
        str | None, _download_url, "A signed URL of its file that needs no token, good for an hour; ranges are served. "
        "Null unless it is READY.", "uid", "status", "expires_at",
    )  # fmt: skip


node_query(export.NOUN, "An export by its id.")
connection_query("exports", Listing(export.NOUN, export.find, export.Filter, export.ORDERS), "Exports, oldest first.")

mutation(
    "bulkExport", export.create, export.BulkExport, Need.READER,
    "Write what a tenant has, used, or what happened to it into one file of JSON Lines.",
    payload={"export": (export.NOUN, "The new export."), "job": (job.NOUN, "The job that writes it.")},
)  # fmt: skip
mutation(
    "exportDelete", export.delete, export.ExportDelete, Need.MEMBER, "Delete an export before its time.",
    payload={"id": (strawberry.ID, "The id that is gone.")},
)  # fmt: skip
