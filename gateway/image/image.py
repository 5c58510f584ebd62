"""Images: what servers and volumes are made from.

An image is a row here and one file in the store (gateway.image.store). It becomes ACTIVE only after a job has inspected
the whole file; nothing else ever reads it before. PRIVATE images are for their tenant, SHARED ones also for the tenants
they name, PUBLIC ones for everyone.

Invariant: ``charged_gib`` says exactly what of the tenant's quota the image holds (None: nothing, not even its place
among IMAGES), and changes in one transaction with the quota. A deleted image whose row is still referred to is hidden,
never shown again, and goes when nothing refers to it.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import quota
from gateway.identity import tenant as tenants
from gateway.identity.quota import Resource
from gateway.identity.tenant import Tenant
from gateway.image.formats import GIB, ImageFormat
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import clock, row
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.command import AnyId, Command
from gateway.kernel.errors import Forbidden, InvalidState
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
    """An image. Sizes in bytes; ``format`` is what inspection found, ``expected_*`` what its owner said beforehand."""

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
    expected_bytes: int | None = row.big(default=None, nullable=True)
    expected_sha256: str | None = Field(default=None, max_length=64)
    charged_gib: int | None = Field(default=None)
    source_url: str | None = Field(default=None, max_length=2048)
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    protected: bool = False
    tags: list[str] = row.json(default_factory=list)
    deleted_at: datetime | None = Field(default=None)


class ImageMember(Row, table=True):
    """A tenant that a SHARED image is for."""

    __tablename__ = "image_member"

    image_id: int = row.ref("image.id")
    tenant_id: int = row.ref("tenant.id")

    __table_args__ = (sa.UniqueConstraint("image_id", "tenant_id"),)


class ImageCopy(Row, table=True):
    """A host that holds the image as a base for disks, or may hold it: it is noted before it is brought there, and
    ``ready`` once it is there whole.
    """

    __tablename__ = "image_copy"

    image_id: int = row.ref("image.id")
    host_id: int = row.ref("host.id", ondelete="CASCADE")
    ready: bool = False

    __table_args__ = (sa.UniqueConstraint("image_id", "host_id"),)


def _scope(subject: Subject) -> sa.ColumnElement[bool]:
    there = col(Image.deleted_at).is_(None)
    if subject.admin:
        return there
    if not subject.signed_in:
        return sa.false()
    shared = select(ImageMember.image_id).where(within(col(ImageMember.tenant_id), subject))
    mine_or_offered = sa.or_(
        within(col(Image.tenant_id), subject),
        col(Image.visibility) == Visibility.PUBLIC,
        sa.and_(col(Image.visibility) == Visibility.SHARED, col(Image.id).in_(shared)),
    )
    return sa.and_(there, mine_or_offered)


def _member_scope(subject: Subject) -> sa.ColumnElement[bool]:
    """Memberships of images that the subject's tenants own, and of the subject's tenants in others' images."""
    if subject.admin:
        return sa.true()
    own = select(Image.id).where(within(col(Image.tenant_id), subject), col(Image.deleted_at).is_(None))
    return sa.or_(within(col(ImageMember.tenant_id), subject), col(ImageMember.image_id).in_(own))


NOUN = register(Noun("image", Image, _scope))
MEMBER = register(Noun("image_member", ImageMember, _member_scope))


def _leave(session: Session, tenant: Tenant) -> None:
    """A deleted tenant uses nobody's images any more."""
    for member in session.exec(select(ImageMember).where(ImageMember.tenant_id == tenant.id)):
        session.delete(member)


tenants.not_owned.add(ImageMember)
tenants.on_delete.append(_leave)

WAITING = (ImageStatus.QUEUED, ImageStatus.RECEIVING)
"""States in which an image takes data (unless it is imported)."""

ORDERS: dict[str, Any] = {"NAME": col(Image.name), "UPDATED_AT": col(Image.updated_at)}


def reach(session: Session, subject: Subject, public_id: str, *path: str) -> Image:
    """The image a member of its tenant means to change. Raises NotFound or Forbidden."""
    image = NOUN.get(session, subject, public_id, *(path or ("id",)))
    if subject.role_in(image.tenant_id) is None:
        raise Forbidden("The image belongs to another tenant.", path=path or ("id",), required=Role.MEMBER.value)
    require(subject, Role.MEMBER, image.tenant_id, what="changing an image")
    return image


def move(image: Image, allowed: tuple[ImageStatus, ...], to: ImageStatus, *path: str) -> None:
    """Change the state; the row's version makes it compare-and-set. Raises InvalidState at ``path``."""
    require_status(image, allowed, *path)
    image.status = to


def require_status(image: Image, allowed: tuple[ImageStatus, ...], *path: str) -> None:
    """Refuse any other state. Raises InvalidState at ``path``."""
    if image.status not in allowed:
        raise InvalidState(
            f"The image is {image.status.value}.",
            path=path,
            current=image.status.value,
            allowed=[each.value for each in allowed],
        )


def order(session: Session, subject: Subject, image: Image, kind: str, **arguments: Any) -> Job:
    """Submit a job about an image, behind the others in its queue."""
    session.flush()
    public = NOUN.public(image)
    return jobs.submit(
        session, subject, Order(kind, image.tenant_id, public, arguments={"image_id": image.id, **arguments})
    )


# ------------------------------------------------------------------------------------------------ quota


def gib(size_bytes: int | None) -> int:
    """What a file counts, in GiB, rounded up."""
    return -(-(size_bytes or 0) // GIB)


def charge(session: Session, image: Image, size_bytes: int | None) -> None:
    """Have the image hold quota for so many bytes, from nothing, more or less. Raises QuotaExceeded."""
    wanted = gib(size_bytes)
    if image.charged_gib is None:
        quota.take(session, image.tenant_id, {Resource.IMAGES: 1, Resource.IMAGE_GIB: wanted})
    elif wanted > image.charged_gib:
        quota.take(session, image.tenant_id, {Resource.IMAGE_GIB: wanted - image.charged_gib})
    else:
        quota.give(session, image.tenant_id, {Resource.IMAGE_GIB: image.charged_gib - wanted})
    image.charged_gib = wanted


def discharge(session: Session, image: Image) -> None:
    """Give back what the image holds of the quota; doing it again gives nothing more."""
    if image.charged_gib is not None:
        quota.give(session, image.tenant_id, {Resource.IMAGES: 1, Resource.IMAGE_GIB: image.charged_gib})
        image.charged_gib = None


def spoil(session: Session, image: Image, reason: str) -> None:
    """The image will never be: it says why, and holds nothing any more. One on its way out stays so."""
    if image.status is not ImageStatus.DELETING:
        image.status = ImageStatus.ERROR
        image.status_reason = reason[:500]
    discharge(session, image)


# ------------------------------------------------------------------------------------------------ the end


def forget(session: Session, image: Image) -> bool:
    """The last trace that people see goes. The row stays, hidden, while others refer to it; whether it is gone."""
    discharge(session, image)
    for member in session.exec(select(ImageMember).where(ImageMember.image_id == image.id)):
        session.delete(member)
    session.flush()
    if referred(session, image.id):
        image.deleted_at = image.deleted_at or clock.now(session)
        return False
    session.delete(image)
    session.flush()
    return True


def referred(session: Session, image_id: int) -> bool:
    """Whether a row of any table refers to the image: a server, a volume, a copy on a host."""
    keys = [
        key.parent
        for table in SQLModel.metadata.tables.values()
        for key in table.foreign_keys
        if key.column.table.name == Image.__tablename__
    ]
    return any(session.execute(sa.select(key).where(key == image_id).limit(1)).first() is not None for key in keys)


def in_use_on(session: Session, image_id: int, host_id: int) -> bool:
    """Whether something on that host was made from the image, as far as rows tell."""
    tables = [each for each in SQLModel.metadata.tables.values() if {"image_id", "host_id"} <= set(each.c.keys())]
    used = [
        sa.select(sa.literal(1)).where(each.c.image_id == image_id, each.c.host_id == host_id).limit(1)
        for each in tables
        if each.name != ImageCopy.__tablename__
    ]
    return any(session.execute(one).first() is not None for one in used)


# ------------------------------------------------------------------------------------------------ lists


class Filter(Command):
    """Which images."""

    tenant_id: AnyId | None = Field(default=None, description="Owned by this tenant.")
    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    status: list[ImageStatus] | None = Field(default=None, description="In one of these states.")
    visibility: list[Visibility] | None = Field(default=None, description="Offered to one of these circles.")
    tag: str | None = Field(default=None, max_length=60, description="With this tag.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Image]:
    """The images a subject may see."""
    found = select(Image).where(NOUN.scope(subject))
    if wanted.tenant_id is not None:
        owner = select(Tenant.id).where(Tenant.uid == tenants.NOUN.uid(wanted.tenant_id, "tenantId"))
        found = found.where(col(Image.tenant_id).in_(owner))
    if wanted.name is not None:
        found = found.where(Image.name == wanted.name)
    if wanted.status is not None:
        found = found.where(col(Image.status).in_(wanted.status))
    if wanted.visibility is not None:
        found = found.where(col(Image.visibility).in_(wanted.visibility))
    if wanted.tag is not None:
        found = found.where(row.json_has(col(Image.tags), wanted.tag))
    return found
