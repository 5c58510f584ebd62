"""Subnets: the address ranges of a network.

A range is written in its one canonical spelling, overlaps no other of its network, and never changes. What may be
given out are its pools: by default all but the network's own address, the broadcast address, the gateway, and the
address that a host needs to serve leases where there is no gateway. A subnet can go when no port has an address in it.
Changing a network's subnets re-applies it to its hosts by a job. Not here: giving
addresses out (gateway/network/address.py).
"""

import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Self

import sqlalchemy as sa
from pydantic import AfterValidator, StringConstraints, model_validator
from sqlmodel import Field, Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import tenant
from gateway.kernel import noun as nouns
from gateway.kernel import row
from gateway.kernel.access import Subject, within
from gateway.kernel.command import AnyId, Command, Retryable, Text, Versioned
from gateway.kernel.errors import Conflict, InUse, Invalid, NotFound, QuotaExceeded
from gateway.kernel.noun import Noun, register
from gateway.kernel.prepared import Rows
from gateway.kernel.row import Row, canonical_cidr, canonical_ip, expect
from gateway.network import address as addresses
from gateway.network import network as networks
from gateway.network.address import IPV6, PortAddress, Range
from gateway.network.network import Network, key_of

MOST_SUBNETS = 16
_TOLD_BLOCKERS = 20
_LENGTHS = {4: (8, 29), 6: (64, 126)}
_SPECIAL = [
    ip_network(each)
    for each in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/64", "fe80::/10", "ff00::/8")
]

Address = IPv4Address | IPv6Address


class Subnet(Row, table=True):
    """A range. ``place`` is its first address as a text that sorts; ``pools`` are texts ``first-last``."""

    __tablename__ = "subnet"

    tenant_id: int = row.ref("tenant.id")
    network_id: int = row.ref("network.id")
    name: str = Field(default="", max_length=255)
    cidr: str = Field(max_length=43, index=True)
    place: str = Field(max_length=33, index=True)
    gateway: str | None = Field(default=None, max_length=45)
    dhcp: bool = True
    dns_servers: list[str] = row.json(default_factory=list)
    pools: list[dict[str, str]] = row.json(default_factory=list)

    @property
    def ip_version(self) -> int:
        """4 or 6."""
        return ip_network(self.cidr).version


def _scope(subject: Subject) -> sa.ColumnElement[bool]:
    seen = sa.select(col(Network.id)).where(networks.NOUN.scope(subject))
    return within(col(Subnet.tenant_id), subject) | col(Subnet.network_id).in_(seen)


NOUN = register(Noun("subnet", Subnet, _scope))

ORDERS: dict[str, Any] = {"NAME": col(Subnet.name), "CIDR": col(Subnet.place)}


def _range(text: str) -> str:
    if "%" in text:
        raise ValueError("a range has no zone")
    try:
        return canonical_cidr(text)
    except ValueError:
        raise ValueError("this is no range such as 10.0.0.0/24, without host bits") from None


def _address(text: str) -> str:
    if "%" in text:
        raise ValueError("an address of a subnet has no zone")
    try:
        return canonical_ip(text)
    except ValueError:
        raise ValueError("this is no IPv4 or IPv6 address") from None


CidrText = Annotated[str, StringConstraints(max_length=64), AfterValidator(_range)]
AddressText = Annotated[str, StringConstraints(max_length=64), AfterValidator(_address)]


class AllocationPool(Command):
    """Addresses that may be given out."""

    first: AddressText = Field(description="The first address.")
    last: AddressText = Field(description="The last address.")


class SubnetCreate(Retryable):
    """A new range of a network."""

    network_id: AnyId = Field(description="The network.")
    cidr: CidrText = Field(description="The range: IPv4 from /8 to /29, IPv6 from /64 to /126, without host bits.")
    name: Text = Field(default="", max_length=255, description="Its name.")
    gateway: AddressText | None = Field(
        default=None, description="The way out; the range's first address by default, null for none."
    )
    dhcp: bool | None = Field(
        default=None, description="Whether machines get their addresses by DHCP; yes for IPv4, no for IPv6 by default."
    )
    dns_servers: list[AddressText] = Field(
        default_factory=list, max_length=5, description="Told to machines, in order."
    )
    allocation_pools: list[AllocationPool] | None = Field(
        default=None, min_length=1, max_length=16, description="What may be given out; the whole range by default."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        least, most = _LENGTHS[ip_network(self.cidr).version]
        if not least <= ip_network(self.cidr).prefixlen <= most:
            raise ValueError(f"a range of its kind is from /{least} to /{most}")
        if any(
            ip_network(self.cidr).overlaps(each) for each in _SPECIAL if each.version == ip_network(self.cidr).version
        ):
            raise ValueError("loopback, link-local and multicast addresses are not for machines")
        if len(set(self.dns_servers)) < len(self.dns_servers):
            raise ValueError("a DNS server is named twice")
        return self


class SubnetDelete(Versioned):
    """The subnet to delete."""

    id: AnyId = Field(description="The subnet.")


class Filter(Command):
    """Which subnets."""

    tenant_id: AnyId | None = Field(default=None, description="Of this tenant.")
    network_id: AnyId | None = Field(default=None, description="Of this network.")
    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    cidr: str | None = Field(default=None, max_length=64, description="Exactly this range.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Subnet]:
    """The subnets a subject may see. Raises NotFound for an id that is no tenant's or network's."""
    found = select(Subnet).where(NOUN.scope(subject))
    if wanted.tenant_id is not None:
        found = found.where(Subnet.tenant_id == key_of(tenant.NOUN, wanted.tenant_id, "filter", "tenantId"))
    if wanted.network_id is not None:
        found = found.where(Subnet.network_id == key_of(networks.NOUN, wanted.network_id, "filter", "networkId"))
    if wanted.name is not None:
        found = found.where(Subnet.name == wanted.name)
    if wanted.cidr is not None:
        found = found.where(Subnet.cidr == wanted.cidr)
    return found


def create(session: Session, subject: Subject, command: SubnetCreate) -> dict[str, Any]:
    """Add a range to a network and have it applied where the network is. Raises NotFound, Forbidden, Busy, Invalid,
    Conflict (it overlaps another of the network, or of a host that cannot keep the two apart).
    """
    network = networks.owned(session, subject, command.network_id, "networkId", lock=True)
    wanted = ip_network(command.cidr)
    _check_room(session, network, wanted)
    gateway = _gateway(command, wanted)
    dhcp = command.dhcp if command.dhcp is not None else wanted.version != IPV6
    pools = _pools(command, wanted, _kept_back(wanted, gateway, dhcp=dhcp))
    made = Subnet(
        tenant_id=network.tenant_id,
        network_id=network.id,
        name=command.name,
        cidr=command.cidr,
        place=networks.place_of(command.cidr, int(wanted[0])),
        gateway=None if gateway is None else str(gateway),
        dhcp=dhcp,
        dns_servers=command.dns_servers,
        pools=[{"first": str(first), "last": str(last)} for first, last in pools],
    )
    session.add(made)
    session.flush()
    free = [tuple(addresses.position_of(made.cidr, str(end)) for end in pool) for pool in pools]
    addresses.open_ranges(session, made.id, [(first, last) for first, last in free])
    _check_hosts(session, network)
    return {"subnet": made, "job": networks.apply(session, subject, network)}


def delete(session: Session, subject: Subject, command: SubnetDelete) -> dict[str, Any]:
    """Take a range without addresses in use from its network. Raises NotFound, Forbidden, StaleVersion, Busy, InUse."""
    found = NOUN.get(session, subject, command.id, "id")
    network = session.get_one(Network, found.network_id)
    networks.owned(session, subject, networks.NOUN.public(network), "id", lock=True)
    expect(found, command.expected_version)
    if session.exec(select(PortAddress.id).where(PortAddress.subnet_id == found.id).limit(1)).first() is not None:
        raise InUse("Ports have addresses in this subnet.", path=("id",), blockers=_holders(session, subject, found.id))
    public = NOUN.public(found)
    session.delete(found)
    session.flush()
    return {"id": public, "job": networks.apply(session, subject, network)}


def of_network(session: Session, network_id: int) -> list[Subnet]:
    """A network's subnets, oldest first."""
    return _OF_NETWORK.all(session, network=network_id)


_OF_NETWORK = Rows(
    Subnet, lambda rows: rows.where(col(Subnet.network_id) == sa.bindparam("network")).order_by(col(Subnet.id))
)


def locked(session: Session, subnet_id: int) -> Subnet:
    """The subnet's row, fresh and held until the end of the unit of work: needed to give or take addresses."""
    found = _LOCKED.first(session, subnet=subnet_id)
    if found is None:
        raise NotFound("There is no such subnet.")
    return found


_LOCKED = Rows(Subnet, lambda rows: rows.where(col(Subnet.id) == sa.bindparam("subnet")).with_for_update(), fresh=True)


def kept_back(subnet: Subnet) -> frozenset[str]:
    """Addresses that no port may have: the network's own, broadcast, gateway, the host's for leases."""
    gateway = None if subnet.gateway is None else ip_address(subnet.gateway)
    return frozenset(str(each) for each in _kept_back(ip_network(subnet.cidr), gateway, dhcp=subnet.dhcp))


# ------------------------------------------------------------------------------------------------ parts


def _gateway(command: SubnetCreate, wanted: Range) -> Address | None:
    if "gateway" not in command.model_fields_set:
        return wanted[1]
    if command.gateway is None:
        return None
    given = ip_address(command.gateway)
    if given not in wanted:
        raise Invalid("The gateway lies outside the range.", path=("gateway",))
    if given in _ends(wanted):
        raise Invalid("The gateway is the range's own or its broadcast address.", path=("gateway",))
    return given


def _ends(wanted: Range) -> set[Address]:
    """The network's own address, and IPv4's broadcast address."""
    return {wanted[0]} if wanted.version == IPV6 else {wanted[0], wanted[-1]}


def _kept_back(wanted: Range, gateway: Address | None, *, dhcp: bool) -> set[Address]:
    own: set[Address] = {gateway} if gateway is not None else {wanted[-2]} if dhcp else set()
    return _ends(wanted) | own


def _pools(command: SubnetCreate, wanted: Range, kept: set[Address]) -> list[tuple[Address, Address]]:
    """The free ranges in order: what was asked for, or everything, without the addresses that are kept back."""
    asked: list[tuple[Address, Address]] = [(wanted[0], wanted[-1])]
    if command.allocation_pools is not None:
        asked = sorted((_pool(index, each, wanted) for index, each in enumerate(command.allocation_pools)), key=_first)
    for (_, last), (first, _) in itertools.pairwise(asked):
        if int(first) <= int(last):
            raise Invalid("Two pools overlap.", path=("allocationPools",))
    found = [part for pool in asked for part in _without(pool, kept)]
    if not found:
        raise Invalid("The pools leave no address to give out.", path=("allocationPools",))
    return found


def _first(pool: tuple[Address, Address]) -> int:
    return int(pool[0])


def _pool(index: int, pool: AllocationPool, wanted: Range) -> tuple[Address, Address]:
    first, last = ip_address(pool.first), ip_address(pool.last)
    if first not in wanted or last not in wanted:
        raise Invalid("The pool lies outside the range.", path=("allocationPools", str(index)))
    if int(last) < int(first):
        raise Invalid("The pool ends before it begins.", path=("allocationPools", str(index)))
    return first, last


def _without(pool: tuple[Address, Address], kept: set[Address]) -> list[tuple[Address, Address]]:
    """A pool cut at the addresses that are kept back."""
    first, last = pool
    parts = []
    for each in sorted(kept, key=int):
        if int(first) <= int(each) <= int(last):
            if each != first:
                parts.append((first, each - 1))
            if each == last:
                return parts
            first = each + 1
    return [*parts, (first, last)]


def _check_room(session: Session, network: Network, wanted: Range) -> None:
    """Raises Conflict for a range that overlaps another of the network, QuotaExceeded for one too many."""
    present = of_network(session, network.id)
    for each in present:
        there = ip_network(each.cidr)
        if there.version == wanted.version and there.overlaps(wanted):
            raise Conflict(f"The range overlaps {there} of this network.", path=("cidr",))
    if len(present) >= MOST_SUBNETS:
        raise QuotaExceeded(
            f"A network has at most {MOST_SUBNETS} subnets.", path=("networkId",), resource="SUBNETS",
            limit=MOST_SUBNETS, used=len(present), requested=1,
        )  # fmt: skip


def _check_hosts(session: Session, network: Network) -> None:
    """Raises Conflict when a host that has this network has the range in another one and cannot keep them apart."""
    here = {each.host_id for each in networks.hosts_of(session, network.id)}
    colliding = here & networks.colliding_hosts(session, [network.id]) if here else set()
    if not colliding:
        return
    # What a host can do is the compute service's; only its column is read, by name.
    host = SQLModel.metadata.tables["host"]
    for (can,) in session.execute(sa.select(host.c.capabilities).where(host.c.id.in_(sorted(colliding)))):
        if "OVERLAPPING_SUBNETS" not in (can or []):
            raise Conflict(
                "The network is in use on a host where another network has an overlapping range.", path=("cidr",)
            )


def _holders(session: Session, subject: Subject, subnet_id: int) -> list[str]:
    noun = nouns.BY_PREFIX["port"]
    held = sa.select(col(PortAddress.port_id)).where(col(PortAddress.subnet_id) == subnet_id)
    rows = session.exec(
        select(noun.table)
        .where(noun.table.id.in_(held), noun.scope(subject))
        .order_by(noun.table.id)
        .limit(_TOLD_BLOCKERS)
    )
    return [noun.public(each) for each in rows]
