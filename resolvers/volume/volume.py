"""Volumes in the graph."""

from gateway.compute import attachment, server
from gateway.identity import tenant
from gateway.image import image
from gateway.jobs import job
from gateway.kernel.access import Need
from gateway.volume import snapshot, volume
from resolvers.kernel.connections import Listing, children_connection, connection_query
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.roots import mutation, node_query


@node(volume.NOUN)
class Volume(Node):
    """A disk that lives on its own."""

    name = column("Its name; need not be unique.")
    description = column("What it is for.")
    status = column("Where it stands.")
    status_reason = column("Why it is in that state, where that is not plain.")
    size_gib = column("Its size in GiB.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is.")
    image = edge(image.NOUN, "image_id", "What it was made from.")
    snapshot = edge(snapshot.NOUN, "snapshot_id", "What it was made from.")
    server = edge(server.NOUN, "server_id", "The server it is attached or promised to.")
    device = column("What the guest calls it, such as `vdb`.")
    delete_with_server = column("Whether it goes when its server goes.")
    tags = column("Words to find it by.")
    jobs = children_connection(
        Listing(job.NOUN, job.find, job.Filter, job.ORDERS), "target", "What was done to it, oldest first."
    )
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")


node_query(volume.NOUN, "A volume by its id.")
connection_query("volumes", Listing(volume.NOUN, volume.find, volume.Filter, volume.ORDERS), "Volumes, oldest first.")

_VOLUME = (volume.NOUN, "The volume as it is now.")
_JOB = (job.NOUN, "The job that does it.")
_SERVER = (server.NOUN, "The server as it is now.")

mutation(
    "volumeCreate", volume.create, volume.VolumeCreate, Need.MEMBER, "Make a volume.",
    payload={"volume": _VOLUME, "job": _JOB},
)  # fmt: skip
mutation(
    "volumeUpdate", volume.update, volume.VolumeUpdate, Need.MEMBER, "Change a volume's name or tags.",
    payload={"volume": _VOLUME},
)  # fmt: skip
mutation(
    "volumeExtend", volume.extend, volume.VolumeExtend, Need.MEMBER, "Grow a volume, also while it is in use.",
    payload={"volume": _VOLUME, "job": _JOB},
)  # fmt: skip
mutation(
    "volumeDelete", volume.delete, volume.VolumeDelete, Need.MEMBER, "Delete a volume and its data.",
    payload={"volume": _VOLUME, "job": _JOB},
)  # fmt: skip
mutation(
    "volumeAttach", attachment.attach, attachment.VolumeAttach, Need.MEMBER, "Attach a volume to a server.",
    payload={"volume": _VOLUME, "server": _SERVER, "job": _JOB},
)  # fmt: skip
mutation(
    "volumeDetach", attachment.detach, attachment.VolumeDetach, Need.MEMBER, "Detach a volume from its server.",
    payload={"volume": _VOLUME, "server": _SERVER, "job": _JOB},
)  # fmt: skip
