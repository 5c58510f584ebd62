"""Volumes: disks that live on their own and outlive the servers they are attached to.

``status`` is the lock: a command moves it from a state that allows the command to one that says what is under way, in
the mutation's own transaction, and the job moves it on. A volume lies on one host and can be attached to servers there.
"""

from enum import StrEnum
from typing import Annotated, Any, Self

import sqlalchemy as sa
from pydantic import StringConstraints, model_validator
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import ownership, quota
from gateway.identity import tenant as tenants
from gateway.identity.quota import Resource
from gateway.identity.tenant import Tenant
from gateway.image import image as images
from gateway.image.image import Image, ImageStatus
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel import noun as nouns
from gateway.kernel import row
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.command import AnyId, Command, Name, Retryable, Tag, Text, Versioned
from gateway.kernel.errors import InUse, Invalid, InvalidState
from gateway.kernel.noun import Noun, register
from gateway.kernel.prepared import Rows
from gateway.kernel.row import Row
from gateway.metering import usage
from gateway.metering.usage import Metered
from gateway.volume import snapshot as snapshots
from gateway.volume.snapshot import Snapshot, SnapshotStatus


class VolumeStatus(StrEnum):
    """Where a volume stands."""

    CREATING = "CREATING"
    """Being made."""
    AVAILABLE = "AVAILABLE"
    """Ready, attached to nothing."""
    ATTACHING = "ATTACHING"
    """Promised to a server that it is being attached to."""
    IN_USE = "IN_USE"
    """Attached to a server."""
    DETACHING = "DETACHING"
    """Being detached."""
    EXTENDING = "EXTENDING"
    """Being grown."""
    HELD = "HELD"
    """Staying as it is: its server was adopted, is being moved or has snapshots, or an image is being made of it."""
    DELETING = "DELETING"
    """On its way out."""
    ERROR = "ERROR"
    """Could not be made; delete it."""


class Volume(Row, table=True):
    """A volume. ``device`` is the guest's name for it (``vdb``) while it is promised or attached to ``server_id``."""

    __tablename__ = "volume"

    tenant_id: int = row.ref("tenant.id")
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)
    status: VolumeStatus = row.enum(VolumeStatus, default=VolumeStatus.CREATING)
    status_reason: str | None = Field(default=None, max_length=500)
    size_gib: int
    host_id: int | None = row.ref("host.id", null=True)
    image_id: int | None = row.ref("image.id", null=True)
    snapshot_id: int | None = row.ref("snapshot.id", null=True, ondelete="SET NULL")
    server_id: int | None = row.ref("server.id", null=True)
    device: str | None = Field(default=None, max_length=16)
    delete_with_server: bool = False
    tags: list[str] = row.json(default_factory=list)


NOUN = register(Noun("volume", Volume, lambda subject: within(col(Volume.tenant_id), subject)))

ORDERS: dict[str, Any] = {"NAME": col(Volume.name), "SIZE_GIB": col(Volume.size_gib)}


def move(volume: Volume, allowed: tuple[VolumeStatus, ...], to: VolumeStatus, *path: str) -> None:
    """Change the state; the row's version makes it compare-and-set. Raises InvalidState at ``path``."""
    if volume.status not in allowed:
        raise InvalidState(
            f"The volume is {volume.status.value}.",
            path=path,
            current=volume.status.value,
            allowed=[each.value for each in allowed],
        )
    volume.status = to


def promise(volume: Volume, server_id: int, device: str, *path: str) -> None:
    """Promise an available volume to a server, as that device. Raises InvalidState at ``path``."""
    move(volume, (VolumeStatus.AVAILABLE,), VolumeStatus.ATTACHING, *path)
    volume.server_id = server_id
    volume.device = device


def of_server(session: Session, server_id: int) -> list[Volume]:
    """The volumes that a server has or is promised, by device."""
    return _OF_SERVER.all(session, server=server_id)


_OF_SERVER = Rows(
    Volume, lambda rows: rows.where(col(Volume.server_id) == sa.bindparam("server")).order_by(col(Volume.device))
)


def attached(volume: Volume) -> None:
    """The promise is kept."""
    volume.status = VolumeStatus.IN_USE


def freed(volume: Volume) -> None:
    """The volume is attached to nothing any more (or the promise is withdrawn)."""
    volume.status = VolumeStatus.AVAILABLE
    volume.server_id = None
    volume.device = None


def forget(session: Session, volume: Volume) -> None:
    """The last trace goes: quota is given back and nothing is counted any more."""
    quota.give(session, volume.tenant_id, {Resource.VOLUMES: 1, Resource.VOLUME_GIB: volume.size_gib})
    usage.closed(session, volume.uid)
    session.delete(volume)


# ------------------------------------------------------------------------------------------------ lists


class Filter(Command):
    """Which volumes."""

    tenant_id: AnyId | None = Field(default=None, description="Of this tenant.")
    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    status: list[VolumeStatus] | None = Field(default=None, description="In one of these states.")
    tag: str | None = Field(default=None, max_length=60, description="With this tag.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Volume]:
    """The volumes a subject may see."""
    found = select(Volume).where(NOUN.scope(subject))
    if wanted.tenant_id is not None:
        owner = select(Tenant.id).where(Tenant.uid == tenants.NOUN.uid(wanted.tenant_id, "tenantId"))
        found = found.where(col(Volume.tenant_id).in_(owner))
    if wanted.name is not None:
        found = found.where(Volume.name == wanted.name)
    if wanted.status is not None:
        found = found.where(col(Volume.status).in_(wanted.status))
    if wanted.tag is not None:
        found = found.where(row.json_has(col(Volume.tags), wanted.tag))
    return found


# ------------------------------------------------------------------------------------------------ commands


class VolumeCreate(Retryable):
    """A new volume: blank, or made from an image or a snapshot."""

    name: Name = Field(description="Its name; need not be unique.")
    description: Text = Field(default="", description="What it is for.")
    tenant_id: AnyId | None = Field(default=None, description="Whose it is; your only tenant by default.")
    size_gib: int | None = Field(
        default=None, ge=1, le=65_536, description="Size in GiB; that of the image or snapshot by default."
    )
    image_id: AnyId | None = Field(default=None, description="The image to make it from.")
    snapshot_id: AnyId | None = Field(default=None, description="The snapshot to make it from.")
    availability_zone: Name | None = Field(default=None, description="The zone it shall lie in; any by default.")
    hypervisor: Annotated[str, StringConstraints(pattern="^(KVM|ESXI|SIM)$")] | None = Field(
        default=None, description="`KVM`, `ESXI` or `SIM`: where it shall be usable; any by default."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=50, description="Words to find it by.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.image_id is not None and self.snapshot_id is not None:
            raise ValueError("give imageId or snapshotId, not both")
        if self.size_gib is None and self.image_id is None and self.snapshot_id is None:
            raise ValueError("a blank volume needs sizeGib")
        return self


class VolumeUpdate(Versioned):
    """What to change of a volume; what is absent stays."""

    id: AnyId = Field(description="The volume.")
    name: Name | None = Field(default=None, description="Its new name.")
    description: Text | None = Field(default=None, description="What it is for.")
    tags: list[Tag] | None = Field(default=None, max_length=50, description="Its new tags, all of them.")
    delete_with_server: bool | None = Field(
        default=None, description="Whether it goes when the server it is attached to is deleted."
    )


class VolumeExtend(Retryable):
    """A volume to grow."""

    id: AnyId = Field(description="The volume.")
    size_gib: int = Field(ge=1, le=65_536, description="Its new size in GiB; larger than now.")


class VolumeDelete(Retryable):
    """The volume to delete."""

    id: AnyId = Field(description="The volume.")


def create(session: Session, subject: Subject, command: VolumeCreate) -> dict[str, Any]:
    """Insert the volume with its job. Raises any refusal of what it is made from, and QuotaExceeded."""
    tenant = ownership.tenant_for(session, subject, command.tenant_id, Role.MEMBER)
    image = None if command.image_id is None else _image(session, subject, command.image_id)
    source = None if command.snapshot_id is None else _snapshot(session, subject, command.snapshot_id)
    least = source.size_gib if source is not None else _image_gib(image) if image is not None else 1
    size = command.size_gib if command.size_gib is not None else least
    if size < least:
        raise Invalid(f"Its source needs {least} GiB.", path=("sizeGib",))
    quota.take(session, tenant.id, {Resource.VOLUMES: 1, Resource.VOLUME_GIB: size})
    volume = Volume(
        tenant_id=tenant.id,
        name=command.name,
        description=command.description,
        size_gib=size,
        image_id=image.id if image is not None else None,
        snapshot_id=source.id if source is not None else None,
        tags=list(dict.fromkeys(command.tags)),
    )
    session.add(volume)
    session.flush()
    usage.opened(session, tenant.id, Metered.VOLUME_GIB, volume.uid, size)
    wishes = {"hypervisor": command.hypervisor, "availability_zone": command.availability_zone}
    return _ordered(session, subject, volume, "volume.create", wishes)


def update(session: Session, subject: Subject, command: VolumeUpdate) -> Volume:
    """Change what people call a volume."""
    volume = reach(session, subject, command.id)
    row.expect(volume, command.expected_version)
    given = command.model_fields_set
    if "name" in given and command.name is not None:
        volume.name = command.name
    if "description" in given:
        volume.description = command.description or ""
    if "tags" in given:
        volume.tags = list(dict.fromkeys(command.tags or []))
    if "delete_with_server" in given and command.delete_with_server is not None:
        volume.delete_with_server = command.delete_with_server
    return volume


def extend(session: Session, subject: Subject, command: VolumeExtend) -> dict[str, Any]:
    """Grow a volume, attached or not."""
    volume = reach(session, subject, command.id)
    if command.size_gib <= volume.size_gib:
        raise Invalid(f"The volume has {volume.size_gib} GiB; it can only grow.", path=("sizeGib",))
    before = volume.status
    move(volume, (VolumeStatus.AVAILABLE, VolumeStatus.IN_USE), VolumeStatus.EXTENDING, "id")
    more = command.size_gib - volume.size_gib
    quota.take(session, volume.tenant_id, {Resource.VOLUME_GIB: more})
    return _ordered(
        session, subject, volume, "volume.extend", {"size_gib": command.size_gib, "before": before.value, "more": more}
    )


def delete(session: Session, subject: Subject, command: VolumeDelete) -> dict[str, Any]:
    """Delete a volume that is attached to nothing. Raises InUse with the server that holds it."""
    volume = reach(session, subject, command.id)
    if volume.status is VolumeStatus.DELETING:
        return {"volume": volume, "job": jobs.active(session, NOUN.public(volume))}
    if volume.server_id is not None:
        holder = holder_of(session, volume)
        raise InUse("The volume is attached to a server.", path=("id",), blockers=[holder] if holder else [])
    move(volume, (VolumeStatus.AVAILABLE, VolumeStatus.ERROR), VolumeStatus.DELETING, "id")
    return _ordered(session, subject, volume, "volume.delete", {})


def reach(session: Session, subject: Subject, public_id: str, *path: str) -> Volume:
    """The volume a member means to change. Raises NotFound or Forbidden."""
    volume = NOUN.get(session, subject, public_id, *(path or ("id",)))
    require(subject, Role.MEMBER, volume.tenant_id, what="changing a volume")
    return volume


def holder_of(session: Session, volume: Volume) -> str | None:
    """The TypeID of the server that a volume is promised or attached to."""
    if volume.server_id is None:
        return None
    servers = nouns.BY_PREFIX["server"]
    found = session.get(servers.table, volume.server_id)
    return None if found is None else servers.public(found)


def queue_of(session: Session, volume: Volume) -> str:
    """Whose queue a volume's jobs join: its server's while it is attached, so that they never cross."""
    return holder_of(session, volume) or NOUN.public(volume)


def _ordered(
    session: Session, subject: Subject, volume: Volume, kind: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    session.flush()
    order = Order(
        kind, volume.tenant_id, NOUN.public(volume), resource=queue_of(session, volume),
        arguments={"volume_id": volume.id, **arguments},
    )  # fmt: skip
    return {"volume": volume, "job": jobs.submit(session, subject, order)}


def _image(session: Session, subject: Subject, public_id: str) -> Image:
    image = images.NOUN.get(session, subject, public_id, "imageId")
    if image.status is not ImageStatus.ACTIVE:
        raise InvalidState(
            f"The image is {image.status.value}.", path=("imageId",), current=image.status.value, allowed=["ACTIVE"]
        )
    return image


def _image_gib(image: Image) -> int:
    return max(1, image.min_disk_gib, -(-(image.virtual_size_bytes or 0) // (1 << 30)))


def _snapshot(session: Session, subject: Subject, public_id: str) -> Snapshot:
    found = snapshots.NOUN.get(session, subject, public_id, "snapshotId")
    if found.status is not SnapshotStatus.AVAILABLE:
        raise InvalidState(
            f"The snapshot is {found.status.value}.",
            path=("snapshotId",),
            current=found.status.value,
            allowed=["AVAILABLE"],
        )
    return found
