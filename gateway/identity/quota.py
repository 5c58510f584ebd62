"""Quotas: how much of each resource a tenant may have, and exactly how much it has.

``take`` and ``give`` change the counts in the same transaction as the object they count, by one conditional update, so
parallel creates can never pass the limit and a failed create never keeps its share. -1 means no limit.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum
from functools import cache
from typing import Any

import sqlalchemy as sa
from pydantic import Field
from sqlmodel import Session, col, select

from gateway.kernel import noun, row
from gateway.kernel.access import Subject, within
from gateway.kernel.command import AnyId, Command, Retryable
from gateway.kernel.errors import Invalid, NotFound, QuotaExceeded
from gateway.kernel.noun import Noun, register
from gateway.kernel.prepared import Prepared
from gateway.kernel.row import Row


class Resource(StrEnum):
    """What is limited."""

    __graphql_name__ = "QuotaResource"

    SERVERS = "SERVERS"
    """Servers that are not in ERROR."""
    VCPUS = "VCPUS"
    """Virtual processors of those servers."""
    RAM_MIB = "RAM_MIB"
    """Memory of those servers, in MiB."""
    VOLUMES = "VOLUMES"
    """Volumes."""
    VOLUME_GIB = "VOLUME_GIB"
    """Size of all volumes and of all snapshots, in GiB."""
    SNAPSHOTS = "SNAPSHOTS"
    """Volume snapshots."""
    NETWORKS = "NETWORKS"
    """Networks."""
    PORTS = "PORTS"
    """Ports on networks."""
    SECURITY_GROUPS = "SECURITY_GROUPS"
    """Security groups."""
    IMAGES = "IMAGES"
    """Images owned by the tenant."""
    IMAGE_GIB = "IMAGE_GIB"
    """Size of those images as uploaded, in GiB, rounded up for each image."""
    SERVER_GROUPS = "SERVER_GROUPS"
    """Server groups."""
    SERVER_SNAPSHOTS = "SERVER_SNAPSHOTS"
    """Snapshots of whole servers."""


DEFAULTS: Mapping[Resource, int] = {
    Resource.SERVERS: 20,
    Resource.VCPUS: 40,
    Resource.RAM_MIB: 65536,
    Resource.VOLUMES: 40,
    Resource.VOLUME_GIB: 2000,
    Resource.SNAPSHOTS: 40,
    Resource.NETWORKS: 20,
    Resource.PORTS: 200,
    Resource.SECURITY_GROUPS: 20,
    Resource.IMAGES: 40,
    Resource.IMAGE_GIB: 400,
    Resource.SERVER_GROUPS: 20,
    Resource.SERVER_SNAPSHOTS: 40,
}


class Quota(Row, table=True):
    """One tenant's limit and use of one resource."""

    __tablename__ = "quota"

    tenant_id: int = row.ref("tenant.id")
    resource: Resource = row.enum(Resource)
    limit: int = row.big()
    used: int = row.big(default=0)

    __table_args__ = (sa.UniqueConstraint("tenant_id", "resource"), sa.CheckConstraint("used >= 0", "used"))


NOUN = register(Noun("quota", Quota, lambda subject: within(col(Quota.tenant_id), subject)))


class QuotaLimit(Command):
    """A limit of one resource."""

    resource: Resource = Field(description="What is limited.")
    limit: int = Field(ge=-1, le=2**31 - 1, description="How much the tenant may have; -1 for any amount.")


class QuotaSet(Retryable):
    """New limits of a tenant; resources that are not named keep theirs."""

    tenant_id: AnyId = Field(description="The tenant.")
    limits: list[QuotaLimit] = Field(
        min_length=1, max_length=len(Resource), description="The new limits, each resource at most once."
    )


def open_account(session: Session, tenant_id: int) -> None:
    """Give a tenant the default limit of every resource that it has none of."""
    open_already = left(session, tenant_id)
    session.add_all(
        Quota(tenant_id=tenant_id, resource=each, limit=limit)
        for each, limit in DEFAULTS.items()
        if each not in open_already
    )
    session.flush()


def change(session: Session, subject: Subject, command: QuotaSet) -> list[Quota]:
    """Set limits, also below what is used: nothing is taken away, but nothing more is given.

    Raises NotFound, Invalid.
    """
    tenant = noun.BY_PREFIX["tenant"].get(session, subject, command.tenant_id, "tenantId")
    wanted = {each.resource: each.limit for each in command.limits}
    if len(wanted) < len(command.limits):
        raise Invalid("A resource is named twice.", path=("limits",))
    open_account(session, tenant.id)
    quotas = left(session, tenant.id)
    for resource, limit in wanted.items():
        quotas[resource].limit = limit
    session.flush()
    return sorted(quotas.values(), key=lambda each: each.id)


def take(session: Session, tenant_id: int, amounts: Mapping[Resource, int]) -> None:
    """Count amounts in. Raises QuotaExceeded, of the first by name that does not fit, or NotFound for no such tenant,
    and leaves the transaction to be rolled back.
    """
    rest = _count(session, tenant_id, amounts, limited=True)
    if rest:
        _open_late(session, tenant_id, rest)
        # Again, for what it waited for may have made room: a statement goes by what was there when it began.
        rest = _count(session, tenant_id, rest, limited=True)
    if rest:
        first = min(rest)
        raise _exceeded(session, tenant_id, first, rest[first])


def give(session: Session, tenant_id: int, amounts: Mapping[Resource, int]) -> None:
    """Count amounts out."""
    _count(session, tenant_id, {resource: -amount for resource, amount in amounts.items()}, limited=False)


def _count(session: Session, tenant_id: int, amounts: Mapping[Resource, int], *, limited: bool) -> dict[Resource, int]:
    """Add amounts to what is used, all by one statement; answers with those that it could not add."""
    wanted = {resource: amount for resource, amount in amounts.items() if amount}
    if not wanted:
        return {}
    given: dict[str, Any] = {"of": tenant_id}
    for at, (resource, amount) in enumerate(wanted.items()):
        given |= {f"what_{at}": resource, f"more_{at}": amount}
    counted = {resource for (resource,) in _adding(len(wanted), limited=limited).all(session, **given)}
    return {resource: amount for resource, amount in wanted.items() if resource not in counted}


_TABLE: sa.Table = Quota.__table__  # type: ignore[attr-defined]  # every table model has one


@cache
def _adding(count: int, *, limited: bool) -> Prepared:
    """Adds ``:more_0`` to the use of ``:what_0`` and so on, where ``limited`` only those for which there is room, and
    finds which it added. Several rows are locked in the order of their keys, in which the unit of work writes them too,
    so that two who want the same rows never wait for each other in a circle: an UPDATE alone takes them as it comes
    across them.
    """
    named = [sa.bindparam(f"what_{at}", type_=_TABLE.c.resource.type) for at in range(count)]
    more = [sa.bindparam(f"more_{at}", type_=sa.BigInteger) for at in range(count)]
    after = _TABLE.c.used + sa.case(*((_TABLE.c.resource == one, much) for one, much in zip(named, more, strict=True)))
    row = _TABLE.alias("wanted") if count > 1 else _TABLE
    which = sa.and_(row.c.tenant_id == sa.bindparam("of"), row.c.resource.in_(named))
    if count > 1:
        locked = sa.select(row.c.id).where(which).order_by(row.c.id).with_for_update(key_share=True)
        which = _TABLE.c.id.in_(locked)
    if limited:
        which = sa.and_(which, sa.or_(_TABLE.c.limit < 0, after <= _TABLE.c.limit))
    return Prepared(sa.update(_TABLE).where(which).values(used=after).returning(_TABLE.c.resource))


def _open_late(session: Session, tenant_id: int, wanted: Collection[Resource]) -> None:
    """Open the account of a tenant that is older than the quota of one of these resources."""
    if left(session, tenant_id).keys() >= set(wanted):
        return
    owner: Any = noun.BY_PREFIX["tenant"].table
    alive = session.exec(select(owner.id).where(owner.id == tenant_id, owner.deleted_at.is_(None))).first()
    if alive is not None:
        open_account(session, tenant_id)


def left(session: Session, tenant_id: int) -> dict[Resource, Quota]:
    """A tenant's quotas by resource."""
    return {each.resource: each for each in session.exec(select(Quota).where(Quota.tenant_id == tenant_id))}


def _exceeded(session: Session, tenant_id: int, resource: Resource, requested: int) -> QuotaExceeded | NotFound:
    found = session.exec(select(Quota).where(Quota.tenant_id == tenant_id, Quota.resource == resource)).first()
    if found is None:
        return NotFound("There is no such tenant.", path=("tenantId",))
    return QuotaExceeded(
        f"The tenant may have {found.limit} {resource.value}, has {found.used}, and this asks for {requested} more.",
        resource=resource.value,
        limit=found.limit,
        used=found.used,
        requested=requested,
    )
