"""Quotas: how much of each resource a tenant may have, and exactly how much it has.

``take`` and ``give`` change the count in the same transaction as the object they count, by one conditional update, so
parallel creates can never pass the limit and a failed create never keeps its share. -1 means no limit.
"""

from collections.abc import Mapping
from enum import StrEnum
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
    """Count amounts in. Raises QuotaExceeded and leaves the transaction to be rolled back. Amounts are taken in one
    fixed order, so two takers never wait for each other in a circle.
    """
    for resource in sorted(amounts):
        amount = amounts[resource]
        if amount == 0:
            continue
        if not _taken(session, tenant_id, resource, amount) and not (
            _opened(session, tenant_id, resource) and _taken(session, tenant_id, resource, amount)
        ):
            raise _exceeded(session, tenant_id, resource, amount)


_TABLE: sa.Table = Quota.__table__  # type: ignore[attr-defined]  # every table model has one
_MORE: sa.ColumnElement[int] = sa.bindparam("more", type_=sa.BigInteger)
_TAKE = Prepared(
    sa.update(_TABLE)
    .where(
        _TABLE.c.tenant_id == sa.bindparam("of"),
        _TABLE.c.resource == sa.bindparam("what"),
        sa.or_(_TABLE.c.limit < 0, _TABLE.c.used + _MORE <= _TABLE.c.limit),
    )
    .values(used=_TABLE.c.used + _MORE)
)


def _taken(session: Session, tenant_id: int, resource: Resource, amount: int) -> bool:
    return bool(_TAKE.run(session, of=tenant_id, what=resource, more=amount))


def _opened(session: Session, tenant_id: int, resource: Resource) -> bool:
    """Open the account of a tenant that is older than the resource's quota; whether that was it."""
    owner: Any = noun.BY_PREFIX["tenant"].table
    if resource in left(session, tenant_id):
        return False
    alive = session.exec(select(owner.id).where(owner.id == tenant_id, owner.deleted_at.is_(None))).first()
    if alive is not None:
        open_account(session, tenant_id)
    return alive is not None


def give(session: Session, tenant_id: int, amounts: Mapping[Resource, int]) -> None:
    """Count amounts out."""
    for resource in sorted(amounts):
        if amounts[resource]:
            session.execute(
                sa.update(Quota)
                .where(col(Quota.tenant_id) == tenant_id, col(Quota.resource) == resource)
                .values(used=col(Quota.used) - amounts[resource])
                .execution_options(synchronize_session=False)
            )


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
