"""Images made of disks: of a volume, of a snapshot, or of a server's root disk. It is also how a volume is downloaded.

The image is a row like any other from the start; a job takes the disk out of its host and hands it to the same judges
as an upload. A disk that somebody writes to cannot leave its host whole, so a volume that is in use is taken only while
its server is off, and stays as it is meanwhile (HELD); a running server's disk is snapshot first, and the snapshot
captured. Putting a file into a volume needs nothing of its own: it is an image, and a volume made from that.
"""

from typing import Any, Self

from pydantic import model_validator
from sqlmodel import Field, Session

from gateway.compute import server as servers
from gateway.compute.host import Host
from gateway.compute.server import Server
from gateway.compute.server_state import ServerStatus
from gateway.image import image as images
from gateway.image.formats import GIB, ImageFormat
from gateway.image.image import Image, ImageStatus
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel.access import Role, Subject, require
from gateway.kernel.command import AnyId, Name, Retryable, Tag, Text
from gateway.kernel.errors import Invalid, InvalidState, Unsupported
from gateway.volume import snapshot as snapshots
from gateway.volume import volume as volumes
from gateway.volume.snapshot import SnapshotStatus
from gateway.volume.volume import Volume, VolumeStatus

_WHOLE = (VolumeStatus.AVAILABLE, VolumeStatus.IN_USE)


class ImageCapture(Retryable):
    """A disk to make an image of: exactly one of a volume, a snapshot and a server."""

    name: Name = Field(description="The image's name; need not be unique.")
    description: Text = Field(default="", description="What it holds.")
    volume_id: AnyId | None = Field(
        default=None, description="A volume; one that is in use only while its server is off."
    )
    snapshot_id: AnyId | None = Field(default=None, description="A snapshot.")
    server_id: AnyId | None = Field(default=None, description="A server that is STOPPED, for its root disk.")
    format: ImageFormat = Field(
        default=ImageFormat.QCOW2, description="What the image's file is to be; it can be downloaded as that."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=50, description="Words to find it by.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(each is not None for each in (self.volume_id, self.snapshot_id, self.server_id)) != 1:
            raise ValueError("give exactly one of volumeId, snapshotId and serverId")
        if self.format is ImageFormat.ISO:
            raise ValueError("a disk cannot become an ISO")
        return self


def capture(session: Session, subject: Subject, command: ImageCapture) -> dict[str, Any]:
    """Insert the image with its job. Raises NotFound, Forbidden, InvalidState, Invalid, Unsupported, QuotaExceeded."""
    if command.volume_id is not None:
        source = _of_volume(session, subject, command.volume_id)
    elif command.snapshot_id is not None:
        source = _of_snapshot(session, subject, command.snapshot_id)
    else:
        source = _of_server(session, subject, command.server_id or "")
    tenant_id, gib, host_id = source.pop("tenant_id"), source.pop("gib"), source.pop("host_id")
    _require_transport(session, host_id)
    if gib > session.info["settings"].max_virtual_gib:
        raise Invalid(f"An image's disk may have at most {session.info['settings'].max_virtual_gib} GiB.")
    image = Image(
        tenant_id=tenant_id,
        name=command.name,
        description=command.description,
        status=ImageStatus.RECEIVING,
        declared_format=command.format,
        tags=list(dict.fromkeys(command.tags)),
    )
    images.charge(session, image, gib * GIB)
    session.add(image)
    session.flush()
    resource = source.pop("resource")
    order = Order(
        "image.capture", tenant_id, images.NOUN.public(image), resource=resource,
        arguments={"image_id": image.id, **source},
    )  # fmt: skip
    return {"image": image, "job": jobs.submit(session, subject, order)}


def _of_volume(session: Session, subject: Subject, public_id: str) -> dict[str, Any]:
    volume = volumes.reach(session, subject, public_id, "volumeId")
    holder = session.get(Server, volume.server_id) if volume.server_id is not None else None
    adopted = holder is not None and holder.in_place and holder.migration_id is None
    allowed = (*_WHOLE, VolumeStatus.HELD) if adopted else _WHOLE
    before = volume.status
    resource = volumes.queue_of(session, volume)
    volumes.move(volume, allowed, VolumeStatus.HELD, "volumeId")
    if holder is not None:
        _require_off(holder, "volumeId")
    return {
        "tenant_id": volume.tenant_id, "gib": volume.size_gib, "host_id": volume.host_id, "resource": resource,
        "volume_id": volume.id, "before": before.value,
    }  # fmt: skip


def _of_snapshot(session: Session, subject: Subject, public_id: str) -> dict[str, Any]:
    found = snapshots.NOUN.get(session, subject, public_id, "snapshotId")
    require(subject, Role.MEMBER, found.tenant_id, what="making an image of a snapshot")
    if found.status is not SnapshotStatus.AVAILABLE:
        raise InvalidState(
            f"The snapshot is {found.status.value}.", path=("snapshotId",), current=found.status.value,
            allowed=[SnapshotStatus.AVAILABLE.value],
        )  # fmt: skip
    return {
        "tenant_id": found.tenant_id, "gib": found.size_gib, "host_id": found.host_id, "snapshot_id": found.id,
        "resource": snapshots.NOUN.public(found),
    }  # fmt: skip


def _of_server(session: Session, subject: Subject, public_id: str) -> dict[str, Any]:
    server = servers.reach(session, subject, public_id, "serverId")
    _require_off(server, "serverId")
    if server.root_uid is None:
        raise Invalid("The server boots from a volume: capture that.", path=("serverId",))
    return {
        "tenant_id": server.tenant_id, "gib": server.disk_gib, "host_id": server.host_id, "server_id": server.id,
        "resource": servers.NOUN.public(server),
    }  # fmt: skip


def _require_off(server: Server, path: str) -> None:
    if server.status is not ServerStatus.STOPPED:
        raise InvalidState(
            f"The server is {server.status.value}: stop it, or make a snapshot and capture that.", path=(path,),
            current=server.status.value, allowed=[ServerStatus.STOPPED.value],
        )  # fmt: skip


def _require_transport(session: Session, host_id: int | None) -> None:
    host = session.get(Host, host_id) if host_id is not None else None
    if host is not None and "DISK_TRANSPORT" not in host.capabilities:
        raise Unsupported(
            "The disk's host cannot hand disks out.", capability="DISK_TRANSPORT", hypervisor=host.hypervisor.value
        )


def freed(session: Session, arguments: dict[str, Any]) -> None:
    """The disk was taken, or will not be: its volume is what it was before."""
    volume = session.get(Volume, arguments["volume_id"]) if "volume_id" in arguments else None
    if volume is not None and volume.status is VolumeStatus.HELD:
        before = VolumeStatus(arguments["before"])
        volume.status = VolumeStatus.AVAILABLE if volume.server_id is None else before
