"""Moving a server to another host, of another hypervisor too, by carrying its disks over.

A migration is a record of its own: what is carried, what will not be, the content's checksums before and after, and
which host still keeps the old machine. That machine stays, off, until its owner confirms the new one or has everything
put back. ``host_id`` is always the *other* host: the one that holds room for the server beside the server's own host.
What happens on the hosts is in workers/compute/migrate.py and what follows it.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import StringConstraints
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.compute import host as hosts
from gateway.compute import placing, server_group, server_snapshot
from gateway.compute import server as servers
from gateway.compute.carryover import Note, devices_after, notes
from gateway.compute.host import Amount, Host, Hypervisor
from gateway.compute.machine_model import CopyWhile, Devices, Firmware, GuestConversion, Verification
from gateway.compute.placement import Decision, Request
from gateway.compute.server import Server
from gateway.compute.server_state import Phase, ServerStatus
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel import clock, row
from gateway.kernel.access import Subject, within
from gateway.kernel.command import AnyId, Command, Name, Retryable
from gateway.kernel.errors import InUse, Invalid, InvalidState, Unsupported
from gateway.kernel.noun import BY_PREFIX, Noun, register
from gateway.kernel.row import Row
from gateway.network import network as networks
from gateway.network import port as ports
from gateway.volume.volume import Volume, VolumeStatus


class MigrationStatus(StrEnum):
    """Where a migration stands."""

    RUNNING = "RUNNING"
    """A job is moving the server."""
    UNCONFIRMED = "UNCONFIRMED"
    """It is on its new host; the old machine is kept, off, until serverMigrateConfirm or serverMigrateRevert."""
    CONFIRMING = "CONFIRMING"
    """The old machine is being taken away."""
    REVERTING = "REVERTING"
    """The server is going back to the old machine."""
    CONFIRMED = "CONFIRMED"
    """Done; nothing of the server is left on the old host."""
    REVERTED = "REVERTED"
    """The server is back on its old machine."""
    FAILED = "FAILED"
    """It did not come about, and everything is as it was; `statusReason` says why."""


VIRT_V2V = "VIRT_V2V"
"""Among a host's capabilities: the workers that look after it have virt-v2v."""
OPEN = (MigrationStatus.RUNNING, MigrationStatus.UNCONFIRMED, MigrationStatus.CONFIRMING, MigrationStatus.REVERTING)


class Migration(Row, table=True):
    """One move of a server. ``disks`` are ``{uid, root, device, size_bytes, copied_bytes, sha256_before,
    sha256_after}``, as far as they were carried over; the checksums are of what the guest sees. ``notes`` are ``{kind,
    message}``.
    """

    __tablename__ = "migration"

    tenant_id: int = row.ref("tenant.id")
    server_id: int = row.ref("server.id")
    status: MigrationStatus = row.enum(MigrationStatus, default=MigrationStatus.RUNNING)
    status_reason: str | None = Field(default=None, max_length=500)
    from_hypervisor: Hypervisor = row.enum(Hypervisor)
    to_hypervisor: Hypervisor = row.enum(Hypervisor)
    conversion: GuestConversion = row.enum(GuestConversion, default=GuestConversion.NONE)
    copy_while: CopyWhile = row.enum(CopyWhile, default=CopyWhile.STOPPED)
    verified: Verification = row.enum(Verification, default=Verification.NOT_VERIFIED)
    host_id: int | None = row.ref("host.id", null=True)
    vcpus: int
    ram_mib: int
    disk_gib: int
    was_running: bool = False
    old_devices: Devices = row.enum(Devices, default=Devices.OWN)
    disks: list[dict[str, Any]] = row.json(default_factory=list)
    notes: list[dict[str, str]] = row.json(default_factory=list)
    seen: str | None = Field(default=None, max_length=500)
    finished_at: datetime | None = None

    @property
    def claim(self) -> Amount:
        """What it holds of its host."""
        return Amount(self.vcpus, self.ram_mib, self.disk_gib)


NOUN = register(Noun("migration", Migration, lambda subject: within(col(Migration.tenant_id), subject)))

ORDERS: dict[str, Any] = {"STATUS": col(Migration.status), "UPDATED_AT": col(Migration.updated_at)}


class Filter(Command):
    """Which migrations."""

    status: list[MigrationStatus] | None = Field(default=None, description="In one of these states.")
    server_id: AnyId | None = Field(default=None, description="Of this server.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Migration]:
    """The migrations a subject may see."""
    found = select(Migration).where(NOUN.scope(subject))
    if wanted.status is not None:
        found = found.where(col(Migration.status).in_(wanted.status))
    if wanted.server_id is not None:
        moved = select(Server.id).where(Server.uid == servers.NOUN.uid(wanted.server_id, "filter", "serverId"))
        found = found.where(col(Migration.server_id).in_(moved))
    return found


# ------------------------------------------------------------------------------------------------ commands


class ServerMigrate(Retryable):
    """A server to move."""

    server_id: AnyId = Field(description="The server; running or stopped.")
    to_hypervisor: Hypervisor = Field(description="What it shall run on; it may be what it runs on now.")
    availability_zone: Name | None = Field(default=None, description="The zone of the new host; any by default.")
    conversion: GuestConversion = Field(
        default=GuestConversion.NONE, description="What is done to the guest on the way; nothing by default."
    )
    graceful_timeout_s: int = Field(
        default=60, ge=0, le=3600,
        description="Seconds the guest may take to shut down before it is powered off; 0 powers off at once.",
    )  # fmt: skip
    expect_on_console: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        default=None,
        description="A text that the guest writes on its serial port once it is up: without it the move is taken back.",
    )
    verify: Verification = Field(
        default=Verification.NOT_VERIFIED,
        description="What has to be heard of the guest on its new host: without it the move is taken back. By default "
        "nothing has to be, and what is heard within half a minute is told.",
    )
    expect_timeout_s: int = Field(
        default=300, ge=1, le=3600, description="Seconds to wait for that text, or for what `verify` asks."
    )
    copy_while: CopyWhile = Field(
        default=CopyWhile.STOPPED, description="Whether the server is off while all of its disks are copied."
    )


class ServerMigrateConfirm(Retryable):
    """The server whose move is to stay."""

    server_id: AnyId = Field(description="The server.")


class ServerMigrateRevert(Retryable):
    """The server that is to go back."""

    server_id: AnyId = Field(description="The server. What it wrote on its disks since the move is lost.")


_MOVABLE = (ServerStatus.ACTIVE, ServerStatus.STOPPED)


def migrate(session: Session, subject: Subject, command: ServerMigrate) -> dict[str, Any]:
    """Order the move. Raises NotFound, Forbidden, InvalidState, InUse, Unsupported."""
    server, migration = _begin(session, subject, command)
    arguments = {
        "server_id": server.id,
        "migration_id": migration.id,
        "availability_zone": command.availability_zone,
        "graceful_timeout_s": command.graceful_timeout_s,
        "expect": command.expect_on_console,
        "expect_timeout_s": command.expect_timeout_s,
        "verify": command.verify.value,
    }
    return _ordered(session, subject, migration, "server.migrate", arguments)


def confirm(session: Session, subject: Subject, command: ServerMigrateConfirm) -> dict[str, Any]:
    """Order the end of the old machine. Raises NotFound, Forbidden, InvalidState."""
    migration = _unconfirmed(session, subject, command.server_id, MigrationStatus.CONFIRMING)
    return _ordered(session, subject, migration, "migration.confirm", {"migration_id": migration.id})


def revert(session: Session, subject: Subject, command: ServerMigrateRevert) -> dict[str, Any]:
    """Order the way back. Raises NotFound, Forbidden, InvalidState."""
    migration = _unconfirmed(session, subject, command.server_id, MigrationStatus.REVERTING)
    return _ordered(session, subject, migration, "migration.revert", {"migration_id": migration.id})


def _begin(session: Session, subject: Subject, command: ServerMigrate) -> tuple[Server, Migration]:
    server = servers.reach(session, subject, command.server_id, "serverId")
    if server.phase is not Phase.READY or server.status not in _MOVABLE or server.host_id is None:
        current, allowed = server.status.value, [each.value for each in _MOVABLE]
        raise InvalidState(f"The server is {current}.", path=("serverId",), current=current, allowed=allowed)
    if server.migration_id is not None:
        there = session.get_one(Migration, server.migration_id)
        message = "The server's last move is not confirmed yet."
        raise InUse(message, path=("serverId",), blockers=[NOUN.public(there)])
    if server.resize_id is not None:
        resizes = BY_PREFIX["resize"]
        blocker = resizes.public(session.get_one(resizes.table, server.resize_id))
        raise InUse("The server is being resized.", path=("serverId",), blockers=[blocker])
    server_snapshot.refuse(session, server, "serverId")
    source = session.get_one(Host, server.host_id)
    if "DISK_TRANSPORT" not in source.capabilities:
        raise Unsupported(
            "The server's host cannot hand disks out.", path=("serverId",), capability="DISK_TRANSPORT",
            hypervisor=source.hypervisor.value,
        )  # fmt: skip
    _require_skills(session, command, source)
    held = _hold_volumes(session, server)
    migration = Migration(
        tenant_id=server.tenant_id,
        server_id=server.id,
        from_hypervisor=source.hypervisor,
        to_hypervisor=command.to_hypervisor,
        conversion=command.conversion,
        copy_while=command.copy_while,
        vcpus=server.vcpus,
        ram_mib=server.ram_mib,
        disk_gib=server.disk_gib + sum(each.size_gib for each in held),
        old_devices=server.devices,
    )
    migration.notes = [note.told() for note in notes(session, server, migration)]
    session.add(migration)
    session.flush()
    server.migration_id = migration.id
    return server, migration


def _require_skills(session: Session, command: ServerMigrate, source: Host) -> None:
    """Refuse what cannot be done before anything is ordered. Raises Invalid, Unsupported."""
    if command.copy_while is CopyWhile.RUNNING:
        if command.conversion is GuestConversion.VIRT_V2V:
            raise Invalid("virt-v2v converts disks once, while they stand still.", path=("copyWhile",))
        if "VOLUME_SNAPSHOT" not in source.capabilities:
            raise Unsupported(
                "The server's host makes no snapshots to copy from.", path=("copyWhile",),
                capability="VOLUME_SNAPSHOT", hypervisor=source.hypervisor.value,
            )  # fmt: skip
    if command.conversion is GuestConversion.VIRT_V2V:
        able = select(Host.id).where(row.json_has(col(Host.capabilities), VIRT_V2V)).limit(1)
        if session.exec(able).first() is None:
            raise Unsupported(
                "No worker has virt-v2v: install it there, or move the server without a conversion.",
                path=("conversion",), capability=VIRT_V2V, hypervisor=None,
            )  # fmt: skip


def _hold_volumes(session: Session, server: Server) -> list[Volume]:
    held = list(session.exec(select(Volume).where(Volume.server_id == server.id)).all())
    allowed = (VolumeStatus.IN_USE, *((VolumeStatus.HELD,) if server.in_place else ()))
    for volume in held:
        if volume.status not in allowed:
            raise InvalidState(
                f"A volume of the server is {volume.status.value}.", path=("serverId",), current=volume.status.value,
                allowed=[each.value for each in allowed],
            )  # fmt: skip
        volume.status = VolumeStatus.HELD
    return held


def _unconfirmed(session: Session, subject: Subject, public_id: str, to: MigrationStatus) -> Migration:
    server = servers.reach(session, subject, public_id, "serverId")
    found = session.get(Migration, server.migration_id) if server.migration_id is not None else None
    if found is None or found.status is not MigrationStatus.UNCONFIRMED or server.phase is not Phase.READY:
        current = "none" if found is None else found.status.value
        raise InvalidState(
            "The server has no move that waits to be confirmed.", path=("serverId",), current=current,
            allowed=[MigrationStatus.UNCONFIRMED.value],
        )  # fmt: skip
    found.status = to
    return found


def _ordered(
    session: Session, subject: Subject, migration: Migration, kind: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    session.flush()
    server = session.get_one(Server, migration.server_id)
    public = servers.NOUN.public(server)
    order = Order(kind, migration.tenant_id, public, arguments={"server_id": server.id, **arguments})
    return {"migration": migration, "server": server, "job": jobs.submit(session, subject, order)}


# ------------------------------------------------------------------------------------------------ placement


def request(
    session: Session, server: Server, migration: Migration, zone: str | None, avoid: frozenset[int] = frozenset()
) -> Request:
    """What the new host has to offer."""
    connected = ports.of_server(session, server.id)
    network_ids = [port.network_id for port in connected]
    needs = {"MACHINES", "VOLUMES", "DISK_TRANSPORT"} | ({"NETWORKS"} if connected else set())
    if any(port.port_security for port in connected):
        needs.add("SECURITY_GROUPS")
    if server.firmware is Firmware.UEFI:
        needs.add("UEFI")
    if devices_after(server, migration) is Devices.VMWARE:
        needs.add("VMWARE_DEVICES")
    return Request(
        vcpus=migration.vcpus,
        ram_mib=migration.ram_mib,
        disk_gib=migration.disk_gib,
        hypervisor=migration.to_hypervisor.value,
        availability_zone=zone,
        needs=frozenset(needs),
        colliding=networks.colliding_hosts(session, network_ids) if network_ids else frozenset(),
        avoid=avoid,
        left=server.host_id,
        together=server_group.together(session, server),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What serverMigrate would do."""

    decision: Decision
    notes: tuple[Note, ...]
    disk_gib: int


def plan(session: Session, subject: Subject, command: ServerMigrate) -> Plan:
    """Begin, look at what came of it, and leave it to the caller to roll back."""
    server, migration = _begin(session, subject, command)
    wanted = request(session, server, migration, command.availability_zone)
    decision = placing.explain(session, wanted)
    return Plan(decision, tuple(notes(session, server, migration)), migration.disk_gib)


# ------------------------------------------------------------------------------------------------ facts


def disk_uids(session: Session, server: Server) -> list[tuple[UUID, str]]:
    """The server's disks and their device names, the one that boots first."""
    held = session.exec(select(Volume).where(Volume.server_id == server.id).order_by(col(Volume.device))).all()
    found = [(volume.uid, volume.device or "") for volume in held]
    return [(server.root_uid, "vda"), *found] if server.root_uid is not None else found


def carried(session: Session, migration_id: int, disk: dict[str, Any]) -> None:
    """Record a disk that is on the new host, once."""
    migration = session.get_one(Migration, migration_id)
    root = session.get_one(Server, migration.server_id).root_uid
    others = [each for each in migration.disks if each["uid"] != disk["uid"]]
    migration.disks = [*others, {**disk, "root": disk["uid"] == str(root)}]


def moved(session: Session, server: Server, migration: Migration, host: Host) -> None:
    """The server is on its new host; what its old host holds is the migration's to keep."""
    migration.host_id, server.host_id = server.host_id, host.id
    server.hypervisor = host.hypervisor
    server.devices = devices_after(server, migration)
    migration.status = MigrationStatus.UNCONFIRMED
    _locate(session, server, host.id, VolumeStatus.HELD)


def moved_back(session: Session, server: Server, migration: Migration) -> None:
    """The server is on its old host again, and holds nothing of the other."""
    if migration.host_id is None or server.host_id is None:
        raise AssertionError("an unconfirmed move has two hosts")
    old = session.get_one(Host, migration.host_id)
    migration.host_id, server.host_id = server.host_id, old.id
    server.hypervisor = old.hypervisor
    server.devices = migration.old_devices
    _locate(session, server, old.id, VolumeStatus.HELD)
    end(session, server, migration, MigrationStatus.REVERTED)


def end(
    session: Session, server: Server, migration: Migration, status: MigrationStatus, why: str | None = None
) -> None:
    """The move is over: the other host's room is given back, and the server is like any other."""
    if migration.host_id is not None:
        hosts.release(session, migration.host_id, migration.claim)
    migration.host_id = None
    migration.status = status
    migration.status_reason = why[:500] if why is not None else None
    migration.finished_at = clock.now(session)
    server.migration_id = None
    if status is MigrationStatus.CONFIRMED:
        server.in_place = False
    _locate(session, server, server.host_id, VolumeStatus.HELD if server.in_place else VolumeStatus.IN_USE)


def _locate(session: Session, server: Server, host_id: int | None, status: VolumeStatus) -> None:
    for volume in session.exec(select(Volume).where(Volume.server_id == server.id)).all():
        volume.host_id = host_id
        volume.status = status


def kept_ports(session: Session, host_id: int) -> list[ports.Port]:
    """The ports that a host still has for old machines of servers that were moved away, or are being moved."""
    away = select(Migration.server_id).where(col(Migration.status).in_(OPEN), Migration.host_id == host_id)
    leaving = (
        select(Server.id)
        .join(Migration, col(Migration.id) == col(Server.migration_id))
        .where(Server.host_id == host_id, Migration.status == MigrationStatus.RUNNING)
    )
    kept = select(ports.Port).where(col(ports.Port.server_id).in_(away) | col(ports.Port.server_id).in_(leaving))
    return list(session.exec(kept))


def kept_machines(session: Session, host_id: int) -> set[UUID]:
    """The ids of servers of which a host has a machine without being their host."""
    away = select(Migration.server_id).where(col(Migration.status).in_(OPEN), Migration.host_id == host_id)
    return set(session.exec(select(Server.uid).where(col(Server.id).in_(away))))


def of_server(session: Session, server_id: int) -> list[Migration]:
    """All migrations of a server."""
    return list(session.exec(select(Migration).where(Migration.server_id == server_id)))


def forget(session: Session, server_id: int) -> None:
    """Drop the records of a server that goes, and give back what they hold."""
    for each in of_server(session, server_id):
        if each.host_id is not None:
            hosts.release(session, each.host_id, each.claim)
        session.delete(each)
    session.flush()
