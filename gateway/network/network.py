"""Networks: layer 2 segments of a tenant, and the hosts on which each is realised.

A network belongs to one tenant; only operators may share it with all. It can go when no port is on it. Where it is
realised is recorded before a host is asked (:class:`NetworkHost`), so whatever may lie on a host is known here; while
it is being taken away from a host, nothing new is made there until that is over. Not here: what a host is
told (workers/network/network.py) and subnets.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache, lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import ownership, quota, tenant
from gateway.identity.quota import Resource
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import clock, row
from gateway.kernel import noun as nouns
from gateway.kernel.access import Role, Subject, within
from gateway.kernel.command import AnyId, Command, Name, Retryable, Tag, Text, Versioned
from gateway.kernel.errors import Busy, Forbidden, InUse, NotFound
from gateway.kernel.noun import Noun, register
from gateway.kernel.prepared import Prepared, Rows
from gateway.kernel.row import Row, expect

LEAST_MTU, MOST_MTU = 1280, 9216
_TOLD_BLOCKERS = 20


class Network(Row, table=True):
    """A segment. ``deleting`` is set while a job takes it from its hosts; nothing new is allowed on it then."""

    __tablename__ = "network"

    tenant_id: int = row.ref("tenant.id")
    name: str = Field(max_length=255)
    description: str = Field(default="", max_length=1024)
    mtu: int = 1500
    shared: bool = Field(default=False, index=True)
    tags: list[str] = row.json(default_factory=list)
    deleting: bool = False

    __table_args__ = (sa.Index("ix_network_tenant_uid", "tenant_id", "uid"),)


class NetworkHost(Row, table=True):
    """That a network is, or is about to be, on a host. ``stale``: the host may not have what is recorded. While
    ``leaving_job_id`` is set, that job takes the network away. ``used_at`` moves with every port that settles there,
    which makes settling and leaving compare-and-set against each other.
    """

    __tablename__ = "network_host"

    network_id: int = row.ref("network.id", index=False)
    host_id: int = row.ref("host.id", ondelete="CASCADE")
    leaving_job_id: int | None = Field(default=None, sa_type=row.Key)
    stale: bool = True
    used_at: datetime

    __table_args__ = (sa.UniqueConstraint("network_id", "host_id"),)


def _scope(subject: Subject) -> sa.ColumnElement[bool]:
    if not subject.signed_in:
        return sa.false()
    return or_(within(col(Network.tenant_id), subject), col(Network.shared).is_(True))


NOUN = register(Noun("network", Network, _scope))

ORDERS: dict[str, Any] = {"NAME": col(Network.name), "UPDATED_AT": col(Network.updated_at)}

Mtu = Annotated[int, Field(ge=LEAST_MTU, le=MOST_MTU)]


class NetworkCreate(Retryable):
    """A new network."""

    name: Name = Field(description="Its name.")
    description: Text = Field(default="", description="What it is for.")
    tenant_id: AnyId | None = Field(default=None, description="Whose it is; your only tenant by default.")
    mtu: Mtu = Field(default=1500, description="Largest packet in bytes, 1280 to 9216.")
    tags: list[Tag] = Field(default_factory=list, max_length=50, description="Words to find it by.")
    shared: bool = Field(default=False, description="Whether every tenant may put ports on it; for operators.")


class NetworkUpdate(Versioned):
    """A change of a network; what is absent stays."""

    id: AnyId = Field(description="The network.")
    name: Name | None = Field(default=None, description="Its new name.")
    description: Text | None = Field(default=None, description="What it is for; null clears it.")
    mtu: Mtu | None = Field(default=None, description="Largest packet in bytes; machines see it at their next start.")
    tags: list[Tag] | None = Field(default=None, max_length=50, description="Words to find it by; null clears them.")
    shared: bool | None = Field(default=None, description="Whether every tenant may put ports on it; for operators.")


class NetworkDelete(Versioned):
    """The network to delete, with its subnets."""

    id: AnyId = Field(description="The network.")


class Filter(Command):
    """Which networks."""

    tenant_id: AnyId | None = Field(default=None, description="Of this tenant.")
    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    name_contains: str | None = Field(default=None, max_length=255, description="With this text in the name.")
    tag: str | None = Field(default=None, max_length=60, description="With this tag.")
    shared: bool | None = Field(default=None, description="Shared with every tenant, or not.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Network]:
    """The networks a subject may see. Raises NotFound for an id that is no tenant's."""
    found = select(Network).where(NOUN.scope(subject))
    if wanted.tenant_id is not None:
        found = found.where(Network.tenant_id == key_of(tenant.NOUN, wanted.tenant_id, "filter", "tenantId"))
    if wanted.name is not None:
        found = found.where(Network.name == wanted.name)
    if wanted.name_contains is not None:
        found = found.where(col(Network.name).icontains(wanted.name_contains, autoescape=True))
    if wanted.tag is not None:
        found = found.where(sa.cast(col(Network.tags), sa.Text).contains(f'"{wanted.tag}"', autoescape=True))
    if wanted.shared is not None:
        found = found.where(col(Network.shared) == wanted.shared)
    return found


def key_of(noun: Noun[Any], text: str, *path: str) -> sa.ScalarSelect[Any]:
    """The internal key of a TypeID as a subquery; null where nothing has it. Raises NotFound for another noun's id."""
    return sa.select(noun.table.id).where(noun.table.uid == noun.uid(text, *path)).scalar_subquery()


def create(session: Session, subject: Subject, command: NetworkCreate) -> Network:
    """Make a network. Nothing is asked of a host before a port needs it. Raises QuotaExceeded, Forbidden."""
    owner = ownership.tenant_for(session, subject, command.tenant_id, Role.MEMBER)
    if command.shared and not subject.admin:
        raise Forbidden("Only an operator of the cloud may share a network.", path=("shared",), required="ADMIN")
    quota.take(session, owner.id, {Resource.NETWORKS: 1})
    made = Network(
        **command.model_dump(exclude={"idempotency_key", "tenant_id", "tags"}),
        tenant_id=owner.id,
        tags=list(dict.fromkeys(command.tags)),
    )
    session.add(made)
    session.flush()
    return made


def update(session: Session, subject: Subject, command: NetworkUpdate) -> dict[str, Any]:
    """Change a network; a new MTU reaches its hosts by a job. Raises NotFound, Forbidden, StaleVersion, Busy, InUse."""
    found = owned(session, subject, command.id, "id")
    expect(found, command.expected_version)
    given = command.model_fields_set
    if command.shared is not None and command.shared != found.shared:
        if not subject.admin:
            raise Forbidden("Only an operator of the cloud may share a network.", path=("shared",), required="ADMIN")
        if found.shared:
            _check_only_own_ports(session, found)
        found.shared = command.shared
    if command.name is not None:
        found.name = command.name
    if "description" in given:
        found.description = command.description or ""
    if "tags" in given:
        found.tags = list(dict.fromkeys(command.tags or []))
    changed = command.mtu is not None and command.mtu != found.mtu
    if command.mtu is not None and changed:
        found.mtu = command.mtu
    session.flush()
    return {"network": found, "job": apply(session, subject, found) if changed else None}


def delete(session: Session, subject: Subject, command: NetworkDelete) -> dict[str, Any]:
    """Delete a network without ports: at once when it is on no host, else by a job that takes it away first. A job that
    is stuck, because a host refused, is taken up again. Raises NotFound, Forbidden, StaleVersion, Busy, InUse.
    """
    stuck = _stuck_deletion(session, subject, command)
    if stuck is not None:
        return stuck
    found = owned(session, subject, command.id, "id", lock=True)
    expect(found, command.expected_version)
    blockers = _ports(session, subject, found.id)
    if blockers is not None:
        raise InUse("Ports are on this network.", path=("id",), blockers=blockers)
    public = NOUN.public(found)
    if not hosts_of(session, found.id):
        forget(session, found)
        return {"id": public, "job": None}
    found.deleting = True
    session.flush()
    order = Order("network.delete", found.tenant_id, public, arguments={"network_id": found.id})
    return {"id": public, "network": found, "job": jobs.submit(session, subject, order)}


def _stuck_deletion(session: Session, subject: Subject, command: NetworkDelete) -> dict[str, Any] | None:
    """Go on with a deletion that a host refused; None when there is none."""
    found = NOUN.get(session, subject, command.id, "id")
    if not found.deleting or not subject.holds(Role.MEMBER, found.tenant_id):
        return None
    public = NOUN.public(found)
    stuck = jobs.stuck(session, "network.delete", public)
    if stuck is None:
        return None
    expect(found, command.expected_version)
    again = jobs.retry(session, subject, jobs.JobRetry(id=jobs.NOUN.public(stuck)))
    return {"id": public, "network": found, "job": again}


def forget(session: Session, network: Network) -> None:
    """Drop the rows of a network that is on no host, and give its quota back."""
    network_id, tenant_id = network.id, network.tenant_id
    subnet: Any = nouns.BY_PREFIX["subnet"].table
    for each in [*session.exec(select(subnet).where(subnet.network_id == network_id)), *hosts_of(session, network_id)]:
        session.delete(each)
    session.flush()
    session.delete(network)
    session.flush()
    quota.give(session, tenant_id, {Resource.NETWORKS: 1})


def owned(session: Session, subject: Subject, text: str, *path: str, lock: bool = False) -> Network:
    """A network that the subject may change; with ``lock`` nobody can put a port on it meanwhile. Raises NotFound,
    Forbidden (a shared network of others), Busy (it is being deleted).
    """
    found = NOUN.get(session, subject, text, *path)
    if not subject.holds(Role.MEMBER, found.tenant_id):
        raise Forbidden("The network is not yours to change.", path=path, required=Role.MEMBER.value)
    if lock:
        found = locked(session, found.id)
    refuse_leaving(session, found, *path)
    return found


def locked(session: Session, network_id: int, *, share: bool = False) -> Network:
    """The network's row, fresh and held until the end of the unit of work (with ``share`` together with others who
    only need it to stay). Raises NotFound.
    """
    found = _LOCKED[share].first(session, network=network_id)
    if found is None:
        raise NotFound("There is no such network.")
    return found


_LOCKED = {
    share: Rows(
        Network,
        lambda rows, share=share: rows.where(col(Network.id) == sa.bindparam("network")).with_for_update(read=share),  # type: ignore[misc]  # mypy: default of a lambda
        fresh=True,
    )
    for share in (False, True)
}


def refuse_leaving(session: Session, network: Network, *path: str) -> None:
    """Raises Busy when the network is being deleted, with the job that is at it or stuck with it."""
    if network.deleting:
        public = NOUN.public(network)
        at_work = jobs.active(session, public) or jobs.stuck(session, "network.delete", public)
        told = None if at_work is None else jobs.NOUN.public(at_work)
        raise Busy("The network is being deleted.", path=path, job_id=told)


def apply(session: Session, subject: Subject, network: Network) -> Job | None:
    """Have the network brought to what is recorded on each of its hosts; None when it is on none. A job that waits to
    do the same already is enough.
    """
    places = hosts_of(session, network.id)
    if not places:
        return None
    for place in places:
        place.stale = True
    session.flush()
    public = NOUN.public(network)
    arguments = {"network_id": network.id}
    order = Order("network.apply", network.tenant_id, public, arguments=arguments)
    return waiting(session, "network.apply", public, arguments) or jobs.submit(session, subject, order)


def waiting(session: Session, kind: str, resource: str, arguments: dict[str, Any]) -> Job | None:
    """A job of that kind with these arguments in the resource's queue that no worker has begun. Its row is held, so a
    worker can claim it only after this unit of work, and then sees what this changed.
    """
    statement = select(Job).where(
        Job.resource == resource, Job.kind == kind, Job.status == jobs.Status.QUEUED, Job.attempt == 0
    )
    found = session.exec(statement.with_for_update().order_by(col(Job.id)))
    return next((each for each in found if each.arguments == arguments), None)


# ------------------------------------------------------------------------------------------------ hosts


def hosts_of(session: Session, network_id: int) -> Sequence[NetworkHost]:
    """Where a network is realised."""
    statement = select(NetworkHost).where(NetworkHost.network_id == network_id).order_by(col(NetworkHost.host_id))
    return session.exec(statement).all()


def at_host(session: Session, network_id: int, host_id: int) -> NetworkHost | None:
    """The record of a network on a host."""
    return _AT_HOST.first(session, network=network_id, host=host_id)


_AT_HOST = Rows(
    NetworkHost,
    lambda rows: rows.where(
        col(NetworkHost.network_id) == sa.bindparam("network"), col(NetworkHost.host_id) == sa.bindparam("host")
    ),
)


def settle(session: Session, network_id: int, host_id: int, job_id: int | None = None) -> NetworkHost:
    """Record, before the host is asked, that a network is needed there; by ``job_id``, which takes back what it began
    itself, as a job that unwinds does.
    """
    found = at_host(session, network_id, host_id)
    if found is None:
        found = NetworkHost(network_id=network_id, host_id=host_id, used_at=clock.now(session))
        session.add(found)
    else:
        found.used_at = clock.now(session)
        leaving = found.leaving_job_id
        if leaving is not None and (leaving == job_id or not _at_work(session, leaving)):
            _stay(found)
    session.flush()
    return found


def needed_again(session: Session, network_id: int, host_id: int) -> bool:
    """:func:`settle` for the usual case, in which the network is there and nobody takes it away: whether that is so.
    The version is raised, so who looked before and would take it away looks again; it is not compared, so many ports
    may settle at the same time.
    """
    return bool(_NEEDED_AGAIN.run(session, network=network_id, host=host_id, now=clock.now(session)))


_NEEDED_AGAIN = Prepared(
    sa.update(NetworkHost)
    .where(
        col(NetworkHost.network_id) == sa.bindparam("network"),
        col(NetworkHost.host_id) == sa.bindparam("host"),
        col(NetworkHost.leaving_job_id).is_(None),
    )
    .values(used_at=sa.bindparam("now"), updated_at=sa.bindparam("now"), version=col(NetworkHost.version) + 1)
)


def depart(session: Session, network_id: int, host_id: int, job_id: int) -> bool:
    """Record, before the host is asked, that this job takes a network away; False when it is not there, another job is
    at it, or a port needs it there.
    """
    found = at_host(session, network_id, host_id)
    if found is None:
        return False
    if found.leaving_job_id not in (None, job_id) and _at_work(session, found.leaving_job_id):
        return False
    needed = _needed(session, network_id, host_id)
    if not needed:
        found.leaving_job_id = job_id
    elif found.leaving_job_id is not None:
        _stay(found)  # this job, or one that is over, had begun to take it away
    session.flush()
    return not needed


def departed(session: Session, network_id: int, host_id: int, job_id: int, *, gone: bool = True) -> None:
    """Record that the job took the network away (or, with ``gone`` False, could not). One that a port needs there by
    now may settle again.
    """
    found = at_host(session, network_id, host_id)
    if found is None or found.leaving_job_id != job_id:
        return
    if gone and not _needed(session, network_id, host_id):
        session.delete(found)
    else:
        _stay(found)
    session.flush()


def _stay(place: NetworkHost) -> None:
    place.leaving_job_id = None
    place.stale = True


def _at_work(session: Session, job_id: int | None) -> bool:
    job = session.get(Job, job_id)
    return job is not None and job.status in jobs.LIVE


def _needed(session: Session, network_id: int, host_id: int) -> bool:
    port: Any = nouns.BY_PREFIX["port"].table
    here = select(port.id).where(port.network_id == network_id, port.host_id == host_id)
    return session.exec(here.limit(1)).first() is not None


def colliding_hosts(session: Session, network_ids: Iterable[int]) -> frozenset[int]:
    """Keys of hosts that carry another network with a range overlapping one of these networks'. Two ranges overlap
    when one is in the other, so an index finds them: ranges that begin inside, and the exact ranges around.
    """
    wanted = sorted(set(network_ids))
    subnet: Any = nouns.BY_PREFIX["subnet"].table
    ranges = [ip_network(text) for text in session.exec(select(subnet.cidr).where(subnet.network_id.in_(wanted)))]
    if not ranges:
        return frozenset()
    if len(wanted) == 1:
        return frozenset(
            key
            for each in ranges
            for (key,) in _overlapping(each.prefixlen).all(session, **_spots(each), own=wanted[0])
        )
    overlaps = []
    for each in ranges:
        first, last = (place_of(str(each), int(end)) for end in (each[0], each[-1]))
        around = [str(each.supernet(new_prefix=length)) for length in range(each.prefixlen + 1)]
        overlaps += [subnet.place.between(first, last), subnet.cidr.in_(around)]
    statement = (
        select(NetworkHost.host_id)
        .join(subnet, subnet.network_id == NetworkHost.network_id)
        .where(or_(*overlaps), col(NetworkHost.network_id).not_in(wanted))
        .distinct()
    )
    return frozenset(session.exec(statement))


@cache
def _overlapping(length: int) -> Prepared:
    """Hosts with a network but ``:own`` that has a range overlapping one of this length."""
    subnet: Any = nouns.BY_PREFIX["subnet"].table
    around: list[Any] = [sa.bindparam(f"around_{number}") for number in range(length + 1)]
    inside = subnet.place.between(sa.bindparam("first"), sa.bindparam("last"))
    return Prepared(
        sa.select(col(NetworkHost.host_id))
        .join(subnet, subnet.network_id == NetworkHost.network_id)
        .where(or_(inside, subnet.cidr.in_(around)), col(NetworkHost.network_id) != sa.bindparam("own"))
        .distinct()
    )


@lru_cache(maxsize=4096)
def _spots(wanted: IPv4Network | IPv6Network) -> dict[str, str]:
    """Where ranges begin that lie inside this one, and which lie around it."""
    first, last = (place_of(str(wanted), int(end)) for end in (wanted[0], wanted[-1]))
    around = {f"around_{number}": str(wanted.supernet(new_prefix=number)) for number in range(wanted.prefixlen + 1)}
    return {"first": first, "last": last, **around}


def place_of(cidr: str, address: int) -> str:
    """A text by which addresses of one family sort: the family and 128 bits."""
    return f"{ip_network(cidr).version}{address:032x}"


# ------------------------------------------------------------------------------------------------ parts


def _ports(session: Session, subject: Subject, network_id: int) -> list[str] | None:
    """The ports on a network that the subject may see, the first twenty; None when there are none at all."""
    noun = nouns.BY_PREFIX["port"]
    here: Any = noun.table.network_id == network_id
    if session.exec(select(noun.table.id).where(here).limit(1)).first() is None:
        return None
    rows = session.exec(
        select(noun.table).where(here, noun.scope(subject)).order_by(noun.table.id).limit(_TOLD_BLOCKERS)
    )
    return [noun.public(each) for each in rows]


def _check_only_own_ports(session: Session, network: Network) -> None:
    port: Any = nouns.BY_PREFIX["port"].table
    other = select(port).where(port.network_id == network.id, port.tenant_id != network.tenant_id)
    rows = session.exec(other.order_by(port.id).limit(_TOLD_BLOCKERS)).all()
    if rows:
        told = [nouns.public(each) for each in rows]
        raise InUse("Other tenants have ports on this network.", path=("shared",), blockers=told)
