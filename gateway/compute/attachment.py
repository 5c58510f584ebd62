"""Attaching volumes to servers, running or not. The volume is promised to the server in the mutation's transaction; the
job plugs it in, and takes the promise back when that cannot be done.
"""

from typing import Annotated, Any

from pydantic import StringConstraints
from sqlmodel import Field, Session, select

from gateway.compute import server as servers
from gateway.compute import server_snapshot
from gateway.compute.server import Server
from gateway.compute.server_state import Action
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Retryable
from gateway.kernel.errors import Conflict, InUse, Invalid, InvalidState, NotFound, NoValidHost
from gateway.volume import volume as volumes
from gateway.volume.volume import Volume, VolumeStatus

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class VolumeAttach(Retryable):
    """A volume to attach."""

    volume_id: AnyId = Field(description="The volume; it must be available and on the server's host.")
    server_id: AnyId = Field(description="The server, of the same tenant.")
    device: Annotated[str, StringConstraints(pattern="^vd[a-z]$")] | None = Field(
        default=None, description="The guest's name for it, such as `vdc`; the next free one by default."
    )
    delete_with_server: bool = Field(default=False, description="Whether it goes when the server goes.")


class VolumeDetach(Retryable):
    """A volume to detach."""

    volume_id: AnyId = Field(description="The volume.")


def attach(session: Session, subject: Subject, command: VolumeAttach) -> dict[str, Any]:
    """Promise the volume and order the job. Raises InvalidState, Conflict, Invalid, NoValidHost."""
    volume = volumes.reach(session, subject, command.volume_id, "volumeId")
    try:
        server = servers.ask(session, subject, command.server_id, Action.ATTACH_VOLUME)
    except (InUse, InvalidState, NotFound) as refusal:
        refusal.path = ("serverId",)
        raise
    if volume.tenant_id != server.tenant_id:
        raise Invalid("The volume belongs to another tenant than the server.", path=("volumeId",))
    if volume.status is VolumeStatus.AVAILABLE and server.host_id is not None and volume.host_id != server.host_id:
        raise NoValidHost("The volume lies on another host than the server.", path=("volumeId",), decision=None)
    device = _device(session, server, command.device)
    volumes.promise(volume, server.id, device, "volumeId")
    volume.delete_with_server = command.delete_with_server
    return _ordered(session, subject, volume, server, "volume.attach")


def detach(session: Session, subject: Subject, command: VolumeDetach) -> dict[str, Any]:
    """Order the job that unplugs a volume. Raises InvalidState."""
    volume = volumes.reach(session, subject, command.volume_id, "volumeId")
    server = session.get(Server, volume.server_id) if volume.server_id is not None else None
    if server is not None:
        server_snapshot.refuse(session, server, "volumeId")
    volumes.move(volume, (VolumeStatus.IN_USE,), VolumeStatus.DETACHING, "volumeId")
    if server is None:
        raise AssertionError("a volume in use has a server")
    if server.root_uid is None and volume.device == "vda":
        raise Invalid("The server boots from this volume.", path=("volumeId",))
    return _ordered(session, subject, volume, server, "volume.detach")


def _device(session: Session, server: Server, wanted: str | None) -> str:
    taken = set(session.exec(select(Volume.device).where(Volume.server_id == server.id)))
    if server.root_uid is not None:
        taken.add("vda")
    if wanted is not None:
        if wanted in taken:
            raise Conflict(f"The server has a disk {wanted} already.", path=("device",))
        return wanted
    free = next((f"vd{letter}" for letter in _LETTERS if f"vd{letter}" not in taken), None)
    if free is None:
        raise Conflict("The server has as many disks as it can have.", path=("serverId",))
    return free


def _ordered(session: Session, subject: Subject, volume: Volume, server: Server, kind: str) -> dict[str, Any]:
    session.flush()
    order = Order(
        kind, volume.tenant_id, volumes.NOUN.public(volume), resource=servers.NOUN.public(server),
        arguments={"volume_id": volume.id, "server_id": server.id},
    )  # fmt: skip
    return {"volume": volume, "server": server, "job": jobs.submit(session, subject, order)}
