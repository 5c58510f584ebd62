"""Memberships: who holds which role in which tenant. At most one role a user and tenant; gone when either goes.

Everybody in a tenant sees all its memberships. Not here: giving and taking them (:mod:`gateway.identity.member`).
"""

from collections.abc import Collection

import sqlalchemy as sa
from sqlmodel import Session, col, select

from gateway.kernel import row
from gateway.kernel.access import Role, Subject, within
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row


class Membership(Row, table=True):
    """One user's role in one tenant."""

    __tablename__ = "membership"

    user_id: int = row.ref("user_account.id")
    tenant_id: int = row.ref("tenant.id")
    role: Role = row.enum(Role)

    __table_args__ = (sa.UniqueConstraint("user_id", "tenant_id"),)


NOUN = register(Noun("membership", Membership, lambda subject: within(col(Membership.tenant_id), subject)))


def roles_of(session: Session, user_id: int) -> dict[int, Role]:
    """A user's role by tenant key."""
    statement = select(Membership.tenant_id, Membership.role).where(Membership.user_id == user_id)
    return {tenant_id: Role(held) for tenant_id, held in session.exec(statement)}


def roles_of_each(session: Session, user_ids: Collection[int]) -> dict[int, dict[int, Role]]:
    """As :func:`roles_of`, of many by one statement."""
    statement = select(Membership.user_id, Membership.tenant_id, Membership.role)
    found: dict[int, dict[int, Role]] = {each: {} for each in user_ids}
    for user_id, tenant_id, held in session.exec(statement.where(col(Membership.user_id).in_(sorted(found)))):
        found[user_id][tenant_id] = Role(held)
    return found


def fellows(subject: Subject) -> sa.Select[int]:
    """The keys of all users who share a tenant with the subject."""
    return sa.select(col(Membership.user_id)).where(col(Membership.tenant_id).in_(sorted(subject.roles)))
