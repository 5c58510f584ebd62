"""Hosts brought to what is recorded of networks and ports: the jobs ``network.apply`` and ``security_group.apply``, and
the reconciler ``networks`` that asks for the first where a host differs.

What is recorded is the wish, so both jobs only go forward. A host that does not answer holds nothing up: it is tried
again for a while, then what it may lack is marked ``stale``, and the reconciler comes back to it when it answers. What
a host has that no row knows is never touched: it may be another cloud's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from sqlmodel import Session, col, select

from drivers.api import DriverError, HostAtFault, Transient
from gateway.compute import migration as migrations
from gateway.compute import relocation
from gateway.compute.host import Host, HostStatus
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import clock
from gateway.kernel.access import CLOUD
from gateway.kernel.errors import HypervisorError
from gateway.network import membership
from gateway.network import network as networks
from gateway.network import subnet as subnets
from gateway.network.network import Network, NetworkHost
from gateway.network.port import Port
from workers import shares
from workers.hypervisor import Address
from workers.network import network as network_work
from workers.network import port as port_work
from workers.reach import address_of
from workers.saga import TRIES, Change, Run, Step, saga
from workers.sweep import Context, reconciler

GRACE = timedelta(seconds=60)
"""What changed so lately is somebody's work under way, not a difference."""
LOOK_S = 20.0
_KEPT = "what is recorded is the wish; hosts are brought to it, never back"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Outcome:
    """What came of asking hosts: keys of those that did not answer, and what others refused."""

    away: dict[int, DriverError] = field(default_factory=dict)
    refused: list[DriverError] = field(default_factory=list)

    def ask(self, host_id: int, work: Callable[[], object]) -> None:
        """Do something on a host, unless it did not answer before."""
        if host_id in self.away:
            return
        try:
            work()
        except (Transient, HostAtFault) as error:
            self.away[host_id] = error
        except DriverError as error:
            self.refused.append(error)
        except LookupError:
            pass  # the host was removed from the cloud

    def judge(self, run: Run) -> None:
        """Raises the first refusal, else Transient while hosts that do not answer are worth another try."""
        if self.refused:
            raise HypervisorError(self.refused[0].reason, reason=self.refused[0].reason)
        if not self.away:
            return
        with run.read() as session:
            tries = session.get_one(Job, run.job_id).tries
            online = select(Host.id).where(col(Host.id).in_(sorted(self.away)), Host.status == HostStatus.ONLINE)
            answering = session.exec(online).all()
        if answering and tries + 1 < TRIES:
            raise Transient(self.away[answering[0]].reason)


# ------------------------------------------------------------------------------------------------ network.apply


def _hosts(run: Run) -> Change:
    """Bring the network to what is recorded where ports are, and take it from hosts where none is."""
    network_id = run.arguments["network_id"]
    for host_id in run.arguments.get("strays", []):
        run.db.run(lambda session, host_id=host_id: _note(session, network_id, host_id))  # type: ignore[misc]  # mypy: default of a lambda
    with run.read() as session:
        host_ids = [each.host_id for each in networks.hosts_of(session, network_id)]
        needed = set(session.exec(select(Port.host_id).where(Port.network_id == network_id).distinct()))
    outcome = Outcome()
    for host_id in host_ids:
        meet = network_work.ensure_on_host if host_id in needed else network_work.leave_host
        outcome.ask(host_id, lambda meet=meet, host_id=host_id: meet(run, network_id, host_id))  # type: ignore[misc]  # mypy: default of a lambda
    outcome.judge(run)
    run.say(_told(len(host_ids) - len(outcome.away), "hosts", len(outcome.away)))

    def change(session: Session, _job: Job) -> None:
        for host_id in outcome.away:
            place = networks.at_host(session, network_id, host_id)
            if place is not None:
                place.stale = True

    return change


def _note(session: Session, network_id: int, host_id: int) -> None:
    """Record a network that was found on a host, so that it can leave from there."""
    if session.get(Network, network_id) is not None and session.get(Host, host_id) is not None:
        networks.settle(session, network_id, host_id)


def _ports(run: Run) -> Change:
    """Bring the ports that were found missing or stale to what is recorded, all when the network itself changed, and
    remove those that strayed.
    """
    wanted = [int(each) for each in run.arguments.get("ports", [])] or _all_ports(run)
    outcome = _apply_ports(run, wanted)
    for port_id, host_id in run.arguments.get("stray_ports", []):
        outcome.ask(host_id, lambda port_id=port_id, host_id=host_id: _expel(run, port_id, host_id))  # type: ignore[misc]  # mypy: default of a lambda
    outcome.judge(run)
    return _mark(wanted, outcome)


def _all_ports(run: Run) -> list[int]:
    """Every port of the network: what one lets in may follow from the network's ranges."""
    with run.read() as session:
        return list(session.exec(select(Port.id).where(Port.network_id == run.arguments["network_id"])))


def _expel(run: Run, port_id: int, host_id: int) -> None:
    with run.read() as session:
        port = session.get(Port, port_id)
    if port is not None and port.host_id != host_id:
        port_work.remove_from_host(run, port_id, host_id)


saga(
    "network.apply",
    Step("hosts", _hosts, kept=_KEPT),
    Step("ports", _ports, kept=_KEPT),
    forward=True,
)


# ------------------------------------------------------------------------------------------------ security_group.apply


def _group(run: Run) -> Change:
    """Bring all ports whose rules follow from the group to what is recorded."""
    with run.read() as session:
        wanted = membership.concerned(session, run.arguments["group_id"], run.arguments.get("network_id"))
    outcome = _apply_ports(run, wanted)
    outcome.judge(run)
    run.say(_told(len(wanted), "ports", len(outcome.away)))
    return _mark(wanted, outcome)


saga("security_group.apply", Step("ports", _group, kept=_KEPT), forward=True)


def _apply_ports(run: Run, port_ids: Iterable[int]) -> Outcome:
    outcome = Outcome()
    with run.read() as session:
        statement = select(Port.id, Port.host_id).where(
            col(Port.id).in_(list(port_ids)), col(Port.host_id).is_not(None)
        )
        found = session.exec(statement.order_by(col(Port.id))).all()
    for port_id, host_id in found:
        if host_id is not None:
            outcome.ask(host_id, lambda p=port_id, h=host_id: port_work.apply(run, p, h))  # type: ignore[misc]  # mypy: default of a lambda
    return outcome


def _mark(port_ids: list[int], outcome: Outcome) -> Change:
    """Mark the ports whose host did not answer."""

    def change(session: Session, _job: Job) -> None:
        if not outcome.away:
            return
        left = select(Port).where(col(Port.id).in_(port_ids), col(Port.host_id).in_(sorted(outcome.away)))
        for port in session.exec(left):
            port.stale = True

    return change


def _told(done: int, what: str, away: int) -> str:
    return f"{done} {what} are as recorded." + (
        f" {away} hosts do not answer; it is made up for later." if away else ""
    )


# ------------------------------------------------------------------------------------------------ reconciler


@dataclass(slots=True)
class Repair:
    """What differs about one network: ``strays`` are hosts that have it and should not be known to, ``ports`` are keys
    of ports missing or stale, ``stray_ports`` pairs of port and host; ``whole`` asks for all of its ports.
    """

    strays: list[int] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    stray_ports: list[list[int]] = field(default_factory=list)
    whole: bool = False


@reconciler("networks", every_s=30.0)
def look(context: Context) -> None:
    """Compare what hosts have with what is recorded, and have each network that differs applied by a job."""
    with context.db.read() as session:
        used = {*session.exec(select(NetworkHost.host_id)), *session.exec(select(Port.host_id).distinct())}
        hosts = shares.mine(
            context,
            session,
            select(Host).where(
                col(Host.id).in_(sorted(each for each in used if each)), Host.status == HostStatus.ONLINE
            ),
        )
        known = [(host.id, address_of(session, host)) for host in hosts]
    repairs: dict[int, Repair] = defaultdict(Repair)
    for host_id, where in known:
        try:
            _compare(context, host_id, where, repairs)
        except DriverError as error:
            log.info("networks of a host could not be listed", host=where.name, reason=error.reason)
    for network_id, repair in repairs.items():
        _submit(context, network_id, repair)


def _compare(context: Context, host_id: int, where: Address, repairs: dict[int, Repair]) -> None:
    def listed(driver: Any, deadline: Any) -> tuple[Any, Any]:
        return driver.networks.list(deadline), driver.networks.list_ports(deadline)

    there, there_ports = context.hosts.call(where, listed, seconds=LOOK_S)
    has = {each.id: each.subnet_ids for each in there}
    with context.db.read() as session:
        before = clock.now(session) - GRACE
        kept = [*migrations.kept_ports(session, host_id), *relocation.kept_ports(session, host_id)]
        _compare_networks(session, host_id, has, repairs, {port.network_id for port in kept})
        mine = port_work.placed(session, host_id)
        uids = set(there_ports)
        for port in mine:
            if port.updated_at < before and (port.stale or port.uid not in uids):
                repairs[port.network_id].ports.append(port.id)
        others = uids - {port.uid for port in (*mine, *kept)}
        for port in session.exec(select(Port).where(col(Port.uid).in_(others))) if others else ():
            if port.updated_at < before:
                repairs[port.network_id].stray_ports.append([port.id, host_id])


def _compare_networks(
    session: Session, host_id: int, has: dict[Any, Any], repairs: dict[int, Repair], kept: set[int]
) -> None:
    before = clock.now(session) - GRACE
    needed = {port.network_id for port in port_work.placed(session, host_id)} | kept
    places = {each.network_id: each for each in session.exec(select(NetworkHost).where(NetworkHost.host_id == host_id))}
    rows = select(Network).where(col(Network.uid).in_(set(has)) | col(Network.id).in_(set(places)))
    for network in session.exec(rows):
        place = places.get(network.id)
        if network.deleting or (place is not None and place.used_at >= before):
            continue
        wish = frozenset(each.uid for each in subnets.of_network(session, network.id))
        if place is None:
            repairs[network.id].strays.append(host_id)
        elif network.id not in needed or place.stale or has.get(network.uid) != wish:
            repairs[network.id].whole = True


def _submit(context: Context, network_id: int, repair: Repair) -> None:
    def work(session: Session) -> None:
        network = session.get(Network, network_id)
        if network is None or jobs.active(session, networks.NOUN.public(network)) is not None:
            return
        arguments = {
            "network_id": network_id,
            "strays": repair.strays,
            "ports": [] if repair.whole else repair.ports,
            "stray_ports": repair.stray_ports,
        }
        log.info("a network is not as recorded", network=networks.NOUN.public(network), **arguments)
        public = networks.NOUN.public(network)
        jobs.submit(session, CLOUD, Order("network.apply", network.tenant_id, public, arguments=arguments))

    context.db.run(work)
