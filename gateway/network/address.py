"""Addresses: which of a subnet's are free, and who holds the others.

What is free is kept as ranges, so the lowest free address is the first row of an index and giving one back joins its
neighbours: each costs the same in a subnet of eight addresses and of 2^64. Every change holds the subnet's row, so two
units of work never see the same range, and the unique key on (subnet, position) is the last word. A position is the
address's offset in its subnet (for IPv6 minus 2^63, so that a /64 fits 64 bits with its order).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, func, select

from gateway.kernel import row
from gateway.kernel.prepared import Prepared, Rows
from gateway.kernel.row import Key, Record

Range = IPv4Network | IPv6Network

IPV6 = 6
_SHIFT = 2**63


class PortAddress(Record, table=True):
    """An address that a port holds. ``pooled`` is false for one outside the subnet's pools, which is never given out by
    itself.
    """

    __tablename__ = "port_address"

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    port_id: int = row.ref("port.id")
    subnet_id: int = row.ref("subnet.id", index=False)
    address: str = Field(max_length=45, index=True)
    position: int = row.big()
    pooled: bool = True

    __table_args__ = (
        sa.UniqueConstraint("subnet_id", "position"),
        sa.Index("ix_port_address_outside", "subnet_id", sqlite_where=sa.text("pooled = 0"),
                 postgresql_where=sa.text("NOT pooled")),
    )  # fmt: skip


class FreeRange(Record, table=True):
    """Addresses from ``first`` to ``last`` (positions, inclusive) that nobody holds. Ranges of a subnet never touch,
    unless two pools do.
    """

    __tablename__ = "free_range"

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    subnet_id: int = row.ref("subnet.id", index=False, ondelete="CASCADE")
    first: int = row.big()
    last: int = row.big()

    __table_args__ = (sa.UniqueConstraint("subnet_id", "first"),)


@dataclass(frozen=True, slots=True)
class Room:
    """How full a subnet is: addresses held, and those still to be given out."""

    held: int
    free: int

    @property
    def utilisation(self) -> float:
        """The share that is held, 0 to 1."""
        return round(self.held / (self.held + self.free), 6) if self.held + self.free else 0.0


@lru_cache(maxsize=4096)
def _network(cidr: str) -> Range:
    return ip_network(cidr)


def position_of(cidr: str, address: str) -> int:
    """Where an address stands in its subnet."""
    network = _network(cidr)
    return int(ip_address(address)) - int(network[0]) - (_SHIFT if network.version == IPV6 else 0)


def address_at(cidr: str, position: int) -> str:
    """The address at a position."""
    network = _network(cidr)
    return str(network[position + (_SHIFT if network.version == IPV6 else 0)])


def open_ranges(session: Session, subnet_id: int, ranges: Iterable[tuple[int, int]]) -> None:
    """Make these positions (first, last) the free ones of a new subnet."""
    session.add_all(FreeRange(subnet_id=subnet_id, first=first, last=last) for first, last in ranges)
    session.flush()


def take_lowest(session: Session, subnet_id: int) -> int | None:
    """Take the lowest free position; None when there is none. The caller holds the subnet's row."""
    found = _LOWEST.first(session, subnet=subnet_id)
    if found is None:
        return None
    key, first, last = found
    if first < last:
        _SHORTER.later(session, key=key)
    else:
        _USED_UP.later(session, key=key)
    return int(first)


_RANGE = sa.inspect(FreeRange).columns
_LOWEST = Prepared(
    sa.select(_RANGE.id, _RANGE.first, _RANGE.last)
    .where(_RANGE.subnet_id == sa.bindparam("subnet"))
    .order_by(_RANGE.first)
    .limit(sa.literal_column("1"))
)
_SHORTER = Prepared(sa.update(FreeRange).where(_RANGE.id == sa.bindparam("key")).values(first=_RANGE.first + 1))
_USED_UP = Prepared(sa.delete(FreeRange).where(_RANGE.id == sa.bindparam("key")))
"""Ranges are read anew whenever they are needed, so nobody has one of these as an object."""


def take(session: Session, subnet_id: int, position: int) -> bool:
    """Take this very position; False when it is no free one of a pool. The caller holds the subnet's row."""
    found = _below(session, subnet_id, position)
    if found is None or found.last < position:
        return False
    _replace(session, found, [(found.first, position - 1), (position + 1, found.last)])
    return True


def give(session: Session, subnet_id: int, position: int) -> None:
    """Make a position free again, joining what is free beside it. The caller holds the subnet's row."""
    first = last = position
    below = _below(session, subnet_id, position)
    if below is not None and below.last >= position:
        raise AssertionError("an address is given back that is free")
    above = session.exec(
        select(FreeRange)
        .where(FreeRange.subnet_id == subnet_id, FreeRange.first == position + 1)
        .execution_options(populate_existing=True)
    ).first()
    if above is not None:
        last = above.last
        session.delete(above)
        session.flush()
    if below is not None and below.last == position - 1:
        below.last = last
    else:
        session.add(FreeRange(subnet_id=subnet_id, first=first, last=last))
    session.flush()


def holder(session: Session, subnet_id: int, position: int) -> PortAddress | None:
    """Who holds a position."""
    return session.exec(
        select(PortAddress).where(PortAddress.subnet_id == subnet_id, PortAddress.position == position)
    ).first()


def record(session: Session, **holding: Any) -> None:
    """Record that a port holds an address: a value for each column of :class:`PortAddress` but its key."""
    _RECORD.later(session, **holding)


_RECORD = Prepared(
    sa.insert(PortAddress)
    .values({name: sa.bindparam(name) for name in ("port_id", "subnet_id", "address", "position", "pooled")})
    .inline()
)


def of_ports(session: Session, port_ids: Sequence[int]) -> dict[int, list[PortAddress]]:
    """The addresses of these ports, each in the order they were given."""
    found: dict[int, list[PortAddress]] = defaultdict(list)
    if len(port_ids) == 1:
        return {port_ids[0]: _OF_PORT.all(session, port=port_ids[0])}
    statement = select(PortAddress).where(col(PortAddress.port_id).in_(port_ids)).order_by(col(PortAddress.id))
    for each in session.exec(statement):
        found[each.port_id].append(each)
    return found


_OF_PORT = Rows(
    PortAddress,
    lambda rows: rows.where(col(PortAddress.port_id) == sa.bindparam("port")).order_by(col(PortAddress.id)),
)


def held_figures(_columns: Any) -> tuple[Any, ...]:
    """What of the addresses that a subnet's ports hold tells :func:`room`."""
    return (func.count(),)


def free_figures(columns: Any) -> tuple[Any, ...]:
    """What of a subnet's free ranges tells :func:`room`: sums of the upper and the lower halves of their ends, since a
    sum of 64-bit numbers does not fit 64 bits.
    """
    halves = (
        half
        for end in (columns.last, columns.first)
        for half in (end.op(">>")(sa.literal_column("32")), end.op("&")(sa.literal_column("4294967295")))
    )
    return (func.count(), *(func.coalesce(func.sum(half), sa.literal_column("0")) for half in halves))


def room(held: Sequence[int], free: Sequence[int]) -> Room:
    """How full a subnet is, by these figures."""
    count, last_upper, last_lower, first_upper, first_lower = free
    return Room(held[0], ((last_upper - first_upper) << 32) + last_lower - first_lower + count)


def rooms(session: Session, subnet_ids: Sequence[int]) -> dict[int, Room]:
    """How full these subnets are, by two statements whatever their number."""
    counted = select(PortAddress.subnet_id, func.count()).where(col(PortAddress.subnet_id).in_(subnet_ids))
    held = dict(session.exec(counted.group_by(col(PortAddress.subnet_id))).all())
    free: dict[int, int] = defaultdict(int)
    ranges = select(FreeRange.subnet_id, FreeRange.first, FreeRange.last)
    for subnet_id, first, last in session.exec(ranges.where(col(FreeRange.subnet_id).in_(subnet_ids))):
        free[subnet_id] += last - first + 1
    return {key: Room(held.get(key, 0), free[key]) for key in subnet_ids}


def _below(session: Session, subnet_id: int, position: int) -> FreeRange | None:
    """The free range that begins at or last before a position."""
    statement = select(FreeRange).where(FreeRange.subnet_id == subnet_id, col(FreeRange.first) <= position)
    ordered = statement.order_by(col(FreeRange.first).desc()).limit(1)
    return session.exec(ordered.execution_options(populate_existing=True)).first()


def _replace(session: Session, old: FreeRange, parts: list[tuple[int, int]]) -> None:
    """Put what is left of a range in its place; empty parts vanish."""
    kept = [(first, last) for first, last in parts if first <= last]
    if not kept:
        session.delete(old)
    else:
        (old.first, old.last), *more = kept
        session.add_all(FreeRange(subnet_id=old.subnet_id, first=first, last=last) for first, last in more)
    session.flush()
