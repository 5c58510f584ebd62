"""Taking snapshots of servers, going back to them, deleting them. It stands apart from the noun because it needs the
server, which needs the noun.

A snapshot is charged, and room is held for it on its host, as the most that it can come to: all disks written anew, and
the memory. What a server did since a snapshot is lost when it goes back, and nothing brings it back again.
"""

from typing import Any, Self

from pydantic import Field, model_validator
from sqlmodel import Session, select

from gateway.compute import relocation, server_snapshot
from gateway.compute import server as servers
from gateway.compute.server import Server
from gateway.compute.server_snapshot import NOUN, ServerSnapshot, ServerSnapshotStatus
from gateway.compute.server_state import Action, Observed, Wanted
from gateway.compute.standstill import check_host
from gateway.identity import quota
from gateway.identity.quota import Resource
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel.access import Role, Subject, require
from gateway.kernel.command import AnyId, Name, Retryable, Text
from gateway.kernel.errors import Conflict, InvalidState, Refusal
from gateway.metering import usage
from gateway.metering.usage import Metered
from gateway.volume.volume import Volume, VolumeStatus

CAPABILITY = "MACHINE_SNAPSHOT"
MOST = 32
"""As many as vSphere lets a disk's chain grow to."""
_MIB_PER_GIB = 1024


class ServerSnapshotCreate(Retryable):
    """A new snapshot of a server."""

    server_id: AnyId = Field(description="The server.")
    name: Name = Field(description="The snapshot's name; need not be unique.")
    description: Text = Field(default="", description="What it is for.")
    with_memory: bool = Field(
        default=False, description="Whether what runs is kept, too, so that it runs on; a server that is off has none."
    )
    quiesce: bool = Field(
        default=False,
        description="Whether its guest is asked to write all down and hold still; `quiesced` tells whether it did.",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.with_memory and self.quiesce:
            raise ValueError("memory holds what the guest has not written down yet: ask for one of the two")
        return self


class ServerSnapshotRevert(Retryable):
    """The snapshot to go back to."""

    id: AnyId = Field(description="The snapshot. What its server did since is lost.")


class ServerSnapshotDelete(Retryable):
    """The server snapshot to delete."""

    id: AnyId = Field(description="The snapshot; those made after it stay.")


def create(session: Session, subject: Subject, command: ServerSnapshotCreate) -> dict[str, Any]:
    """Insert the snapshot with its job. Raises NotFound, Forbidden, InvalidState, InUse, Unsupported, Conflict,
    QuotaExceeded.
    """
    server = relocation.standing(session, subject, command.server_id, Action.SNAPSHOT)
    check_host(session, server, CAPABILITY, "serverId")
    if len(server_snapshot.of_server(session, server.id)) >= MOST:
        raise Conflict("The server has as many snapshots as it can have.", path=("serverId",))
    size_gib = _size_gib(session, server)
    quota.take(session, server.tenant_id, {Resource.SERVER_SNAPSHOTS: 1, Resource.VOLUME_GIB: size_gib})
    made = ServerSnapshot(
        tenant_id=server.tenant_id,
        server_id=server.id,
        name=command.name,
        description=command.description,
        with_memory=command.with_memory,
        size_gib=size_gib,
    )
    session.add(made)
    session.flush()
    server_snapshot.recount(session, server)
    usage.made(session, server.tenant_id, made.uid, {Metered.SNAPSHOT_GIB: size_gib})
    return _ordered(session, subject, made, server, "server_snapshot.create", quiesce=command.quiesce)


def revert(session: Session, subject: Subject, command: ServerSnapshotRevert) -> dict[str, Any]:
    """Order the way back. Raises NotFound, Forbidden, InvalidState, InUse, Unsupported."""
    found = _reach(session, subject, command.id, "going back to a server's snapshot")
    if found.status is not ServerSnapshotStatus.AVAILABLE:
        raise _wrong(found, ServerSnapshotStatus.AVAILABLE)
    public = servers.NOUN.public(session.get_one(Server, found.server_id))
    try:
        server = relocation.standing(session, subject, public, Action.REVERT)
    except Refusal as refusal:
        refusal.path = ("id",)
        raise
    check_host(session, server, CAPABILITY, "id")
    return _ordered(session, subject, found, server, "server_snapshot.restore")


def delete(session: Session, subject: Subject, command: ServerSnapshotDelete) -> dict[str, Any]:
    """Delete a snapshot; those made after it stay, and the server is as it was. Raises NotFound, Forbidden,
    InvalidState.
    """
    found = _reach(session, subject, command.id, "deleting a server's snapshot")
    server = session.get_one(Server, found.server_id)
    if found.status is ServerSnapshotStatus.DELETING:
        return {"server_snapshot": found, "server": server, "job": jobs.active(session, NOUN.public(found))}
    if found.status is ServerSnapshotStatus.CREATING:
        raise _wrong(found, ServerSnapshotStatus.AVAILABLE, ServerSnapshotStatus.ERROR)
    found.status = ServerSnapshotStatus.DELETING
    server_snapshot.recount(session, server)
    return _ordered(session, subject, found, server, "server_snapshot.delete")


def reverted(session: Session, server: Server, observed: Observed) -> None:
    """The server is where the snapshot was: what it does now is what is wanted."""
    server.wanted = Wanted.ON if observed is Observed.RUNNING else Wanted.OFF
    servers.observe(session, server, observed)


def _size_gib(session: Session, server: Server) -> int:
    """The most that a snapshot can come to. Raises InvalidState while a disk comes, goes or grows."""
    held = session.exec(select(Volume).where(Volume.server_id == server.id)).all()
    still = (VolumeStatus.IN_USE, *((VolumeStatus.HELD,) if server.snapshot_count else ()))
    for volume in held:
        if volume.status not in still:
            raise InvalidState(
                f"A volume of the server is {volume.status.value}.", path=("serverId",), current=volume.status.value,
                allowed=[each.value for each in still],
            )  # fmt: skip
    ram_gib = 0 if server.observed is Observed.OFF else -(-server.ram_mib // _MIB_PER_GIB)
    return server.disk_gib + sum(each.size_gib for each in held) + ram_gib


def _reach(session: Session, subject: Subject, public_id: str, what: str) -> ServerSnapshot:
    found = NOUN.get(session, subject, public_id, "id")
    require(subject, Role.MEMBER, found.tenant_id, what=what)
    return found


def _wrong(found: ServerSnapshot, *allowed: ServerSnapshotStatus) -> InvalidState:
    current = found.status.value
    names = [each.value for each in allowed]
    return InvalidState(f"The snapshot is {current}.", path=("id",), current=current, allowed=names)


def _ordered(
    session: Session, subject: Subject, snapshot: ServerSnapshot, server: Server, kind: str, **more: Any
) -> dict[str, Any]:
    session.flush()
    order = Order(
        kind, snapshot.tenant_id, NOUN.public(snapshot), resource=servers.NOUN.public(server),
        arguments={"snapshot_id": snapshot.id, "server_id": server.id, **more},
    )  # fmt: skip
    return {"server_snapshot": snapshot, "server": server, "job": jobs.submit(session, subject, order)}
