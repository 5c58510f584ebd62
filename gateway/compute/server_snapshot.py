"""Server snapshots: a whole server at one moment, its disks and, where that was asked for, its memory.

They lie in the server's own disks and go with it: unlike a volume's snapshot none stands alone. They form a tree; one
that goes gives its children to its parent. While a server has any, its devices and its size stay as they are, since
each snapshot remembers them: its volumes are HELD, and who would change something is told the snapshots in the way.
What is asked for is in gateway/compute/snapshotting.py, which needs the server, which needs this.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlmodel import Field, Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.compute import host as hosts
from gateway.compute.host import Amount
from gateway.identity import quota
from gateway.identity.quota import Resource
from gateway.kernel import noun as nouns
from gateway.kernel import row
from gateway.kernel.access import Subject, within
from gateway.kernel.command import AnyId, Command
from gateway.kernel.errors import InUse
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row
from gateway.metering import usage
from gateway.volume.volume import Volume, VolumeStatus

if TYPE_CHECKING:
    from gateway.compute.server import Server

MOST_TOLD = 20


class ServerSnapshotStatus(StrEnum):
    """Where a server snapshot stands."""

    CREATING = "CREATING"
    """Being made."""
    AVAILABLE = "AVAILABLE"
    """Ready: the server can go back to it."""
    DELETING = "DELETING"
    """On its way out."""
    ERROR = "ERROR"
    """It could not be made, or is gone from its host; delete it."""


class ServerSnapshot(Row, table=True):
    """A server snapshot. ``current`` is the one whose child the next would be; ``host_id`` the host that holds
    ``size_gib`` for it.
    """

    __tablename__ = "server_snapshot"

    tenant_id: int = row.ref("tenant.id")
    server_id: int = row.ref("server.id")
    parent_id: int | None = Field(default=None, index=True, sa_type=row.Key)
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)
    status: ServerSnapshotStatus = row.enum(ServerSnapshotStatus, default=ServerSnapshotStatus.CREATING)
    status_reason: str | None = Field(default=None, max_length=500)
    with_memory: bool = False
    quiesced: bool = False
    current: bool = False
    size_gib: int
    host_id: int | None = row.ref("host.id", null=True)


NOUN = register(Noun("server_snapshot", ServerSnapshot, lambda subject: within(col(ServerSnapshot.tenant_id), subject)))

ORDERS: dict[str, Any] = {"NAME": col(ServerSnapshot.name), "SIZE_GIB": col(ServerSnapshot.size_gib)}


class Filter(Command):
    """Which server snapshots."""

    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    status: list[ServerSnapshotStatus] | None = Field(default=None, description="In one of these states.")
    server_id: AnyId | None = Field(default=None, description="Of this server.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[ServerSnapshot]:
    """The server snapshots a subject may see."""
    found = select(ServerSnapshot).where(NOUN.scope(subject))
    if wanted.name is not None:
        found = found.where(ServerSnapshot.name == wanted.name)
    if wanted.status is not None:
        found = found.where(col(ServerSnapshot.status).in_(wanted.status))
    if wanted.server_id is not None:
        servers = nouns.BY_PREFIX["server"]
        owner = select(servers.table.id).where(
            servers.table.uid == servers.uid(wanted.server_id, "filter", "serverId"), servers.scope(subject)
        )
        found = found.where(col(ServerSnapshot.server_id).in_(owner))
    return found


def of_server(session: Session, server_id: int) -> list[ServerSnapshot]:
    """All of a server's, oldest first."""
    statement = select(ServerSnapshot).where(ServerSnapshot.server_id == server_id).order_by(col(ServerSnapshot.id))
    return list(session.exec(statement))


# ------------------------------------------------------------------------------------------------ what they hold


_HOLDS = col(ServerSnapshot.status) != ServerSnapshotStatus.ERROR


def refuse(session: Session, server: "Server", *path: str) -> None:
    """Raise InUse, with its snapshots as blockers, for a server that has any."""
    if server.snapshot_count:
        held = select(ServerSnapshot).where(ServerSnapshot.server_id == server.id, _HOLDS)
        found = session.exec(held.order_by(col(ServerSnapshot.id)).limit(MOST_TOLD))
        message = "The server has snapshots, which remember its devices and its size: delete them first."
        raise InUse(message, path=path, blockers=[NOUN.public(each) for each in found])


def recount(session: Session, server: "Server") -> None:
    """After a snapshot came or went: hold the server's volumes while there are any, and let them go with the last."""
    session.flush()
    count = select(func.count()).select_from(ServerSnapshot).where(ServerSnapshot.server_id == server.id, _HOLDS)
    server.snapshot_count = session.exec(count).one()
    before, after = VolumeStatus.IN_USE, VolumeStatus.HELD
    if not server.snapshot_count:
        before, after = after, before
    for volume in session.exec(select(Volume).where(Volume.server_id == server.id, Volume.status == before)):
        volume.status = after


def drop(session: Session, snapshot: ServerSnapshot, why: str) -> None:
    """It is not on its host: it shows why, and neither takes room there nor is counted any more."""
    _let_go(session, snapshot)
    snapshot.status = ServerSnapshotStatus.ERROR
    snapshot.status_reason = why[:500]
    snapshot.current = False


def forget(session: Session, snapshot: ServerSnapshot) -> None:
    """The last trace goes; its children are its parent's."""
    quota.give(session, snapshot.tenant_id, {Resource.SERVER_SNAPSHOTS: 1, Resource.VOLUME_GIB: snapshot.size_gib})
    _let_go(session, snapshot)
    for child in session.exec(select(ServerSnapshot).where(ServerSnapshot.parent_id == snapshot.id)):
        child.parent_id = snapshot.parent_id
    session.delete(snapshot)
    session.flush()


def _let_go(session: Session, snapshot: ServerSnapshot) -> None:
    if snapshot.host_id is not None:
        hosts.release(session, snapshot.host_id, Amount(disk_gib=snapshot.size_gib))
        snapshot.host_id = None
    usage.closed(session, snapshot.uid)


# ------------------------------------------------------------------------------------------------ what is seen


@dataclass(frozen=True, slots=True)
class Seen:
    """A snapshot as its host has it, by uid."""

    uid: UUID
    parent_uid: UUID | None
    memory: bool
    quiesced: bool
    current: bool


def record(session: Session, server_id: int, seen: Iterable[Seen]) -> None:
    """Record the tree as the host has it, for the snapshots that are known."""
    session.flush()
    mine = {each.uid: each for each in of_server(session, server_id)}
    for each in seen:
        found = mine.get(each.uid)
        if found is None:
            continue
        parent = mine.get(each.parent_uid) if each.parent_uid is not None else None
        found.parent_id = parent.id if parent is not None else None
        found.with_memory, found.quiesced, found.current = each.memory, each.quiesced, each.current
