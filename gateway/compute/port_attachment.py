"""Attaching ports to servers, running or not. The port is promised to the server in the mutation's transaction, a new
one is made there; the job plugs it in, and takes the promise back when that cannot be done.

A port that was made here goes when its server goes, like those made with the server. Nothing here tells the guest how
to use its new interface: what DHCP does not tell, its owner does.
"""

from typing import Any, Self

from pydantic import Field, model_validator
from sqlmodel import Session

from gateway.compute import server as servers
from gateway.compute.host import Host
from gateway.compute.server import Server
from gateway.compute.server_state import Action
from gateway.compute.standstill import check_host
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Retryable
from gateway.kernel.errors import Conflict, InUse, InvalidState, NotFound
from gateway.network import network as networks
from gateway.network import port as ports
from gateway.network.port import Port, PortStatus
from gateway.network.subnet import AddressText

MOST_PORTS = 8
"""As many as a server may be made with."""


class PortAttach(Retryable):
    """A port to give to a server: an existing one, or a new one on a network."""

    server_id: AnyId = Field(description="The server.")
    port_id: AnyId | None = Field(default=None, description="An existing port of the same tenant, which no server has.")
    network_id: AnyId | None = Field(default=None, description="The network to make a port on instead.")
    fixed_ip: AddressText | None = Field(
        default=None, description="The address the new port shall have; any free one by default."
    )
    security_group_ids: list[AnyId] | None = Field(
        default=None, max_length=10,
        description="Security groups of the new port; the tenant's default one when absent.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.network_id is None) == (self.port_id is None):
            raise ValueError("give networkId or portId, one of them")
        if self.port_id is not None and (self.fixed_ip or self.security_group_ids):
            raise ValueError("an existing port has its address and security groups already")
        return self


class PortDetach(Retryable):
    """A port to take from its server."""

    port_id: AnyId = Field(description="The port.")
    delete: bool = Field(default=False, description="Whether the port itself goes, too, with its addresses.")
    even_if_last: bool = Field(default=False, description="Take it also when the server then is on no network.")


def attach(session: Session, subject: Subject, command: PortAttach) -> dict[str, Any]:
    """Promise the port, made here unless there is one, and order the job. Raises NotFound, Forbidden, InvalidState,
    InUse, Unsupported, Conflict, Invalid, QuotaExceeded, NoAddressLeft.
    """
    server = _ask(session, subject, command.server_id, Action.ATTACH_PORT, "serverId")
    check_host(session, server, "PORT_HOT_ATTACH", "serverId")
    if len(ports.of_server(session, server.id)) >= MOST_PORTS:
        raise Conflict("The server has as many ports as it can have.", path=("serverId",))
    if command.port_id is not None:
        port = ports.reach(session, subject, command.port_id)
        if port.server_id == server.id:
            current = port.status.value
            raise InvalidState("The server has it.", path=("portId",), current=current, allowed=["AVAILABLE"])
    else:
        wanted = ports.Wanted(
            network_id=command.network_id or "",
            fixed_ip=command.fixed_ip,
            security_group_ids=command.security_group_ids,
        )
        port = ports.open(session, subject, server.tenant_id, wanted)
        server.own_ports = [*server.own_ports, port.id]
    ports.bind(session, port, server.id)
    port.status = PortStatus.ATTACHING
    _check_place(session, server, port, "portId" if command.port_id is not None else "networkId")
    session.flush()
    order = _order("port.attach", port, server, fresh=command.port_id is None)
    return {"port": port, "server": server, "job": jobs.submit(session, subject, order)}


def detach(session: Session, subject: Subject, command: PortDetach) -> dict[str, Any]:
    """Order the job that unplugs a port. Raises NotFound, Forbidden, InvalidState, InUse, Unsupported, Conflict."""
    port = ports.reach(session, subject, command.port_id)
    if port.status is not PortStatus.IN_USE or port.server_id is None:
        current = port.status.value
        raise InvalidState(f"The port is {current}.", path=("portId",), current=current, allowed=["IN_USE"])
    public = servers.NOUN.public(session.get_one(Server, port.server_id))
    server = _ask(session, subject, public, Action.DETACH_PORT, "portId")
    check_host(session, server, "PORT_HOT_ATTACH", "portId")
    staying = [each for each in ports.of_server(session, server.id) if each.status is not PortStatus.DETACHING]
    if len(staying) == 1 and not command.even_if_last:
        message = "It is the server's last port: without it the server is on no network."
        raise Conflict(message, path=("evenIfLast",))
    port.status = PortStatus.DETACHING
    session.flush()
    order = _order("port.detach", port, server, delete=command.delete)
    return {"port": port, "server": server, "job": jobs.submit(session, subject, order)}


def attached(port: Port) -> None:
    """The promise is kept."""
    port.status = PortStatus.IN_USE


def freed(session: Session, port: Port, server: Server | None, *, close: bool) -> None:
    """The port is plugged in nowhere any more, or the promise is withdrawn; it goes as well if that is to be. It must
    be on no host.
    """
    ports.unbind(session, port)
    if server is not None and port.id in server.own_ports:
        server.own_ports = [each for each in server.own_ports if each != port.id]
    if close:
        ports.close(session, port)


def _ask(session: Session, subject: Subject, public_id: str, action: Action, path: str) -> Server:
    try:
        return servers.ask(session, subject, public_id, action)
    except (InUse, InvalidState, NotFound) as refusal:
        refusal.path = (path,)
        raise


def _check_place(session: Session, server: Server, port: Port, path: str) -> None:
    """Raise Unsupported or Conflict when the server's host cannot have this port."""
    host = session.get(Host, server.host_id) if server.host_id is not None else None
    if host is None:
        return  # it is still being placed: the job finds out
    check_host(session, server, "NETWORKS", path)
    if port.port_security:
        check_host(session, server, "SECURITY_GROUPS", path)
    overlapping = "OVERLAPPING_SUBNETS" in host.capabilities
    if not overlapping and host.id in networks.colliding_hosts(session, [port.network_id]):
        raise Conflict("The server's host carries another network with an overlapping range.", path=(path,))


def _order(kind: str, port: Port, server: Server, **more: Any) -> Order:
    arguments = {"port_id": port.id, "server_id": server.id, **more}
    public = ports.NOUN.public(port)
    return Order(kind, port.tenant_id, public, resource=servers.NOUN.public(server), arguments=arguments)
