"""Tallies: how many ports are on a network, and how many of them are in each security group.

Kept beside the ports and changed in the same units of work (gateway/network/membership.py), because counting them anew
would cost more with each server that is there. Whoever changes one holds its row until the unit of work ends.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Field, Session, SQLModel

from gateway.kernel import row
from gateway.kernel.prepared import Prepared
from gateway.kernel.row import Key

EVERYBODY = 0
"""Stands for no group: all ports of the network."""


class NetworkTally(SQLModel, table=True):
    """``ports`` of a network that are in a group. ``group_id`` is a security group's key or EVERYBODY."""

    __tablename__ = "network_tally"

    id: int = Field(default=None, primary_key=True, sa_type=Key)
    network_id: int = row.ref("network.id", index=False, ondelete="CASCADE")
    group_id: int = row.big()
    ports: int = row.big(default=0)

    __table_args__ = (sa.UniqueConstraint("network_id", "group_id"),)


_TABLE: sa.Table = NetworkTally.__table__  # type: ignore[attr-defined]  # every table model has one
_OF = Prepared(sa.select(_TABLE.c.group_id, _TABLE.c.ports).where(_TABLE.c.network_id == sa.bindparam("network")))
_LESS = Prepared(
    sa.update(_TABLE)
    .where(_TABLE.c.network_id == sa.bindparam("network"), _TABLE.c.group_id == sa.bindparam("counted"))
    .values(ports=_TABLE.c.ports - 1)
)
_NEW = {"network_id": sa.bindparam("network"), "group_id": sa.bindparam("counted"), "ports": 1}
_MORE: dict[str, Prepared] = {
    name: Prepared(
        dialect.insert(_TABLE)
        .values(_NEW)
        .inline()
        .on_conflict_do_update(index_elements=["network_id", "group_id"], set_={"ports": _TABLE.c.ports + 1})
    )
    for name, dialect in (("sqlite", sqlite), ("postgresql", postgresql))
}  # fmt: skip


def came(session: Session, network_id: int, group_ids: Iterable[int]) -> None:
    """Count in a port that is in these groups."""
    more = _MORE[session.get_bind().dialect.name]
    for each in _keys(network_id, group_ids):
        more.later(session, **each)


def went(session: Session, network_id: int, group_ids: Iterable[int]) -> None:
    """Count out a port that was in these groups."""
    for each in _keys(network_id, group_ids):
        _LESS.later(session, **each)


def of_network(session: Session, network_id: int) -> dict[int, int]:
    """How many ports of a network are in each group, and under EVERYBODY how many there are."""
    return {group_id: ports for group_id, ports in _OF.all(session, network=network_id) if ports}


def groups_on(network: Any) -> sa.Select[Any]:
    """The groups that have ports on a network, as a part of a statement."""
    return sa.select(_TABLE.c.group_id).where(_TABLE.c.network_id == network, _TABLE.c.ports > 0)


def _keys(network_id: int, group_ids: Iterable[int]) -> list[dict[str, int]]:
    """One order for all: two units of work never wait for each other in a circle."""
    return [{"network": network_id, "counted": each} for each in (EVERYBODY, *sorted(set(group_ids)))]
