"""Moving a server to another host of its pool, as it runs or as it is, with disks that both hosts reach.

A pool is what hosts have in common that hand machines to each other (on vCenter: those with the option ``shared``).
What lies on hosts that share nothing is carried over by gateway.compute.migration instead. Nothing is kept on the old
host, so there is nothing to confirm: the way back is another relocation. While the job is under way it holds, beside
what the rows claim, the room on the host where the server is not: the new one before the move, the old one after it.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from sqlmodel import Session, col, select

from gateway.compute import host as hosts
from gateway.compute import placing, server_group, server_snapshot
from gateway.compute import server as servers
from gateway.compute.host import Amount, Host
from gateway.compute.placement import Decision, Request
from gateway.compute.server import Server
from gateway.compute.server_state import ALLOWED, MOVES, Action, Phase, ServerStatus
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel.access import Role, Subject, require
from gateway.kernel.command import AnyId, Retryable
from gateway.kernel.errors import InUse, InvalidState, Unsupported
from gateway.kernel.noun import BY_PREFIX
from gateway.network import network as networks
from gateway.network import port as ports
from gateway.network.port import Port
from gateway.volume.volume import Volume, VolumeStatus

CAPABILITY = "RELOCATE"


class ServerRelocate(Retryable):
    """A server to move within its pool."""

    server_id: AnyId = Field(description="The server; running or stopped.")
    host_id: AnyId | None = Field(
        default=None, description="The host it shall go to, for operators; the best that fits by default."
    )
    live: bool = Field(
        default=True,
        description="Move a running server as it runs. False: it is shut down, moved, and started on the new host.",
    )
    graceful_timeout_s: int = Field(
        default=60, ge=0, le=3600,
        description="Seconds its guest may take to shut down before it is powered off, when it is not moved live; "
        "0 powers off at once.",
    )  # fmt: skip


def relocate(session: Session, subject: Subject, command: ServerRelocate) -> dict[str, Any]:
    """Order the move. Raises NotFound, Forbidden, InvalidState, InUse, Unsupported."""
    server, target = _checked(session, subject, command)
    arguments = {
        "server_id": server.id,
        "target_id": target,
        "live": command.live,
        "graceful_timeout_s": command.graceful_timeout_s,
    }
    order = Order("server.relocate", server.tenant_id, servers.NOUN.public(server), arguments=arguments)
    return {"server": server, "job": jobs.submit(session, subject, order)}


def _checked(session: Session, subject: Subject, command: ServerRelocate) -> tuple[Server, int | None]:
    server = standing(session, subject, command.server_id, Action.RELOCATE)
    require(subject, Role.MANAGER, server.tenant_id, what="moving a server to another host")
    source = session.get_one(Host, server.host_id)
    if source.pool is None or CAPABILITY not in source.capabilities:
        way = " serverMigrate carries its disks to another host." if "DISK_TRANSPORT" in source.capabilities else ""
        raise Unsupported(
            f"Its host, {source.hypervisor.value}, hands no machines to others ({CAPABILITY}).{way}",
            path=("serverId",), capability=CAPABILITY, hypervisor=source.hypervisor.value,
        )  # fmt: skip
    if command.host_id is None:
        return server, None
    return server, hosts.NOUN.get(session, subject, command.host_id, "hostId").id


def standing(session: Session, subject: Subject, public_id: str, action: Action) -> Server:
    """A server that is to get another size or place, and on which nothing of the kind is under way. Raises NotFound,
    Forbidden, InvalidState, InUse; all at ``serverId``.
    """
    server = servers.reach(session, subject, public_id, "serverId")
    if server.phase is not Phase.READY or action not in ALLOWED[server.status] or server.host_id is None:
        refusal = servers.wrong_state(server, action)
        refusal.path = ("serverId",)
        raise refusal
    for noun, key, what in (("migration", server.migration_id, "move"), ("resize", server.resize_id, "resize")):
        if key is not None:
            blocker = BY_PREFIX[noun].public(session.get_one(BY_PREFIX[noun].table, key))
            raise InUse(f"The server's last {what} is not confirmed yet.", path=("serverId",), blockers=[blocker])
    if action in MOVES:
        server_snapshot.refuse(session, server, "serverId")
    if server.in_place:
        raise InvalidState(
            "The server is where and as it was found until it has been moved.", path=("serverId",), current="ADOPTED",
            allowed=[],
        )  # fmt: skip
    return server


# ------------------------------------------------------------------------------------------------ placement


def pool_of(session: Session, host_id: int) -> frozenset[int]:
    """The hosts (by key) that could take machines over from this one as they are, without itself."""
    host = session.get_one(Host, host_id)
    if host.pool is None or CAPABILITY not in host.capabilities:
        return frozenset()
    found = select(Host.id).where(Host.pool == host.pool, Host.hypervisor == host.hypervisor, Host.id != host.id)
    return frozenset(session.exec(found))


def carried(session: Session, server: Server) -> list[Volume]:
    """The volumes that are in the machine, and go where it goes."""
    statement = select(Volume).where(Volume.server_id == server.id, Volume.status != VolumeStatus.ATTACHING)
    return list(session.exec(statement.order_by(col(Volume.id))))


def amount_of(session: Session, server: Server) -> Amount:
    """What a server takes of its host, with the volumes in it."""
    disk_gib = server.disk_gib + sum(each.size_gib for each in carried(session, server))
    return Amount(server.vcpus, server.ram_mib, disk_gib)


def request(
    session: Session, server: Server, amount: Amount, avoid: frozenset[int] = frozenset(), target: int | None = None
) -> Request:
    """What another host of the pool has to offer; only this one, when it is named."""
    if server.host_id is None:
        raise AssertionError("a server that stands has a host")
    connected = ports.of_server(session, server.id)
    network_ids = [port.network_id for port in connected]
    needs = {"MACHINES", "VOLUMES", CAPABILITY} | ({"NETWORKS"} if connected else set())
    if any(port.port_security for port in connected):
        needs.add("SECURITY_GROUPS")
    within = pool_of(session, server.host_id)
    return Request(
        vcpus=amount.vcpus,
        ram_mib=amount.ram_mib,
        disk_gib=amount.disk_gib,
        hypervisor=server.hypervisor.value if server.hypervisor is not None else None,
        availability_zone=server.availability_zone,
        needs=frozenset(needs),
        only=within if target is None else within & {target},
        colliding=networks.colliding_hosts(session, network_ids) if network_ids else frozenset(),
        avoid=avoid,
        left=server.host_id,
        together=server_group.together(session, server),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What serverRelocate would do. ``interrupts``: the guest would be shut down and started again."""

    decision: Decision
    interrupts: bool


def plan(session: Session, subject: Subject, command: ServerRelocate) -> Plan:
    """Check, and look where it would go; nothing is changed."""
    server, target = _checked(session, subject, command)
    wanted = request(session, server, amount_of(session, server), target=target)
    running = server.status is ServerStatus.ACTIVE
    return Plan(placing.explain(session, wanted), running and not command.live)


# ------------------------------------------------------------------------------------------------ facts


def moved(session: Session, server: Server, host_id: int) -> None:
    """The machine is on that host, with the volumes in it."""
    for volume in carried(session, server):
        volume.host_id = host_id
    server.host_id = host_id
    server.hypervisor = session.get_one(Host, host_id).hypervisor


def kept_ports(session: Session, host_id: int) -> list[Port]:
    """The ports that a host still has for its machines though they are recorded on another already, to which these
    machines are on their way.
    """
    leaving = select(Port).join(Server, col(Server.id) == col(Port.server_id))
    return list(session.exec(leaving.where(Server.host_id == host_id, Port.host_id != host_id)))


__all__ = [
    "Plan",
    "ServerRelocate",
    "amount_of",
    "carried",
    "kept_ports",
    "moved",
    "plan",
    "pool_of",
    "relocate",
    "request",
    "standing",
]
