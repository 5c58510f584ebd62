"""What may be done to an image that is there: change what is said of it, share it, delete it.

An image's file never changes. Deleting is a promise kept by a job: the image takes no new use from this moment, servers
and volumes made from it keep working, and whatever job was at work on it is asked to stop first.
"""

from collections.abc import Sequence
from typing import Any

from sqlmodel import Field, Session, col, select

from gateway.identity import tenant as tenants
from gateway.identity.tenant import Tenant
from gateway.image import image as images
from gateway.image.image import MEMBER, NOUN, Image, ImageMember, ImageStatus, Visibility
from gateway.image.image_create import MAX_MIN_DISK_GIB, MAX_MIN_RAM_MIB, require_public
from gateway.jobs import job as jobs
from gateway.jobs.job import Job
from gateway.kernel import row
from gateway.kernel.access import Role, Subject
from gateway.kernel.command import AnyId, Name, Retryable, Tag, Text, Versioned
from gateway.kernel.errors import Conflict, Invalid, InvalidState, NotFound

MOST_MEMBERS = 200


class ImageUpdate(Versioned):
    """What to change of an image; what is absent stays."""

    id: AnyId = Field(description="The image.")
    name: Name | None = Field(default=None, description="Its new name.")
    description: Text | None = Field(default=None, description="What it holds.")
    visibility: Visibility | None = Field(default=None, description="Who may use it; PUBLIC only by operators.")
    min_disk_gib: int | None = Field(
        default=None, ge=0, le=MAX_MIN_DISK_GIB, description="The smallest disk that a server made from it may have."
    )
    min_ram_mib: int | None = Field(
        default=None, ge=0, le=MAX_MIN_RAM_MIB, description="The least memory that a server made from it may have."
    )
    tags: list[Tag] | None = Field(default=None, max_length=50, description="Its new tags, all of them.")
    protected: bool | None = Field(default=None, description="Whether it cannot be deleted.")


class ImageDelete(Retryable):
    """The image to delete."""

    id: AnyId = Field(description="The image.")


class ImageMemberAdd(Retryable):
    """A tenant to share an image with."""

    image_id: AnyId = Field(description="The image; its visibility is SHARED.")
    tenant_id: AnyId = Field(description="The tenant that may use it; you need not belong to it.")


class ImageMemberRemove(Retryable):
    """A tenant to share an image with no longer."""

    image_id: AnyId = Field(description="The image.")
    tenant_id: AnyId = Field(description="The tenant.")


def update(session: Session, subject: Subject, command: ImageUpdate) -> Image:
    """Change what is said of an image. Raises NotFound, Forbidden, StaleVersion, InvalidState."""
    image = images.reach(session, subject, command.id)
    row.expect(image, command.expected_version)
    _require_there(image, "id")
    given = command.model_fields_set
    if "visibility" in given and command.visibility not in (None, image.visibility):
        require_public(subject, command.visibility)
    for name in ("name", "visibility", "min_disk_gib", "min_ram_mib", "protected"):
        value = getattr(command, name)
        if name in given and value is not None:
            setattr(image, name, value)
    if "description" in given:
        image.description = command.description or ""
    if "tags" in given:
        image.tags = list(dict.fromkeys(command.tags or []))
    return image


def share(session: Session, subject: Subject, command: ImageMemberAdd) -> dict[str, Any]:
    """Let a tenant use a SHARED image; doing it again changes nothing.

    Raises NotFound, Forbidden, InvalidState, Invalid for the owner itself, Conflict when there are too many.
    """
    image = images.reach(session, subject, command.image_id, "imageId")
    _require_there(image, "imageId")
    if image.visibility is not Visibility.SHARED:
        raise InvalidState(
            f"The image is {image.visibility.value}; only a SHARED one has members.",
            path=("imageId",),
            current=image.visibility.value,
            allowed=[Visibility.SHARED.value],
        )
    tenant = _tenant(session, command.tenant_id)
    if tenant.id == image.tenant_id:
        raise Invalid("The image is this tenant's own.", path=("tenantId",))
    member = _member(session, image, tenant)
    if member is None:
        there = session.exec(select(ImageMember.id).where(ImageMember.image_id == image.id).limit(MOST_MEMBERS)).all()
        if len(there) >= MOST_MEMBERS:
            raise Conflict(f"An image is shared with at most {MOST_MEMBERS} tenants.", path=("tenantId",))
        member = ImageMember(image_id=image.id, tenant_id=tenant.id)
        session.add(member)
        session.flush()
    return {"image": image, "image_member": member}


def unshare(session: Session, subject: Subject, command: ImageMemberRemove) -> Image:
    """Share an image with a tenant no longer; the tenant's managers may give it back themselves.

    Raises NotFound, Forbidden.
    """
    image = NOUN.get(session, subject, command.image_id, "imageId")
    tenant = _tenant(session, command.tenant_id)
    if not subject.holds(Role.MANAGER, tenant.id):
        image = images.reach(session, subject, command.image_id, "imageId")
    member = _member(session, image, tenant)
    if member is not None:
        session.delete(member)
        session.flush()
    return image


def delete(session: Session, subject: Subject, command: ImageDelete) -> dict[str, Any]:
    """Put the image on its way out. Raises NotFound, Forbidden, InvalidState when it is protected."""
    image = images.reach(session, subject, command.id)
    if image.status is ImageStatus.DELETING:
        return {"image": image, "job": _deleting(session, image)}
    if image.protected:
        raise InvalidState("The image is protected.", path=("id",), current="PROTECTED", allowed=["UNPROTECTED"])
    return {"image": image, "job": doom(session, subject, image)}


def doom(session: Session, subject: Subject, image: Image) -> Job:
    """Start the deletion: nothing new uses the image, and jobs at work on it are asked to stop."""
    for job in session.exec(select(Job).where(Job.resource == NOUN.public(image), col(Job.status).in_(jobs.LIVE))):
        job.cancel_requested = True
        jobs.ring_after_commit(session, job.id)
    image.status = ImageStatus.DELETING
    return images.order(session, subject, image, "image.delete")


def _deleting(session: Session, image: Image) -> Job | None:
    mine = select(Job).where(Job.resource == NOUN.public(image), Job.kind == "image.delete")
    return session.exec(mine.order_by(col(Job.id).desc()).limit(1)).first()


def _require_there(image: Image, *path: str) -> None:
    if image.status is ImageStatus.DELETING:
        others = [each.value for each in ImageStatus if each is not ImageStatus.DELETING]
        raise InvalidState("The image is being deleted.", path=path, current=image.status.value, allowed=others)


def _tenant(session: Session, public_id: str) -> Tenant:
    """Any tenant: whom an image is shared with is told by its id, seen or not."""
    uid = tenants.NOUN.uid(public_id, "tenantId")
    found = session.exec(select(Tenant).where(Tenant.uid == uid, col(Tenant.deleted_at).is_(None))).first()
    if found is None:
        raise NotFound("There is no such tenant.", path=("tenantId",))
    return found


def _member(session: Session, image: Image, tenant: Tenant) -> ImageMember | None:
    return session.exec(
        select(ImageMember).where(ImageMember.image_id == image.id, ImageMember.tenant_id == tenant.id)
    ).first()


def tenants_of(session: Session, members: Sequence[int]) -> dict[int, str]:
    """TypeIDs of the tenants of memberships, whether the asker may see those tenants or not."""
    found = session.exec(
        select(ImageMember.id, Tenant)
        .join(Tenant, col(Tenant.id) == col(ImageMember.tenant_id))
        .where(col(ImageMember.id).in_(members))
    )
    return {key: tenants.NOUN.public(tenant) for key, tenant in found}


__all__ = [
    "MEMBER", "ImageDelete", "ImageMemberAdd", "ImageMemberRemove", "ImageUpdate", "delete", "doom", "share",
    "tenants_of", "unshare", "update",
]  # fmt: skip
