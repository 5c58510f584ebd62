"""Giving a server the size of another flavor, with a way back: serverResize, then confirm or revert.

A resize is a record of its own. From the moment it is asked for until it is confirmed, reverted or has failed, the
tenant's quota and the hosts count the larger of both sizes, so that either can be had for sure: what the record holds
beside the server's own row follows from the two (:func:`held_of_quota`, :func:`held_of_hosts`) and is kept nowhere.
Processors and memory change while the machine is off. The root disk grows with the confirmation, when nobody can go
back any more, since a disk that grew never shrinks: so reverting loses nothing that was written meanwhile. What is
metered is what the server has, from the moment it has it. What happens on hosts is in workers/compute/resizing.py.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field as Option
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.compute import flavor as flavors
from gateway.compute import host as hosts
from gateway.compute import placing, relocation
from gateway.compute import server as servers
from gateway.compute.flavor import Flavor
from gateway.compute.host import Amount
from gateway.compute.placement import Decision, Request
from gateway.compute.server import Server
from gateway.compute.server_state import Action, Phase, ServerStatus
from gateway.identity import quota
from gateway.identity.quota import Resource
from gateway.image.image import Image
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import clock, row
from gateway.kernel.access import CLOUD, Subject, within
from gateway.kernel.command import AnyId, Command, Retryable
from gateway.kernel.errors import Invalid, InvalidState, NoValidHost
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row
from gateway.metering import usage
from gateway.metering.usage import Metered
from gateway.volume.volume import VolumeStatus

GRACE_S = 60
"""Seconds that a guest may take to shut down, unless somebody says otherwise."""


class ResizeStatus(StrEnum):
    """Where a resize stands."""

    RUNNING = "RUNNING"
    """A job is at it."""
    UNCONFIRMED = "UNCONFIRMED"
    """The server has its new size; it waits for serverResizeConfirm or serverResizeRevert."""
    CONFIRMING = "CONFIRMING"
    """The new size is being made to stay."""
    REVERTING = "REVERTING"
    """The old size is coming back."""
    CONFIRMED = "CONFIRMED"
    """The server keeps its new size."""
    REVERTED = "REVERTED"
    """The server has its old size again."""
    FAILED = "FAILED"
    """It did not come about, and the server is as it was; `statusReason` says why."""


class Resize(Row, table=True):
    """One change of a server's size. ``host_id`` is the other host, when it goes to one: where it is on its way to, and
    once it is there (``moved``) where it was. ``claimed``: the larger of both sizes is counted on the hosts.
    """

    __tablename__ = "resize"

    tenant_id: int = row.ref("tenant.id")
    server_id: int = row.ref("server.id")
    status: ResizeStatus = row.enum(ResizeStatus, default=ResizeStatus.RUNNING)
    status_reason: str | None = Field(default=None, max_length=500)
    old_flavor_id: int = row.ref("flavor.id", index=False)
    new_flavor_id: int = row.ref("flavor.id", index=False)
    old_vcpus: int
    old_ram_mib: int
    old_disk_gib: int
    new_vcpus: int
    new_ram_mib: int
    new_disk_gib: int
    volumes_gib: int = 0
    host_id: int | None = row.ref("host.id", null=True)
    claimed: bool = False
    moved: bool = False
    confirm_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def old(self) -> Amount:
        """The size before."""
        return Amount(self.old_vcpus, self.old_ram_mib, self.old_disk_gib)

    @property
    def new(self) -> Amount:
        """The size after."""
        return Amount(self.new_vcpus, self.new_ram_mib, self.new_disk_gib)

    @property
    def larger(self) -> Amount:
        """The larger of both, by resource."""
        return Amount(
            max(self.old_vcpus, self.new_vcpus),
            max(self.old_ram_mib, self.new_ram_mib),
            max(self.old_disk_gib, self.new_disk_gib),
        )


NOUN = register(Noun("resize", Resize, lambda subject: within(col(Resize.tenant_id), subject)))

ORDERS: dict[str, Any] = {"STATUS": col(Resize.status), "UPDATED_AT": col(Resize.updated_at)}


class Filter(Command):
    """Which resizes."""

    status: list[ResizeStatus] | None = Option(default=None, description="In one of these states.")
    server_id: AnyId | None = Option(default=None, description="Of this server.")


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Resize]:
    """The resizes a subject may see."""
    found = select(Resize).where(NOUN.scope(subject))
    if wanted.status is not None:
        found = found.where(col(Resize.status).in_(wanted.status))
    if wanted.server_id is not None:
        of = select(Server.id).where(Server.uid == servers.NOUN.uid(wanted.server_id, "filter", "serverId"))
        found = found.where(col(Resize.server_id).in_(of))
    return found


# ------------------------------------------------------------------------------------------------ commands


class ServerResize(Retryable):
    """A server and the size it shall have."""

    server_id: AnyId = Option(description="The server; running or stopped.")
    flavor_id: AnyId = Option(description="Its new size. Its root disk may grow and never shrinks.")
    graceful_timeout_s: int = Option(
        default=GRACE_S, ge=0, le=3600,
        description="Seconds a running guest may take to shut down before it is powered off; 0 powers off at once.",
    )  # fmt: skip


class ServerResizeConfirm(Retryable):
    """The server whose new size is to stay."""

    server_id: AnyId = Option(description="The server.")
    graceful_timeout_s: int = Option(
        default=GRACE_S, ge=0, le=3600,
        description="Its root disk grows as it runs. Only where its host cannot do that it is shut down for a moment: "
        "seconds its guest may take before it is powered off; 0 powers off at once.",
    )  # fmt: skip


class ServerResizeRevert(Retryable):
    """The server that is to have its old size again."""

    server_id: AnyId = Option(description="The server. What was written on its disks meanwhile stays.")
    graceful_timeout_s: int = Option(
        default=GRACE_S, ge=0, le=3600,
        description="Seconds a running guest may take to shut down before it is powered off; 0 powers off at once.",
    )  # fmt: skip


def resize(session: Session, subject: Subject, command: ServerResize) -> dict[str, Any]:
    """Order another size. Raises NotFound, Forbidden, InvalidState, InUse, Invalid, QuotaExceeded."""
    begun = _begin(session, subject, command)
    return _ordered(session, subject, begun, "server.resize", {"graceful_timeout_s": command.graceful_timeout_s})


def confirm(session: Session, subject: Subject, command: ServerResizeConfirm) -> dict[str, Any]:
    """Order that the new size stays. Raises NotFound, Forbidden, InvalidState."""
    found = _unconfirmed(session, subject, command.server_id, ResizeStatus.CONFIRMING)
    return _ordered(session, subject, found, "resize.confirm", {"graceful_timeout_s": command.graceful_timeout_s})


def revert(session: Session, subject: Subject, command: ServerResizeRevert) -> dict[str, Any]:
    """Order the old size. Raises NotFound, Forbidden, InvalidState."""
    found = _unconfirmed(session, subject, command.server_id, ResizeStatus.REVERTING)
    return _ordered(session, subject, found, "resize.revert", {"graceful_timeout_s": command.graceful_timeout_s})


def overdue(session: Session) -> list[int]:
    """The keys of resizes that nobody confirmed or reverted in time."""
    waiting = select(Resize.id).where(
        Resize.status == ResizeStatus.UNCONFIRMED, col(Resize.confirm_at) <= clock.now(session)
    )
    return list(session.exec(waiting.order_by(col(Resize.id)).limit(100)))


def confirm_overdue(session: Session, resize_id: int) -> Job | None:
    """Order, in the cloud's own name, that a new size stays which is waiting still."""
    found = session.get(Resize, resize_id)
    server = session.get(Server, found.server_id) if found is not None else None
    if found is None or server is None or found.status is not ResizeStatus.UNCONFIRMED:
        return None
    if server.phase is not Phase.VERIFY_RESIZE:
        return None
    found.status = ResizeStatus.CONFIRMING
    job: Job = _ordered(session, CLOUD, found, "resize.confirm", {"graceful_timeout_s": GRACE_S})["job"]
    return job


def _begin(session: Session, subject: Subject, command: ServerResize) -> Resize:
    server = relocation.standing(session, subject, command.server_id, Action.RESIZE)
    flavor = flavors.NOUN.get(session, subject, command.flavor_id, "flavorId")
    disk_gib = _checked_disk(session, server, flavor)
    made = Resize(
        tenant_id=server.tenant_id,
        server_id=server.id,
        old_flavor_id=server.flavor_id,
        new_flavor_id=flavor.id,
        old_vcpus=server.vcpus,
        old_ram_mib=server.ram_mib,
        old_disk_gib=server.disk_gib,
        new_vcpus=flavor.vcpus,
        new_ram_mib=flavor.ram_mib,
        new_disk_gib=disk_gib,
    )
    quota.take(session, server.tenant_id, held_of_quota(made, server))
    session.add(made)
    session.flush()
    server.resize_id = made.id
    return made


def _checked_disk(session: Session, server: Server, flavor: Flavor) -> int:
    """The size that the server's root disk will have. Raises Invalid."""
    if flavor.deleted_at is not None:
        raise Invalid("This flavor is no longer offered.", path=("flavorId",))
    if flavor.id == server.flavor_id:
        raise Invalid("The server has this flavor already.", path=("flavorId",))
    image = session.get(Image, server.image_id) if server.image_id is not None else None
    if image is not None and flavor.ram_mib < image.min_ram_mib:
        needed = f"The image needs {image.min_ram_mib} MiB of memory; the flavor has {flavor.ram_mib}."
        raise Invalid(needed, path=("flavorId",))
    if server.root_uid is None:
        return server.disk_gib
    if flavor.disk_gib < server.disk_gib:
        told = f"The server's root disk has {server.disk_gib} GiB and never shrinks; the flavor has {flavor.disk_gib}."
        raise Invalid(told, path=("flavorId",))
    return flavor.disk_gib


def _unconfirmed(session: Session, subject: Subject, public_id: str, to: ResizeStatus) -> Resize:
    server = servers.reach(session, subject, public_id, "serverId")
    found = session.get(Resize, server.resize_id) if server.resize_id is not None else None
    if found is None or found.status is not ResizeStatus.UNCONFIRMED or server.phase is not Phase.VERIFY_RESIZE:
        current = server.status.value if found is None else found.status.value
        raise InvalidState(
            "The server has no resize that waits to be confirmed.", path=("serverId",), current=current,
            allowed=[ResizeStatus.UNCONFIRMED.value],
        )  # fmt: skip
    found.status = to
    return found


def _ordered(session: Session, subject: Subject, found: Resize, kind: str, arguments: dict[str, Any]) -> dict[str, Any]:
    session.flush()
    server = session.get_one(Server, found.server_id)
    arguments = {"server_id": server.id, "resize_id": found.id, **arguments}
    order = Order(kind, found.tenant_id, servers.NOUN.public(server), arguments=arguments)
    return {"resize": found, "server": server, "job": jobs.submit(session, subject, order)}


# ------------------------------------------------------------------------------------------------ what is held


def held_of_quota(found: Resize, server: Server) -> dict[Resource, int]:
    """What is counted of the tenant's quota beside what the server's row has."""
    return {
        Resource.VCPUS: found.larger.vcpus - server.vcpus,
        Resource.RAM_MIB: found.larger.ram_mib - server.ram_mib,
    }


def held_of_hosts(found: Resize, server: Server) -> list[tuple[int, Amount]]:
    """What is counted on hosts (by key) beside what the rows of the server and its volumes have there."""
    if not found.claimed or server.host_id is None:
        return []
    whole = found.larger
    beside = Amount(whole.vcpus - server.vcpus, whole.ram_mib - server.ram_mib, whole.disk_gib - server.disk_gib)
    if found.host_id is None:
        return [(server.host_id, beside)]
    there = found.old if found.moved else whole
    elsewhere = Amount(there.vcpus, there.ram_mib, there.disk_gib + found.volumes_gib)
    return [(found.host_id, elsewhere), *([(server.host_id, beside)] if found.moved else [])]


def _let_go(session: Session, server: Server, found: Resize) -> None:
    """Give back what is held beside the server's row as it is now."""
    quota.give(session, server.tenant_id, held_of_quota(found, server))
    for host_id, amount in held_of_hosts(found, server):
        hosts.release(session, host_id, amount)
    found.claimed = False
    found.host_id = None


# ------------------------------------------------------------------------------------------------ placement


def requests(
    session: Session, server: Server, found: Resize, avoid: frozenset[int] = frozenset()
) -> list[tuple[Request, Amount]]:
    """What to ask placement for, in this order, and what to claim: more room on the server's own host; then, if it has
    a pool, room for the whole server on another host.
    """
    if server.host_id is None:
        raise AssertionError("a server that stands has a host")
    whole = found.larger
    more = Amount(whole.vcpus - server.vcpus, whole.ram_mib - server.ram_mib, whole.disk_gib - server.disk_gib)
    here = Request(more.vcpus, more.ram_mib, more.disk_gib, only=frozenset({server.host_id}), avoid=avoid)
    asked = [(here, more)]
    if relocation.pool_of(session, server.host_id):
        volumes_gib = sum(each.size_gib for each in relocation.carried(session, server))
        amount = Amount(whole.vcpus, whole.ram_mib, whole.disk_gib + volumes_gib)
        asked.append((relocation.request(session, server, amount, avoid), amount))
    return asked


def place(session: Session, server: Server, found: Resize, avoid: frozenset[int]) -> int | None:
    """Claim what the resize needs beside what the server has; the host, None when others were faster again and again.
    Raises NoValidHost, and InvalidState when a volume keeps the server from leaving its host.
    """
    refused: NoValidHost | None = None
    for wanted, amount in requests(session, server, found, avoid):
        try:
            host = placing.place(session, wanted, amount, "server's new size")
        except NoValidHost as refusal:
            refused = refusal
            continue
        if host is None:
            return None
        if host.id != server.host_id:
            _hold_volumes(session, server, found)
            found.host_id = host.id
        found.claimed = True
        return host.id
    raise refused or AssertionError("the server's own host is always asked")


def _hold_volumes(session: Session, server: Server, found: Resize) -> None:
    """The volumes that go along stay as they are until the resize is over."""
    held = relocation.carried(session, server)
    for volume in held:
        if volume.status not in (VolumeStatus.IN_USE, VolumeStatus.HELD):
            raise InvalidState(
                f"A volume of the server is {volume.status.value}.", current=volume.status.value,
                allowed=[VolumeStatus.IN_USE.value],
            )  # fmt: skip
        volume.status = VolumeStatus.HELD
    found.volumes_gib = sum(each.size_gib for each in held)


def unplace(session: Session, server: Server, found: Resize) -> None:
    """Give back what :func:`place` claimed. Twice equals once."""
    for host_id, amount in held_of_hosts(found, server):
        hosts.release(session, host_id, amount)
    found.claimed, found.host_id, found.volumes_gib = False, None, 0
    _free_volumes(session, server)


def _free_volumes(session: Session, server: Server) -> None:
    for volume in relocation.carried(session, server):
        if volume.status is VolumeStatus.HELD:
            volume.status = VolumeStatus.IN_USE


@dataclass(frozen=True, slots=True)
class Plan:
    """What serverResize would do. ``quota`` maps what it touches to (limit, used meanwhile); ``moves``: the server
    would go to another host; ``price_micros`` is what an hour costs afterwards and ``delta_micros`` by how much that is
    more than now, None when a flavor has no price.
    """

    decision: Decision
    quota: dict[Resource, tuple[int, int]]
    moves: bool
    interrupts: bool
    price_micros: int | None
    delta_micros: int | None


def plan(session: Session, subject: Subject, command: ServerResize) -> Plan:
    """Begin, look at what came of it, and leave it to the caller to roll back."""
    found = _begin(session, subject, command)
    server = session.get_one(Server, found.server_id)
    decisions = [placing.explain(session, wanted) for wanted, _ in requests(session, server, found)]
    fitting = next((at for at, each in enumerate(decisions) if each.chosen is not None), None)
    held = quota.left(session, server.tenant_id)
    for each in held.values():
        session.refresh(each)
    touched = {each: (held[each].limit, held[each].used) for each in held_of_quota(found, server)}
    before = session.get_one(Flavor, found.old_flavor_id).price_micros
    after = session.get_one(Flavor, found.new_flavor_id).price_micros
    return Plan(
        decision=decisions[fitting if fitting is not None else -1],
        quota=touched,
        moves=bool(fitting),
        interrupts=server.status is ServerStatus.ACTIVE,
        price_micros=after,
        delta_micros=None if before is None or after is None else after - before,
    )


# ------------------------------------------------------------------------------------------------ facts


def arrived(session: Session, server: Server, found: Resize, host_id: int) -> None:
    """The machine is on that host; the room that is held beside it is on the other."""
    if server.host_id == host_id:
        return
    found.host_id, found.moved = server.host_id, not found.moved
    relocation.moved(session, server, host_id)


def sized(server: Server, flavor_id: int, amount: Amount) -> None:
    """The machine has these processors and this memory; what its disk has does not change here."""
    server.flavor_id, server.vcpus, server.ram_mib = flavor_id, amount.vcpus, amount.ram_mib


def verify(session: Session, server: Server, found: Resize, confirm_at: datetime | None) -> None:
    """The new size is there, and waits to be confirmed."""
    found.status = ResizeStatus.UNCONFIRMED
    found.confirm_at = confirm_at
    servers.verify_resize(server)
    session.flush()


def end(session: Session, server: Server, found: Resize, status: ResizeStatus, why: str | None = None) -> None:
    """The resize is over: what was held beside the server's own size is given back, and it is like any other."""
    if status is ResizeStatus.CONFIRMED and server.disk_gib != found.new_disk_gib:
        server.disk_gib = found.new_disk_gib
        usage.opened(session, server.tenant_id, Metered.DISK_GIB, server.uid, server.disk_gib)
    _let_go(session, server, found)
    _free_volumes(session, server)
    found.status = status
    found.status_reason = why[:500] if why is not None else None
    found.finished_at = clock.now(session)
    server.resize_id = None
    if server.phase is Phase.VERIFY_RESIZE:
        servers.ready(server)


def of_server(session: Session, server_id: int) -> list[Resize]:
    """All resizes of a server."""
    return list(session.exec(select(Resize).where(Resize.server_id == server_id)))


def forget(session: Session, server: Server) -> None:
    """Drop the records of a server that goes, and give back what they hold."""
    for each in of_server(session, server.id):
        if each.id == server.resize_id:
            _let_go(session, server, each)
        session.delete(each)
    session.flush()
