"""Ports at work: what a host is told about one, and how it comes to a host and leaves it.

That a port is to be on a host is recorded before it is made there, and that it is to go before it is removed; after
each call the record is read again. So a change of rules that crosses a server's creation or deletion leaves neither old
rules nor a forgotten port behind, in whatever order the two end.
"""

from __future__ import annotations

import re
from uuid import UUID

import sqlalchemy as sa
from sqlmodel import Session, col, select

from drivers.api import Direction, PortSpec, Refused, RuleSpec, Transient
from gateway.compute.server import Server
from gateway.kernel.prepared import Prepared, get, rows_of
from gateway.network import membership
from gateway.network import network as networks
from gateway.network import port as ports
from gateway.network.network import Network
from gateway.network.port import Port
from gateway.network.security_group import RuleProtocol, SecurityGroupRule
from workers.network import network as network_work
from workers.network.network import CALL_S, ROUNDS
from workers.reach import call
from workers.saga import Run

_PROTOCOLS = {RuleProtocol.TCP: "tcp", RuleProtocol.UDP: "udp", RuleProtocol.ICMP: "icmp"}


def spec(session: Session, port_id: int) -> PortSpec:
    """What a host is told; remote groups are the addresses they stand for. Raises Refused when the port is gone."""
    found = _read(session, port_id)
    if found is None:
        raise Refused("the port is gone")
    return _spec(session, *found)


def _spec(session: Session, port: Port, network_uid: UUID, server_name: str | None) -> PortSpec:
    return PortSpec(
        id=port.uid,
        network_id=network_uid,
        mac=port.mac,
        addresses=tuple(ports.addresses(session, [port.id])[port.id]),
        hostname=None if server_name is None else hostname(server_name),
        rules=_rules(session, port) if port.port_security else None,
    )


_WITH_NAMES = Prepared(
    sa.select(sa.inspect(Network).columns.uid, sa.inspect(Server).columns.name, *rows_of(Port).columns)
    .select_from(Port)
    .join(Network, col(Network.id) == col(Port.network_id))
    .outerjoin(Server, col(Server.id) == col(Port.server_id))
    .where(col(Port.id) == sa.bindparam("port"))
)


def _read(session: Session, port_id: int) -> tuple[Port, UUID, str | None] | None:
    """A port, its network's id and its server's name; None when it is gone."""
    found = _WITH_NAMES.first(session, port=port_id)
    if found is None:
        return None
    network_uid, server_name, *row = found
    return rows_of(Port).object(session, row), network_uid, server_name


def hostname(name: str) -> str | None:
    """A server's name as a host name; None when nothing of it can be one."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:63].strip("-") or None


def ensure_on_host(run: Run, port_id: int, host_id: int) -> None:
    """Make the port, and its network first, be on a host as recorded, and record that it is there."""

    def settle(session: Session) -> tuple[int, bool]:
        ports.place(session, [port_id], host_id)
        port = session.get(Port, port_id)
        if port is None:
            raise Refused("the port is gone")
        place = networks.settle(session, port.network_id, host_id, run.job_id)
        return port.network_id, place.stale or place.leaving_job_id is not None

    with run.read() as session:
        port = get(session, Port, port_id)
        there = port is not None and port.host_id == host_id
        place = networks.at_host(session, port.network_id, host_id) if port is not None and there else None
    if not network_work.as_recorded(place):
        network_id, unsure = run.db.run(settle)
        if unsure:
            network_work.ensure_on_host(run, network_id, host_id)
    if not apply(run, port_id, host_id):
        raise Refused("the port was taken from the host while it was made there")


def remove_from_host(run: Run, port_id: int, host_id: int) -> None:
    """Take the port from a host, and its network when it was the last one there. Twice equals once."""

    def displace(session: Session) -> Port | None:
        port = session.get(Port, port_id)
        if port is not None and port.host_id == host_id:
            ports.displace(session, [port_id])
        return port

    port = run.db.run(displace)
    if port is None:
        return
    with run.read() as session:
        network = session.get_one(Network, port.network_id)
    _remove(run, host_id, network.uid, port.uid)
    network_work.leave_host(run, network.id, host_id)


def apply(run: Run, port_id: int, host_id: int) -> bool:
    """Bring a port that is recorded on a host to what is recorded; False when it is not recorded there (any more), in
    which case whatever this made is taken back.
    """
    done: PortSpec | None = None
    for _ in range(ROUNDS):
        with run.read() as session:
            found = _read(session, port_id)
            wish = _spec(session, *found) if found is not None and found[0].host_id == host_id else None
        if wish == done:
            if found is not None and found[0].stale:
                run.db.run(lambda session: _fresh(session, port_id, host_id))
            return wish is not None
        if wish is None and done is not None:
            _remove(run, host_id, done.network_id, done.id)
        elif wish is not None:
            _ensure(run, host_id, wish)
        done = wish
    raise Transient("the port changes faster than the host can follow")


def _ensure(run: Run, host_id: int, wish: PortSpec) -> None:
    call(run, host_id, lambda driver, deadline: driver.networks.ensure_port(wish, deadline), seconds=CALL_S)


def _remove(run: Run, host_id: int, network: UUID, port: UUID) -> None:
    call(run, host_id, lambda driver, deadline: driver.networks.remove_port(network, port, deadline), seconds=CALL_S)


def _fresh(session: Session, port_id: int, host_id: int) -> None:
    port = session.get(Port, port_id)
    if port is not None and port.host_id == host_id and port.stale:
        port.stale = False


def _rules(session: Session, port: Port) -> tuple[RuleSpec, ...]:
    """All rules of the port's groups, each once, in a fixed order."""
    sources = membership.Sources(session, port.network_id)
    found: dict[RuleSpec, None] = {}
    for rule in membership.rules_of(session, port.id):
        for remote in _remotes(sources, rule):
            found[_rule(rule, remote)] = None
    return tuple(found)


def _remotes(sources: membership.Sources, rule: SecurityGroupRule) -> list[str | None]:
    if rule.remote_group_id is None:
        return [rule.remote_cidr]
    return [*sources.of(rule.remote_group_id, rule.ether_type.version)]


def _rule(rule: SecurityGroupRule, remote: str | None) -> RuleSpec:
    return RuleSpec(
        direction=Direction(rule.direction.value),
        ethertype=rule.ether_type.version,
        protocol=_PROTOCOLS.get(rule.protocol),
        port_min=rule.port_min,
        port_max=rule.port_max,
        remote=remote,
    )


def placed(session: Session, host_id: int) -> list[Port]:
    """The ports recorded on a host."""
    return list(session.exec(select(Port).where(Port.host_id == host_id)))
