"""Images: what servers and volumes are made from.

An image is a row here and one file in the store (gateway.image.store). It becomes ACTIVE only after a job has inspected
the whole file; nothing else ever reads it before. PRIVATE images are for their tenant, SHARED ones also for the tenants
they name, PUBLIC ones for everyone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, col, select

from gateway.image.formats import ImageFormat
from gateway.kernel import row
from gateway.kernel.access import Subject, within
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row


class ImageStatus(StrEnum):
    """Where an image stands."""

    QUEUED = "QUEUED"
    """Waiting for its data: upload it to the URL that `upload` tells."""
    RECEIVING = "RECEIVING"
    """Data is coming in."""
    CHECKING = "CHECKING"
    """A job inspects it."""
    ACTIVE = "ACTIVE"
    """Ready to be used."""
    ERROR = "ERROR"
    """Refused or failed; `statusReason` says why."""
    DELETING = "DELETING"
    """On its way out."""


class Visibility(StrEnum):
    """Who may use an image."""

    PRIVATE = "PRIVATE"
    """Its tenant."""
    SHARED = "SHARED"
    """Its tenant and the tenants it names."""
    PUBLIC = "PUBLIC"
    """Every tenant."""


class Image(Row, table=True):
    """An image. Sizes in bytes; ``format`` is what inspection found."""

    __tablename__ = "image"

    tenant_id: int = row.ref("tenant.id")
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)
    status: ImageStatus = row.enum(ImageStatus, default=ImageStatus.QUEUED)
    status_reason: str | None = Field(default=None, max_length=500)
    visibility: Visibility = row.enum(Visibility, default=Visibility.PRIVATE)
    declared_format: ImageFormat | None = row.enum(ImageFormat, default=None, nullable=True)
    format: ImageFormat | None = row.enum(ImageFormat, default=None, nullable=True)
    size_bytes: int | None = row.big(default=None, nullable=True)
    received_bytes: int = row.big(default=0)
    virtual_size_bytes: int | None = row.big(default=None, nullable=True)
    sha256: str | None = Field(default=None, max_length=64)
    source_url: str | None = Field(default=None, max_length=2048)
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    protected: bool = False
    tags: list[str] = row.json(default_factory=list)


class ImageMember(Row, table=True):
    """A tenant that a SHARED image is for."""

    __tablename__ = "image_member"

    image_id: int = row.ref("image.id")
    tenant_id: int = row.ref("tenant.id")

    __table_args__ = (sa.UniqueConstraint("image_id", "tenant_id"),)


class ImageCopy(Row, table=True):
    """A host that holds the image as a base for disks."""

    __tablename__ = "image_copy"

    image_id: int = row.ref("image.id")
    host_id: int = row.ref("host.id")

    __table_args__ = (sa.UniqueConstraint("image_id", "host_id"),)


def _scope(subject: Subject) -> sa.ColumnElement[bool]:
    if subject.admin:
        return sa.true()
    if not subject.signed_in:
        return sa.false()
    shared = select(ImageMember.image_id).where(within(col(ImageMember.tenant_id), subject))
    return sa.or_(
        within(col(Image.tenant_id), subject),
        col(Image.visibility) == Visibility.PUBLIC,
        sa.and_(col(Image.visibility) == Visibility.SHARED, col(Image.id).in_(shared)),
    )


NOUN = register(Noun("image", Image, _scope))

ORDERS: dict[str, Any] = {"NAME": col(Image.name), "UPDATED_AT": col(Image.updated_at)}
