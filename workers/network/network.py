"""Networks at work: what a host is told about one, and how it comes to a host, leaves it and is deleted.

What is wished is always recorded before a host is asked, and read again after: a wish that changed meanwhile is carried
out too, so whoever comes last leaves the host with the newest. A network leaves a host with its last port there.
"""

from __future__ import annotations

from sqlmodel import Session

from drivers.api import Capability, DriverError, NetworkSpec, Refused, SubnetSpec, Transient
from gateway.compute.host import Host
from gateway.jobs.job import Job
from gateway.kernel.errors import HypervisorError
from gateway.kernel.prepared import get
from gateway.network import network as networks
from gateway.network import subnet as subnets
from gateway.network.network import Network, NetworkHost
from workers.reach import call, host_of
from workers.saga import Change, Run, Step, saga

CALL_S = 60.0
ROUNDS = 5
"""How often a wish may change while it is carried out before the job is asked to come again."""


def spec(session: Session, network_id: int, host: Host | None) -> NetworkSpec:
    """What a host is told; nothing of DHCP to one that has none: there the seed tells a guest its addresses. Raises
    Refused when the network is gone.
    """
    network = get(session, Network, network_id)
    if network is None:
        raise Refused("the network is gone")
    serves = host is None or Capability.DHCP in host.capabilities
    return NetworkSpec(
        id=network.uid,
        name=network.name,
        subnets=tuple(
            SubnetSpec(each.uid, each.cidr, each.gateway, each.dhcp and serves, tuple(each.dns_servers))
            for each in subnets.of_network(session, network_id)
        ),
        mtu=network.mtu,
    )


def ensure_on_host(run: Run, network_id: int, host_id: int) -> None:
    """Make the network be on a host as recorded, and record it. Raises Transient while it is being taken from there."""
    with run.read() as session:
        place = networks.at_host(session, network_id, host_id)
    if place is None or not as_recorded(place):
        place = run.db.run(lambda session: networks.settle(session, network_id, host_id, run.job_id))
    if place.leaving_job_id is not None:
        raise Transient("the network is being taken from this host; it comes back at once")
    done: NetworkSpec | None = None
    for _ in range(ROUNDS):
        with run.read() as session:
            wish = spec(session, network_id, host_of(session, run, host_id))
        if done == wish:
            if place.stale:
                _record(run, network_id, host_id, done)
            return
        _ensure(run, host_id, wish)
        done = wish
    raise Transient("the network changes faster than the host can follow")


def as_recorded(place: NetworkHost | None) -> bool:
    """Whether nothing needs to be recorded before a host is asked for something on this network, given that a port is
    recorded there: while one is, nobody takes the network away.
    """
    return place is not None and not place.stale and place.leaving_job_id is None


def leave_host(run: Run, network_id: int, host_id: int) -> bool:
    """Take the network from a host where no port needs it; True when it went. Twice equals once."""
    if not run.db.run(lambda session: networks.depart(session, network_id, host_id, run.job_id)):
        return False
    with run.read() as session:
        network = session.get(Network, network_id)
    if network is None:
        return False
    gone = True
    try:
        _remove(run, host_id, network)
    except Refused:
        gone = False  # something of somebody else's is on it
    run.db.run(lambda session: networks.departed(session, network_id, host_id, run.job_id, gone=gone))
    return gone


def _ensure(run: Run, host_id: int, wish: NetworkSpec) -> None:
    call(run, host_id, lambda driver, deadline: driver.networks.ensure(wish, deadline), seconds=CALL_S)


def _remove(run: Run, host_id: int, network: Network) -> None:
    call(run, host_id, lambda driver, deadline: driver.networks.remove(network.uid, deadline), seconds=CALL_S)


def _record(run: Run, network_id: int, host_id: int, done: NetworkSpec) -> None:
    """Record that the host has what is recorded, unless that changed since."""

    def change(session: Session) -> None:
        place = networks.at_host(session, network_id, host_id)
        if place is not None and spec(session, network_id, get(session, Host, host_id)) == done:
            place.stale = False

    run.db.run(change)


# ------------------------------------------------------------------------------------------------ network.delete


def _take_away(run: Run) -> Change:
    """Remove the network from each of its hosts; the rows and the quota go with the record of that."""
    network_id = run.arguments["network_id"]
    with run.read() as session:
        network = session.get(Network, network_id)
        host_ids = [place.host_id for place in networks.hosts_of(session, network_id)]
    failed: list[DriverError] = []
    for host_id in host_ids:
        if network is None:
            break
        try:
            _remove(run, host_id, network)
        except DriverError as error:
            failed.append(error)
        except LookupError:
            continue  # the host was removed from the cloud
    refused = next((each for each in failed if isinstance(each, Refused)), None)
    if refused is not None:
        raise HypervisorError(refused.reason, reason=refused.reason)
    if failed:
        raise failed[0]
    run.say(f"Taken from {len(host_ids)} hosts.")

    def change(session: Session, _job: Job) -> None:
        found = session.get(Network, network_id)
        if found is not None:
            networks.forget(session, found)

    return change


saga(
    "network.delete",
    Step("hosts", _take_away, kept="a deletion goes on until it is done"),
    forward=True,
)
