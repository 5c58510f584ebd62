"""Ports: a machine's place on a network, with its MAC, its addresses and its security groups.

A port belongs to the tenant that made it, also on a network shared by others, and is bound to at most one server. Its
MAC is made from its own id, its addresses are taken and metered in the unit of work that makes it. ``host_id`` says
where it is, or is about to be, realised: recorded before a host is asked. Servers open, bind and close ports through
the functions here (gateway/compute); what a host is told is in workers/network/port.py.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address, ip_network
from typing import Annotated, Any
from uuid import UUID

import sqlalchemy as sa
from pydantic import AfterValidator, StringConstraints
from sqlmodel import Field, Session, col, func, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import ownership, quota, tenant
from gateway.identity.quota import Resource
from gateway.kernel import ids, row
from gateway.kernel import noun as nouns
from gateway.kernel.access import Role, Subject, require, within
from gateway.kernel.command import AnyId, Command, Retryable, Text, Versioned
from gateway.kernel.errors import Conflict, Forbidden, InUse, Invalid, NoAddressLeft, Refusal
from gateway.kernel.noun import Noun, register
from gateway.kernel.prepared import Prepared, Rows, get
from gateway.kernel.row import Row, expect
from gateway.metering import usage
from gateway.metering.usage import Metered
from gateway.network import address as held
from gateway.network import membership
from gateway.network import network as networks
from gateway.network import security_group as groups
from gateway.network import subnet as subnets
from gateway.network.address import PortAddress
from gateway.network.network import Network, key_of
from gateway.network.security_group import PortSecurityGroup, SecurityGroup
from gateway.network.subnet import AddressText, Subnet

MOST_ADDRESSES = 8


class PortStatus(StrEnum):
    """Where a port stands."""

    AVAILABLE = "AVAILABLE"
    """No server has it."""
    ATTACHING = "ATTACHING"
    """Promised to a server that it is being plugged into."""
    IN_USE = "IN_USE"
    """A server has it."""
    DETACHING = "DETACHING"
    """Being unplugged."""


class Port(Row, table=True):
    """A port. ``nic`` orders the ports of a server; ``stale``: its host may hold older rules than recorded."""

    __tablename__ = "port"

    tenant_id: int = row.ref("tenant.id")
    network_id: int = row.ref("network.id")
    name: str = Field(default="", max_length=255)
    mac: str = Field(max_length=17, unique=True)
    port_security: bool = True
    status: PortStatus = row.enum(PortStatus, default=PortStatus.AVAILABLE)
    server_id: int | None = row.ref("server.id", null=True)
    nic: int = 0
    host_id: int | None = row.ref("host.id", null=True)
    stale: bool = False

    __table_args__ = (sa.Index("ix_port_tenant_uid", "tenant_id", "uid"),)


NOUN = register(Noun("port", Port, lambda subject: within(col(Port.tenant_id), subject)))

ORDERS: dict[str, Any] = {"NAME": col(Port.name), "MAC_ADDRESS": col(Port.mac), "UPDATED_AT": col(Port.updated_at)}


def _mac(text: str) -> str:
    low = text.lower().replace("-", ":")
    octets = low.split(":")
    if len(octets) != 6 or any(len(each) != 2 or set(each) - set("0123456789abcdef") for each in octets):  # noqa: PLR2004 - a MAC's shape
        raise ValueError("this is no MAC address such as 02:00:00:00:00:01")
    if int(octets[0], 16) & 1 or octets[0] == "fe" or set(octets) == {"00"}:
        raise ValueError("a machine's MAC address is for one machine, and its first octet is not fe")
    return low


MacText = Annotated[str, StringConstraints(max_length=17), AfterValidator(_mac)]


class PortCreate(Retryable):
    """A new port."""

    network_id: AnyId = Field(description="The network.")
    tenant_id: AnyId | None = Field(default=None, description="Whose it is; your only tenant by default.")
    name: Text = Field(default="", max_length=255, description="Its name.")
    mac_address: MacText | None = Field(default=None, description="Its MAC address; one of its own by default.")
    fixed_ips: list[AddressText] | None = Field(
        default=None, max_length=MOST_ADDRESSES,
        description="Its addresses; by default the lowest free one of each family that the network has.",
    )  # fmt: skip
    security_group_ids: list[AnyId] | None = Field(
        default=None, max_length=10, description="Its security groups; the tenant's default one when absent."
    )
    port_security: bool = Field(
        default=True, description="Whether rules are enforced and false addresses dropped; only managers may say no."
    )


class PortDelete(Versioned):
    """The port to delete."""

    id: AnyId = Field(description="The port.")


class Filter(Command):
    """Which ports."""

    tenant_id: AnyId | None = Field(default=None, description="Of this tenant.")
    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    network_id: AnyId | None = Field(default=None, description="On this network.")
    server_id: AnyId | None = Field(default=None, description="Of this server.")
    security_group_id: AnyId | None = Field(default=None, description="In this security group.")
    ip_address: AddressText | None = Field(default=None, description="With this address.")
    mac_address: MacText | None = Field(default=None, description="With this MAC address.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Port]:
    """The ports a subject may see. Raises NotFound for an id of another noun."""
    found = select(Port).where(NOUN.scope(subject))
    for column, text, noun in (
        ("tenant_id", wanted.tenant_id, tenant.NOUN),
        ("network_id", wanted.network_id, networks.NOUN),
        ("server_id", wanted.server_id, nouns.BY_PREFIX.get("server")),
    ):
        if text is not None and noun is not None:
            key = key_of(noun, text, "filter", ids_name(column))
            found = found.where(getattr(Port, column) == key)
    if wanted.name is not None:
        found = found.where(Port.name == wanted.name)
    if wanted.mac_address is not None:
        found = found.where(Port.mac == wanted.mac_address)
    if wanted.ip_address is not None:
        having = sa.select(col(PortAddress.port_id)).where(col(PortAddress.address) == wanted.ip_address)
        found = found.where(col(Port.id).in_(having))
    if wanted.security_group_id is not None:
        group = key_of(groups.NOUN, wanted.security_group_id, "filter", "securityGroupId")
        members = sa.select(col(PortSecurityGroup.port_id)).where(col(PortSecurityGroup.security_group_id) == group)
        found = found.where(col(Port.id).in_(members))
    return found


def ids_name(column: str) -> str:
    """``tenant_id`` as clients write it."""
    return column.removesuffix("_id") + "Id"


# ------------------------------------------------------------------------------------------------ for people


def create(session: Session, subject: Subject, command: PortCreate) -> Port:
    """Make a port that is bound to nothing. Raises NotFound, Forbidden, Busy, Invalid, Conflict, QuotaExceeded,
    NoAddressLeft.
    """
    owner = ownership.tenant_for(session, subject, command.tenant_id, Role.MEMBER)
    wanted = Wanted(
        network_id=command.network_id,
        fixed_ips=command.fixed_ips,
        security_group_ids=command.security_group_ids,
        name=command.name,
        mac=command.mac_address,
        port_security=command.port_security,
    )
    return open(session, subject, owner.id, wanted)


def delete(session: Session, subject: Subject, command: PortDelete) -> dict[str, Any]:
    """Delete a port that no server has. Raises NotFound, Forbidden, StaleVersion, InUse."""
    found = reach(session, subject, command.id, "id")
    expect(found, command.expected_version)
    _refuse_bound(session, found, "id")
    public = NOUN.public(found)
    close(session, found)
    return {"id": public}


# ------------------------------------------------------------------------------------------------ for servers


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port to be opened. ``network_id`` and ``security_group_ids`` are TypeIDs. ``fixed_ips`` None: one address of
    each family; ``fixed_ip`` is short for one. ``server_id`` is the server of the same tenant, made in this unit of
    work, whose interface of that number it is. Ids and addresses are as clients sent them.
    """

    network_id: str
    fixed_ip: str | None = None
    security_group_ids: Sequence[str] | None = None
    name: str = ""
    fixed_ips: Sequence[str] | None = None
    mac: str | None = None
    port_security: bool = True
    server_id: int | None = None
    nic: int = 0


def open(session: Session, subject: Subject, tenant_id: int, wanted: Wanted) -> Port:  # noqa: A001 - opened and closed
    """Make a port of that tenant, with quota, addresses, groups and metering. The caller has checked the subject's role
    in the tenant. Raises NotFound, Busy, Forbidden, Invalid, Conflict, QuotaExceeded, NoAddressLeft, with paths
    ``networkId``, ``fixedIp(s)``, ``macAddress``, ``securityGroupIds``, ``portSecurity``.
    """
    seen = networks.NOUN.get(session, subject, wanted.network_id, "networkId")
    network = networks.locked(session, seen.id, share=True)
    if network.tenant_id != tenant_id and not network.shared:
        raise Invalid("The network belongs to another tenant and is not shared.", path=("networkId",))
    networks.refuse_leaving(session, network, "networkId")
    member_of = _groups(session, subject, tenant_id, wanted)
    quota.take(session, tenant_id, {Resource.PORTS: 1})
    uid = ids.new(session)
    port = Port(
        uid=uid, tenant_id=tenant_id, network_id=network.id, name=wanted.name, mac=_free_mac(session, uid, wanted.mac),
        port_security=wanted.port_security, server_id=wanted.server_id, nic=wanted.nic,
        status=PortStatus.AVAILABLE if wanted.server_id is None else PortStatus.IN_USE,
    )  # fmt: skip
    session.add(port)
    session.flush()
    number = _give_addresses(session, network, port, wanted)
    membership.join(session, port.id, network.id, member_of)
    membership.moved(session, network.id, [each.id for each in member_of])
    if number:
        usage.made(session, tenant_id, port.uid, {Metered.ADDRESS: number})
    return port


def reach(session: Session, subject: Subject, public_id: str, *path: str) -> Port:
    """A port that the subject may change. Raises NotFound or Forbidden, at ``portId`` unless a path is given."""
    place = path or ("portId",)
    found = NOUN.get(session, subject, public_id, *place)
    try:
        require(subject, Role.MEMBER, found.tenant_id, what="using a port")
    except Refusal as refusal:
        raise refusal.at(*place) from None
    return found


def bind(session: Session, port: Port, server_id: int) -> None:
    """Give a port to a server, as its last interface. Raises InUse when a server has it, Invalid when the server is
    another tenant's, at ``portId``.
    """
    if port.server_id == server_id:
        return
    _refuse_bound(session, port, "portId")
    server: Any = nouns.BY_PREFIX["server"].table
    if session.exec(select(server.tenant_id).where(server.id == server_id)).one() != port.tenant_id:
        raise Invalid("The port belongs to another tenant than the server.", path=("portId",))
    last = session.exec(select(func.max(Port.nic)).where(Port.server_id == server_id)).one()
    port.server_id = server_id
    port.status = PortStatus.IN_USE
    port.nic = 0 if last is None else last + 1
    session.flush()


def unbind(session: Session, port: Port) -> None:
    """Take a port from its server; it is on no host any more."""
    port.server_id = None
    port.status = PortStatus.AVAILABLE
    port.host_id = None
    port.stale = False
    session.flush()


def close(session: Session, port: Port) -> None:
    """End a port: its addresses are free, its quota is given back, its metering ends. It must be on no host."""
    quota.give(session, port.tenant_id, {Resource.PORTS: 1})  # first, for opening too holds the quota before subnets
    mine = session.exec(select(PortSecurityGroup.security_group_id).where(PortSecurityGroup.port_id == port.id)).all()
    _give_back(session, port)
    membership.moved(session, port.network_id, mine)
    membership.leave(session, port.id, port.network_id, mine)
    usage.closed(session, port.uid, Metered.ADDRESS)
    session.delete(port)
    session.flush()


def of_server(session: Session, server_id: int) -> list[Port]:
    """A server's ports in the order of its interfaces."""
    return _OF_SERVER.all(session, server=server_id)


_OF_SERVER = Rows(
    Port,
    lambda rows: rows.where(col(Port.server_id) == sa.bindparam("server")).order_by(col(Port.nic), col(Port.id)),
)


def addresses(session: Session, port_ids: Sequence[int]) -> dict[int, list[str]]:
    """The addresses of these ports, by one statement."""
    found = held.of_ports(session, port_ids)
    return {key: [each.address for each in found.get(key, [])] for key in port_ids}


def place(session: Session, port_ids: Iterable[int], host_id: int) -> None:
    """Record, before the host is asked, that these ports and their networks will be there. Twice equals once."""
    for port in _rows(session, port_ids):
        port.host_id = host_id
        if not networks.needed_again(session, port.network_id, host_id):
            networks.settle(session, port.network_id, host_id)


def displace(session: Session, port_ids: Iterable[int]) -> None:
    """Record that these ports are on no host any more."""
    for port in _rows(session, port_ids):
        port.host_id = None
        port.stale = False
    session.flush()


# ------------------------------------------------------------------------------------------------ parts


def _rows(session: Session, port_ids: Iterable[int]) -> list[Port]:
    keys = sorted(port_ids)
    if len(keys) == 1:
        found = get(session, Port, keys[0])
        return [] if found is None else [found]
    return list(session.exec(select(Port).where(col(Port.id).in_(keys)).order_by(col(Port.id))))


def _groups(session: Session, subject: Subject, tenant_id: int, wanted: Wanted) -> list[SecurityGroup]:
    if wanted.port_security:
        return groups.named(session, subject, tenant_id, wanted.security_group_ids)
    if not subject.holds(Role.MANAGER, tenant_id):
        raise Forbidden("Only a manager may switch port security off.", path=("portSecurity",), required="MANAGER")
    if wanted.security_group_ids:
        raise Invalid("A port without port security is in no security group.", path=("securityGroupIds",))
    return []


def _refuse_bound(session: Session, port: Port, *path: str) -> None:
    if port.server_id is None:
        return
    server = nouns.BY_PREFIX["server"]
    owner = session.get(server.table, port.server_id)
    raise InUse("A server has this port.", path=path, blockers=[] if owner is None else [server.public(owner)])


_WITH_MAC = Prepared(sa.select(col(Port.id)).where(col(Port.mac) == sa.bindparam("mac")))


def _free_mac(session: Session, uid: UUID, wanted: str | None) -> str:
    """The MAC that was asked for, or a locally administered one made from the port's id. Raises Conflict."""
    if wanted is None:  # where one of 2^40 is taken the unit of work is done again, with another id
        return ":".join(["02", *(f"{octet:02x}" for octet in hashlib.sha256(uid.bytes).digest()[:5])])
    if _WITH_MAC.value(session, mac=wanted) is not None:
        raise Conflict("A port has this MAC address already.", path=("macAddress",))
    return wanted


def _give_addresses(session: Session, network: Network, port: Port, wanted: Wanted) -> int:
    """Take the port's addresses; how many."""
    present = subnets.of_network(session, network.id)
    asked = [wanted.fixed_ip] if wanted.fixed_ip is not None else wanted.fixed_ips
    if asked is None:
        families = sorted({each.ip_version for each in present})
        for family in families:
            _lowest(session, port, [each for each in present if each.ip_version == family])
        return len(families)
    for index, text in enumerate(asked):
        path = ("fixedIp",) if wanted.fixed_ip is not None else ("fixedIps", str(index))
        try:
            _exact(session, port, present, text)
        except Refusal as refusal:
            raise refusal.at(*path) from None
    return len(asked)


def _lowest(session: Session, port: Port, family: Sequence[Subnet]) -> None:
    """Take the lowest free address of the oldest subnet that has one. Raises NoAddressLeft."""
    for each in family:
        subnet = subnets.locked(session, each.id)
        position = held.take_lowest(session, subnet.id)
        if position is not None:
            _record(session, port, subnet, position, pooled=True)
            return
    public = subnets.NOUN.public(family[0])
    raise NoAddressLeft(f"The subnet {family[0].cidr} has no free address.", path=("networkId",), subnet_id=public)


def _exact(session: Session, port: Port, present: Sequence[Subnet], text: str) -> None:
    """Take this very address. Raises Invalid, Conflict."""
    try:
        address = ip_address(text)
    except ValueError:
        raise Invalid("This is no IPv4 or IPv6 address.") from None
    found = next((each for each in present if address in ip_network(each.cidr)), None)
    if found is None:
        raise Invalid("The address is in no subnet of the network.")
    subnet = subnets.locked(session, found.id)
    if str(address) in subnets.kept_back(subnet):
        raise Invalid("The address is the network's own, its gateway's or its broadcast address.")
    position = held.position_of(subnet.cidr, str(address))
    if held.holder(session, subnet.id, position) is not None:
        raise Conflict("The address is in use.")
    _record(session, port, subnet, position, pooled=held.take(session, subnet.id, position))


def _record(session: Session, port: Port, subnet: Subnet, position: int, *, pooled: bool) -> None:
    text = held.address_at(subnet.cidr, position)
    held.record(session, port_id=port.id, subnet_id=subnet.id, address=text, position=position, pooled=pooled)


def _give_back(session: Session, port: Port) -> None:
    mine = session.exec(select(PortAddress).where(PortAddress.port_id == port.id)).all()
    for each in sorted(mine, key=lambda one: one.subnet_id):
        subnets.locked(session, each.subnet_id)
        session.delete(each)
        session.flush()
        if each.pooled:
            held.give(session, each.subnet_id, each.position)
