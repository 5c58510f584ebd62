"""New images: one that waits for an upload, or one that a job fetches from a URL.

Both take their quota in the mutation's own transaction, by the declared size if one is told, and end ACTIVE or ERROR
by a job (workers.image). Nothing is read or fetched here.
"""

from typing import Annotated, Any

from pydantic import StringConstraints, field_validator
from sqlmodel import Field, Session

from gateway.identity import ownership
from gateway.image import fetch
from gateway.image import image as images
from gateway.image.fetch import FetchFailed
from gateway.image.formats import ImageFormat
from gateway.image.image import Image, ImageStatus, Visibility
from gateway.kernel.access import Role, Subject
from gateway.kernel.command import AnyId, Big, Name, Retryable, Tag, Text
from gateway.kernel.errors import Forbidden, Invalid

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{64}$", to_lower=True)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=fetch.MAX_URL_CHARACTERS)]

MAX_MIN_DISK_GIB = 65_536
MAX_MIN_RAM_MIB = 16_777_216


class _NewImage(Retryable):
    """What both ways of making an image ask."""

    name: Name = Field(description="Its name; need not be unique.")
    description: Text = Field(default="", description="What it holds.")
    tenant_id: AnyId | None = Field(default=None, description="Whose it is; your only tenant by default.")
    format: ImageFormat | None = Field(
        default=None, description="Its format; a file of another one is refused. Found by inspection by default."
    )
    sha256: Sha256 | None = Field(
        default=None, description="The file's SHA-256 in hexadecimal; another file is refused."
    )
    visibility: Visibility = Field(default=Visibility.PRIVATE, description="Who may use it; PUBLIC only by operators.")
    min_disk_gib: int = Field(
        default=0, ge=0, le=MAX_MIN_DISK_GIB, description="The smallest disk that a server made from it may have."
    )
    min_ram_mib: int = Field(
        default=0, ge=0, le=MAX_MIN_RAM_MIB, description="The least memory that a server made from it may have."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=50, description="Words to find it by.")
    protected: bool = Field(default=False, description="Whether it cannot be deleted.")


class ImageCreate(_NewImage):
    """A new image that waits for its data: upload the file to the URL in `image.upload`."""

    size_bytes: Big | None = Field(
        default=None, ge=1, description="The file's size, if known: quota is taken for it, and the upload ends there."
    )


class ImageImport(_NewImage):
    """A new image whose file the cloud fetches."""

    url: Url = Field(description="An http or https URL on the public internet, without user name or password.")

    @field_validator("url")
    @classmethod
    def _fetchable(cls, url: str) -> str:
        try:
            fetch.check_url(url)
        except FetchFailed as refused:
            raise ValueError(refused.message) from None
        return url


def create(session: Session, subject: Subject, command: ImageCreate) -> Image:
    """Insert the image; it is QUEUED until data comes. Raises Forbidden, Invalid, QuotaExceeded."""
    largest: int = session.info["settings"].max_image_gib << 30
    if command.size_bytes is not None and command.size_bytes > largest:
        raise Invalid(f"An image may have at most {largest} bytes.", path=("sizeBytes",))
    image = _new(session, subject, command)
    image.expected_bytes = command.size_bytes
    images.charge(session, image, command.size_bytes)
    session.add(image)
    return image


def bring(session: Session, subject: Subject, command: ImageImport) -> dict[str, Any]:
    """Insert the image with the job that fetches it. Raises Forbidden, QuotaExceeded."""
    image = _new(session, subject, command)
    image.status = ImageStatus.RECEIVING
    image.source_url = command.url
    images.charge(session, image, None)
    session.add(image)
    return {"image": image, "job": images.order(session, subject, image, "image.import")}


def _new(session: Session, subject: Subject, command: _NewImage) -> Image:
    tenant = ownership.tenant_for(session, subject, command.tenant_id, Role.MEMBER)
    require_public(subject, command.visibility)
    return Image(
        tenant_id=tenant.id,
        name=command.name,
        description=command.description,
        declared_format=command.format,
        expected_sha256=command.sha256,
        visibility=command.visibility,
        min_disk_gib=command.min_disk_gib,
        min_ram_mib=command.min_ram_mib,
        tags=list(dict.fromkeys(command.tags)),
        protected=command.protected,
    )


def require_public(subject: Subject, visibility: Visibility) -> None:
    """Only operators offer an image to everyone. Raises Forbidden at ``visibility``."""
    if visibility is Visibility.PUBLIC and not subject.admin:
        raise Forbidden("Only an operator may make an image public.", path=("visibility",), required="ADMIN")
