"""Memberships: who holds which role in which tenant. At most one role a user and tenant."""

from __future__ import annotations

import sqlalchemy as sa

from gateway.kernel import row
from gateway.kernel.access import Role
from gateway.kernel.row import Row


class Membership(Row, table=True):
    """One user's role in one tenant."""

    __tablename__ = "membership"

    user_id: int = row.ref("user_account.id")
    tenant_id: int = row.ref("tenant.id")
    role: Role = row.enum(Role)

    __table_args__ = (sa.UniqueConstraint("user_id", "tenant_id"),)
