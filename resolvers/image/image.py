"""Images in the graph."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from gateway.identity import tenant
from gateway.identity.tenant import Tenant
from gateway.image import image, image_change, image_create, link
from gateway.jobs import job
from gateway.kernel.access import Need
from resolvers.jobs.event import changes
from resolvers.kernel.connections import Listing, children_connection, connection_query
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Node, Rows, children, column, edge, lazy, node, rendered, spelt, wrap
from resolvers.kernel.roots import mutation, node_query, subscription
from resolvers.kernel.scalars import BigInt


@strawberry.type(description="Where an image's data is to be sent.")
class ImageUpload:
    """A signed link."""

    url: str = strawberry.field(
        description=(
            "A signed URL that needs no token. `curl -T file URL` sends the whole file; HEAD tells `Upload-Offset`, "
            "and PATCH (or PUT) with that header continues there, as tus 1.0 clients do."
        )
    )
    expires_at: datetime = strawberry.field(description="Until when it is good; ask again for a new one.")
    offset: BigInt = strawberry.field(description="The byte to continue at: what is here already.")


def _upload(context: Context, row: Any) -> ImageUpload | None:
    found = link.upload(context.services.db, context.subject, row)
    if found is None:
        return None
    return ImageUpload(url=found.url, expires_at=found.expires_at, offset=BigInt(found.offset))


def _download_url(context: Context, row: Any) -> str | None:
    return link.download(context.services.db, context.subject, row)


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
    members = children(
        image.MEMBER, "image_id", "The tenants it is shared with while SHARED; others see only their own membership."
    )
    jobs = children_connection(
        Listing(job.NOUN, job.find, job.Filter, job.ORDERS), "target", "What was done to it, oldest first."
    )
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")

    upload = rendered(
        ImageUpload | None, _upload, "Where to send its data: null unless it waits for data and you may change it.",
        "uid", "status", "source_url", "tenant_id", files=True,
    )  # fmt: skip
    download_url = rendered(
        str | None, _download_url, "A signed URL of its file, good for an hour; null unless it is ACTIVE.",
        "uid", "status",
    )  # fmt: skip

    @spelt(Rows(job.Job, "resource", by_public=True, where=job.live, one=True))
    @strawberry.field(graphql_type=lazy(job.NOUN) | None, description="The job at work on it, or next in its queue.")
    async def active_job(self, info: Info) -> Any:
        """The job."""
        context: Context = info.context
        public = image.NOUN.public(self.row)
        return wrap(await context.batch("active_job", job.active_of).load(public))


@node(image.MEMBER)
class ImageMember(Node):
    """A tenant that a SHARED image is for."""

    image = edge(image.NOUN, "image_id", "The image.")
    tenant = edge(tenant.NOUN, "tenant_id", "The tenant; null when you may not see it.")
    created_at = column("Since when.")

    @spelt(Rows(Tenant, "id", public="tenant", own="tenant_id", one=True))
    @strawberry.field(description="The tenant's id, also of one that you may not see.")
    async def tenant_id(self, info: Info) -> strawberry.ID:
        """The TypeID."""
        context: Context = info.context
        return strawberry.ID(await context.batch("image_member.tenant", image_change.tenants_of).load(self.row.id))


@subscription(
    Need.SIGNED_IN, "An image now and after each change, until it is gone: how far its data is, what became of it.",
    name="imageChanged", shown_as=Image,
)  # fmt: skip
async def image_changed(
    info: Info,
    id: Annotated[strawberry.ID, strawberry.argument(description="The image.")],  # noqa: A002 - the argument's public name
) -> AsyncIterator[Any]:
    """The image, pushed."""
    async for each in changes(info, image.NOUN, id):
        yield each


node_query(image.NOUN, "An image by its id.")
node_query(image.MEMBER, "A tenant that an image is shared with, by the membership's id.")
connection_query(
    "images", Listing(image.NOUN, image.find, image.Filter, image.ORDERS), "Images you may use, oldest first."
)

_IMAGE = (image.NOUN, "The image as it is now.")
_JOB = (job.NOUN, "The job that does it.")

mutation(
    "imageCreate", image_create.create, image_create.ImageCreate, Need.MEMBER,
    "Make an image that waits for its data: send the file to the URL in `image.upload`.",
    payload={"image": _IMAGE},
)  # fmt: skip
mutation(
    "imageImport", image_create.bring, image_create.ImageImport, Need.MEMBER, "Make an image from a file at a URL.",
    payload={"image": _IMAGE, "job": _JOB},
)  # fmt: skip
mutation(
    "imageUpdate", image_change.update, image_change.ImageUpdate, Need.MEMBER, "Change what is said of an image.",
    payload={"image": _IMAGE},
)  # fmt: skip
mutation(
    "imageMemberAdd", image_change.share, image_change.ImageMemberAdd, Need.MEMBER,
    "Let another tenant use a SHARED image.",
    payload={"image": _IMAGE, "image_member": (image.MEMBER, "The tenant, as a member.")},
)  # fmt: skip
mutation(
    "imageMemberRemove", image_change.unshare, image_change.ImageMemberRemove, Need.MEMBER,
    "Share an image with a tenant no longer.",
    payload={"image": (image.NOUN, "The image as it is now; your tenant may not see it any more.")},
)  # fmt: skip
mutation(
    "imageDelete", image_change.delete, image_change.ImageDelete, Need.MEMBER,
    "Delete an image; what was made from it goes on working.",
    payload={"image": _IMAGE, "job": _JOB},
)  # fmt: skip
