"""Volumes: disks that live on their own and outlive the servers they are attached to.

``status`` is the lock: a command moves it from a state that allows the command to one that says what is under way, in
the mutation's own transaction, and the job moves it on. A volume lies on one host and can be attached to servers there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlmodel import Field, Session, col

from gateway.identity import quota
from gateway.identity.quota import Resource
from gateway.kernel import row
from gateway.kernel.access import Subject, within
from gateway.kernel.errors import InvalidState
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row
from gateway.metering import usage


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
    snapshot_id: int | None = row.ref("snapshot.id", null=True)
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


def visible(subject: Subject) -> Any:
    """The predicate of the volumes a subject may see."""
    return NOUN.scope(subject)
