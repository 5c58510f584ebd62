"""Servers: virtual machines and the rules of their lives.

The row of a server is its record; what it does right now is observed from the hypervisor and never assumed. Commands on
one server queue up behind each other (``resource`` of their jobs); a server that is being made can already be deleted.
Creating is in gateway.compute.server_create; the states are in gateway.compute.server_state.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import field_validator
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.compute import server_snapshot
from gateway.compute.host import Hypervisor
from gateway.compute.machine_model import Devices, Firmware
from gateway.compute.server_state import (
    ALLOWED,
    DEVICES,
    MOMENTS,
    MOVES,
    STANDING,
    Action,
    Observed,
    Phase,
    ServerStatus,
    Wanted,
    states_allowing,
    status,
)
from gateway.identity import quota
from gateway.identity.quota import Resource
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import clock, row
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.command import AnyId, Command, KeyValue, Name, Retryable, Tag, Versioned, unique_keys
from gateway.kernel.errors import InvalidState
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row, Uid, expect
from gateway.metering import usage
from gateway.metering.usage import Metered
from gateway.network import port as ports
from gateway.network.port import Port


class Server(Row, table=True):
    """A server. Size is copied from its flavor; ``root_uid`` is its own disk (none when it boots from a volume)."""

    __tablename__ = "server"

    tenant_id: int = row.ref("tenant.id", index=False)
    creator_id: int | None = Field(default=None, sa_type=row.Key)
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)
    status: ServerStatus = row.enum(ServerStatus, default=ServerStatus.BUILDING)
    status_reason: str | None = Field(default=None, max_length=500)
    phase: Phase = row.enum(Phase, default=Phase.BUILDING)
    wanted: Wanted = row.enum(Wanted, default=Wanted.ON)
    observed: Observed | None = row.enum(Observed, default=None, nullable=True)
    flavor_id: int = row.ref("flavor.id")
    vcpus: int
    ram_mib: int
    disk_gib: int
    image_id: int | None = row.ref("image.id", null=True)
    keypair_id: int | None = Field(default=None, sa_type=row.Key)
    group_id: int | None = row.ref("server_group.id", null=True)
    public_key: str | None = Field(default=None, max_length=4096)
    root_uid: UUID | None = Field(default=None, sa_type=Uid)
    host_id: int | None = row.ref("host.id", null=True)
    hypervisor: Hypervisor | None = row.enum(Hypervisor, default=None, nullable=True)
    wanted_hypervisor: Hypervisor | None = row.enum(Hypervisor, default=None, nullable=True)
    availability_zone: str | None = Field(default=None, max_length=255)
    user_data: str | None = Field(default=None, sa_type=sa.Text)
    # SQLAlchemy keeps the name "metadata" for itself.
    properties: dict[str, str] = row.json(default_factory=dict)
    tags: list[str] = row.json(default_factory=list)
    launched_at: datetime | None = None
    own_ports: list[int] = row.json(default_factory=list)
    counted: bool = True
    firmware: Firmware = row.enum(Firmware, default=Firmware.BIOS)
    devices: Devices = row.enum(Devices, default=Devices.OWN)
    adopted: bool = False
    managed: bool = True
    in_place: bool = False
    """Whether its machine still is the one that was adopted, with disks where others put them."""
    origin: dict[str, Any] = row.json(default_factory=dict)
    """What an adopted machine was found to be: ``ref``, ``host``, ``name``, ``guest`` and ``nics``."""
    migration_id: int | None = Field(default=None, sa_type=row.Key)
    """The migration that is under way or not confirmed yet; no foreign key, since that one points here."""
    resize_id: int | None = Field(default=None, sa_type=row.Key)
    """The resize that is under way or not confirmed yet; no foreign key either."""

    snapshot_count: int = 0
    """How many snapshots of it (gateway/compute/server_snapshot.py) remember its devices and its size."""

    __table_args__ = (sa.Index("ix_server_tenant_uid", "tenant_id", "uid"),)


NOUN = register(Noun("server", Server, lambda subject: within(col(Server.tenant_id), subject)))

ORDERS: dict[str, Any] = {
    "NAME": col(Server.name),
    "STATUS": col(Server.status),
    "UPDATED_AT": col(Server.updated_at),
}


def allowed_actions(server: Server) -> list[Action]:
    """What may be asked of a server now, in a fixed order."""
    return [each for each in Action if each in ALLOWED[server.status] - _held_back(server)]


def _held_back(server: Server) -> frozenset[Action]:
    """What would change a server's devices or size while these are not (all) where they will stay, or remembered."""
    if server.in_place or server.migration_id is not None:
        return DEVICES | MOVES | MOMENTS
    if server.resize_id is not None:
        return MOVES | MOMENTS
    return DEVICES | MOVES if server.snapshot_count else frozenset()


# ------------------------------------------------------------------------------------------------ lists


class Filter(Command):
    """Which servers."""

    tenant_id: AnyId | None = Field(default=None, description="Of this tenant.")
    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    name_contains: str | None = Field(default=None, max_length=255, description="With this text in the name.")
    status: list[ServerStatus] | None = Field(default=None, description="In one of these states.")
    tag: str | None = Field(default=None, max_length=60, description="With this tag.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Server]:
    """The servers a subject may see."""
    from gateway.identity import tenant

    found = select(Server).where(NOUN.scope(subject))
    if wanted.tenant_id is not None:
        owner = select(tenant.Tenant.id).where(tenant.Tenant.uid == tenant.NOUN.uid(wanted.tenant_id, "tenantId"))
        found = found.where(col(Server.tenant_id).in_(owner))
    if wanted.name is not None:
        found = found.where(Server.name == wanted.name)
    if wanted.name_contains is not None:
        found = found.where(col(Server.name).icontains(wanted.name_contains, autoescape=True))
    if wanted.status is not None:
        found = found.where(col(Server.status).in_(wanted.status))
    if wanted.tag is not None:
        found = found.where(row.json_has(col(Server.tags), wanted.tag))
    return found


def addresses_of(session: Session, server_ids: Sequence[int]) -> dict[int, list[str]]:
    """The addresses of many servers, in the order of their ports."""
    bound = session.exec(
        select(Port.id, Port.server_id).where(col(Port.server_id).in_(server_ids)).order_by(col(Port.nic), col(Port.id))
    ).all()
    known = ports.addresses(session, [port_id for port_id, _ in bound])
    found: dict[int, list[str]] = {}
    for port_id, server_id in bound:
        found.setdefault(server_id or 0, []).extend(known.get(port_id, []))
    return found


# ------------------------------------------------------------------------------------------------ commands


class ServerUpdate(Versioned):
    """What to change of a server; what is absent stays."""

    id: AnyId = Field(description="The server.")
    name: Name | None = Field(default=None, description="Its new name.")
    description: Annotated[str, Field(max_length=1024)] | None = Field(default=None, description="What it is for.")
    tags: list[Tag] | None = Field(default=None, max_length=50, description="Its new tags, all of them.")
    metadata: list[KeyValue] | None = Field(default=None, max_length=128, description="Its new metadata, all of it.")

    _metadata = field_validator("metadata")(lambda value: (unique_keys(value or []), value)[1])


class ServerStart(Retryable):
    """The server to start."""

    id: AnyId = Field(description="The server.")


class ServerStop(Retryable):
    """The server to stop."""

    id: AnyId = Field(description="The server.")
    graceful_timeout_s: int = Field(
        default=60, ge=0, le=3600,
        description="Seconds the guest may take to shut down before it is powered off; 0 powers off at once.",
    )  # fmt: skip


class ServerReboot(Retryable):
    """The server to reboot."""

    id: AnyId = Field(description="The server.")
    hard: bool = Field(default=False, description="Reset the machine instead of asking the guest.")


class ServerDelete(Retryable):
    """The server to delete."""

    id: AnyId = Field(description="The server.")


def update(session: Session, subject: Subject, command: ServerUpdate) -> Server:
    """Change what people call a server."""
    server = reach(session, subject, command.id)
    expect(server, command.expected_version)
    given = command.model_fields_set
    if "name" in given and command.name is not None:
        server.name = command.name
    if "description" in given:
        server.description = command.description or ""
    if "tags" in given:
        server.tags = list(dict.fromkeys(command.tags or []))
    if "metadata" in given:
        server.properties = unique_keys(command.metadata or [])
    return server


def start(session: Session, subject: Subject, command: ServerStart) -> dict[str, Any]:
    """Power a server on; one that runs is left as it is."""
    server = ask(session, subject, command.id, Action.START, also=(ServerStatus.ACTIVE,))
    server.wanted = Wanted.ON
    return _ordered(session, subject, server, "server.start", {})


def stop(session: Session, subject: Subject, command: ServerStop) -> dict[str, Any]:
    """Shut a server down, by force after a while; one that is off is left as it is."""
    server = ask(session, subject, command.id, Action.STOP, also=(ServerStatus.STOPPED,))
    server.wanted = Wanted.OFF
    return _ordered(session, subject, server, "server.stop", {"graceful_timeout_s": command.graceful_timeout_s})


def reboot(session: Session, subject: Subject, command: ServerReboot) -> dict[str, Any]:
    """Reboot a running server."""
    server = ask(session, subject, command.id, Action.REBOOT)
    return _ordered(session, subject, server, "server.reboot", {"hard": command.hard})


def delete(session: Session, subject: Subject, command: ServerDelete) -> dict[str, Any]:
    """Delete a server, with its own disk, its own ports and the volumes that go with it. A job that makes or changes it
    is asked to stop first.
    """
    server = reach(session, subject, command.id)
    public = NOUN.public(server)
    if server.phase is Phase.DELETING:
        return {"server": server, "job": jobs.active(session, public)}
    at_work = jobs.active(session, public)
    if at_work is not None and at_work.kind in _MAKING and at_work.cancellable:
        at_work.cancel_requested = True
        session.flush()
        jobs.ring_after_commit(session, at_work.id)
    else:
        _phase(server, Phase.DELETING)
    return _ordered(session, subject, server, "server.delete", {})


_MAKING = frozenset({"server.create", "server.adopt", "server.migrate", "server.resize", "server.relocate"})
"""Jobs that are asked to stop before the server goes."""


def reach(session: Session, subject: Subject, public_id: str, *path: str) -> Server:
    """The server a member means to change. Raises NotFound or Forbidden."""
    server = NOUN.get(session, subject, public_id, *(path or ("id",)))
    require(subject, Role.MEMBER, server.tenant_id, what="changing a server")
    return server


def ask(
    session: Session, subject: Subject, public_id: str, action: Action, *, also: tuple[ServerStatus, ...] = ()
) -> Server:
    """The server, if the action may be asked for now. While a job is at work on it the answer is left to the queue: the
    job decides when its turn comes. Raises InvalidState.
    """
    server = reach(session, subject, public_id)
    queued = jobs.active(session, NOUN.public(server)) is not None and server.phase in (*STANDING, Phase.BUILDING)
    if action not in ALLOWED[server.status] and server.status not in also and not queued:
        raise wrong_state(server, action)
    if action in _held_back(server):
        server_snapshot.refuse(session, server, "id")
        current = "MIGRATING" if server.migration_id is not None else "ADOPTED"
        raise InvalidState(
            "Its devices stay as they are until it has been moved and that is confirmed.", path=("id",),
            current=current, allowed=[],
        )  # fmt: skip
    return server


def wrong_state(server: Server, action: Action) -> InvalidState:
    """The refusal of an action in this state."""
    return InvalidState(
        f"The server is {server.status.value}.",
        path=("id",),
        current=server.status.value,
        allowed=[each.value for each in states_allowing(action)],
    )


def _ordered(
    session: Session, subject: Subject, server: Server, kind: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    session.flush()
    order = Order(kind, server.tenant_id, NOUN.public(server), arguments={"server_id": server.id, **arguments})
    return {"server": server, "job": jobs.submit(session, subject, order)}


# ------------------------------------------------------------------------------------------------ facts


def observe(session: Session, server: Server, observed: Observed, reason: str | None = None) -> None:
    """Record what the hypervisor says, and count what runs."""
    if server.observed is observed and server.status is status(server.phase, observed):
        return
    server.observed = observed
    never = server.launched_at is None
    if observed is Observed.RUNNING and never:
        server.launched_at = clock.now(session)
    if server.phase is not Phase.FAILED:
        unasked = server.phase is Phase.READY and observed is Observed.OFF and server.wanted is Wanted.ON
        server.status_reason = _story(observed, reason, unasked=unasked)
    server.status = status(server.phase, observed)
    if observed is Observed.RUNNING:
        running = {Metered.VCPU: server.vcpus, Metered.RAM_MIB: server.ram_mib}
        (usage.made if never else usage.held)(session, server.tenant_id, server.uid, running)
    elif observed is not Observed.UNKNOWN:
        usage.closed(session, server.uid, Metered.VCPU, Metered.RAM_MIB)


def _story(observed: Observed, reason: str | None, *, unasked: bool) -> str | None:
    if observed is Observed.ABSENT:
        return "The machine is gone from its host."
    if observed is Observed.UNKNOWN:
        return "The host does not answer."
    if observed is Observed.CRASHED:
        return f"It crashed{f' ({reason})' if reason else ''}."
    if unasked:
        return f"It was stopped outside the cloud{f' ({reason})' if reason else ''}."
    return None


def ready(server: Server) -> None:
    """The server is made."""
    _phase(server, Phase.READY)


def verify_resize(server: Server) -> None:
    """The server has its new size, until that is confirmed or reverted."""
    _phase(server, Phase.VERIFY_RESIZE)


def fail(session: Session, server: Server, why: str) -> None:
    """The server could not be made: it shows why, and gives its quota back."""
    if server.phase is Phase.FAILED:
        return
    _phase(server, Phase.FAILED)
    server.status_reason = why[:500]
    server.host_id = None
    _uncount(session, server)


def begin_deletion(server: Server) -> None:
    """The server is on its way out, and nothing brings it back."""
    _phase(server, Phase.DELETING)


def forget(session: Session, server: Server) -> None:
    """The last trace goes."""
    _uncount(session, server)
    session.delete(server)


def _uncount(session: Session, server: Server) -> None:
    """Give the quota back, once."""
    if server.counted:
        quota.give(session, server.tenant_id, share(server))
    server.counted = False
    usage.closed(session, server.uid)


def share(server: Server) -> dict[Resource, int]:
    """What a server takes of its tenant's quota."""
    return {Resource.SERVERS: 1, Resource.VCPUS: server.vcpus, Resource.RAM_MIB: server.ram_mib}


def _phase(server: Server, phase: Phase) -> None:
    server.phase = phase
    server.status = status(phase, server.observed)


def active_job(session: Session, server: Server) -> Job | None:
    """The job at work on a server, if any."""
    return jobs.active(session, NOUN.public(server))
