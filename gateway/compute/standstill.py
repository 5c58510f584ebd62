"""Servers that stand still and go on: suspended (memory on disk, nothing of the host's in use) or paused (memory kept).

What a host's driver cannot do is refused before anything is ordered. A suspended server counts as little as one that
is off: its vCPUs and memory are not metered; its quota and its room on the host stay promised, so that it can always go
on.
"""

from typing import Any

from pydantic import Field
from sqlmodel import Session

from gateway.compute import server as servers
from gateway.compute.host import Host
from gateway.compute.server import Server
from gateway.compute.server_state import Action, ServerStatus, Wanted
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Retryable
from gateway.kernel.errors import Unsupported


class ServerSuspend(Retryable):
    """The server to suspend."""

    id: AnyId = Field(description="The server; it has to run.")


class ServerResume(Retryable):
    """The server to let go on."""

    id: AnyId = Field(description="The server; it has to be suspended.")


class ServerPause(Retryable):
    """The server to pause."""

    id: AnyId = Field(description="The server; it has to run.")


class ServerUnpause(Retryable):
    """The server to let go on."""

    id: AnyId = Field(description="The server; it has to be paused.")


def suspend(session: Session, subject: Subject, command: ServerSuspend) -> dict[str, Any]:
    """Save a server's memory on disk and give its host's back; one that is suspended is left as it is."""
    server = servers.ask(session, subject, command.id, Action.SUSPEND, also=(ServerStatus.SUSPENDED,))
    check_host(session, server, "SUSPEND", "id")
    return _order(session, subject, server, "server.halt", ServerStatus.SUSPENDED)


def resume(session: Session, subject: Subject, command: ServerResume) -> dict[str, Any]:
    """Let a suspended server go on where it was; one that runs is left as it is."""
    server = servers.ask(session, subject, command.id, Action.RESUME, also=(ServerStatus.ACTIVE,))
    return _order(session, subject, server, "server.resume", ServerStatus.SUSPENDED)


def pause(session: Session, subject: Subject, command: ServerPause) -> dict[str, Any]:
    """Let a server's processors stand still; one that is paused is left as it is."""
    server = servers.ask(session, subject, command.id, Action.PAUSE, also=(ServerStatus.PAUSED,))
    check_host(session, server, "PAUSE", "id")
    return _order(session, subject, server, "server.halt", ServerStatus.PAUSED)


def unpause(session: Session, subject: Subject, command: ServerUnpause) -> dict[str, Any]:
    """Let a paused server's processors go on; one that runs is left as it is."""
    server = servers.ask(session, subject, command.id, Action.UNPAUSE, also=(ServerStatus.ACTIVE,))
    return _order(session, subject, server, "server.resume", ServerStatus.PAUSED)


def check_host(session: Session, server: Server, capability: str, *path: str) -> None:
    """Raise Unsupported when the server's host is known to lack it."""
    host = session.get(Host, server.host_id) if server.host_id is not None else None
    if host is not None and capability not in host.capabilities:
        raise Unsupported(
            f"Its hypervisor, {host.hypervisor.value}, cannot do this ({capability}).",
            path=path,
            capability=capability,
            hypervisor=host.hypervisor.value,
        )


def _order(session: Session, subject: Subject, server: Server, kind: str, state: ServerStatus) -> dict[str, Any]:
    server.wanted = Wanted.ON
    session.flush()
    arguments = {"server_id": server.id, "state": state.value}
    order = Order(kind, server.tenant_id, servers.NOUN.public(server), arguments=arguments)
    return {"server": server, "job": jobs.submit(session, subject, order)}
