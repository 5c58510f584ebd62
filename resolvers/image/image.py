"""Images in the graph."""

from __future__ import annotations

from gateway.identity import tenant
from gateway.image import image
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.roots import node_query
from resolvers.kernel.scalars import BigInt


@node(image.NOUN)
class Image(Node):
    """What servers and volumes are made from."""

    name = column("Its name; need not be unique.")
    description = column("What it holds.")
    status = column("Where it stands.")
    status_reason = column("Why it is in that state, where that is not plain.")
    visibility = column("Who may use it.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is.")
    format = column("Its disk format, as inspection found it.")
    size_bytes = column("Size of its file, in bytes.", shown_as=BigInt | None)
    received_bytes = column("Bytes that have come in so far.", shown_as=BigInt)
    virtual_size_bytes = column("Size of the disk in it, in bytes.", shown_as=BigInt | None)
    sha256 = column("SHA-256 of its file, in hexadecimal.")
    min_disk_gib = column("The smallest disk that a server made from it may have, in GiB.")
    min_ram_mib = column("The least memory that a server made from it may have, in MiB.")
    protected = column("Whether it cannot be deleted.")
    tags = column("Words to find it by.")
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")


node_query(image.NOUN, "An image by its id.")
