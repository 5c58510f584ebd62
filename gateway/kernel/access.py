"""Who asks, and what that lets them do.

A :class:`Subject` is an immutable value made once per operation. Roles are ordered within a tenant (reader < member <
manager); ``admin`` is of the whole cloud and stands above every tenant. What a subject may not see looks absent
(NotFound), what it may see but not do is Forbidden. Nothing here reads the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from gateway.kernel.errors import Forbidden, NotFound, Unauthenticated


class Role(StrEnum):
    """A role in a tenant."""

    READER = "READER"
    """Sees everything of the tenant and changes nothing."""
    MEMBER = "MEMBER"
    """Also makes, changes and deletes resources."""
    MANAGER = "MANAGER"
    """Also manages the tenant's members and API keys."""


class Need(StrEnum):
    """What a root field asks of its caller before anything else is looked at."""

    PUBLIC = "PUBLIC"
    SIGNED_IN = "SIGNED_IN"
    READER = "READER"
    MEMBER = "MEMBER"
    MANAGER = "MANAGER"
    ADMIN = "ADMIN"


Standing = tuple[bool, bool, frozenset[tuple[int, Role]]]
"""Whether somebody is signed in, is an operator, and the roles held by tenant."""

_RANK = {Role.READER: 1, Role.MEMBER: 2, Role.MANAGER: 3}


@dataclass(frozen=True, slots=True)
class Subject:
    """The caller. ``roles`` maps a tenant's internal key to the role held there; with an API key it is cut down to the
    key's one tenant and role. ``user_id`` 0 is nobody, -1 the cloud itself (reconcilers).
    """

    user_id: int = 0
    user_uid: UUID | None = None
    user_name: str = ""
    admin: bool = False
    roles: Mapping[int, Role] = field(default_factory=dict)
    session_id: int | None = None
    api_key_id: int | None = None
    request_id: str = ""
    address: str = ""
    user_agent: str = ""

    @property
    def signed_in(self) -> bool:
        """Whether somebody is known."""
        return self.user_id != 0

    @property
    def standing(self) -> Standing:
        """All of the subject that what it sees depends on, unless somebody in particular is meant."""
        return (self.signed_in, self.admin, frozenset(self.roles.items()))

    def role_in(self, tenant_id: int) -> Role | None:
        """The role held in a tenant; an admin is a manager everywhere."""
        return Role.MANAGER if self.admin else self.roles.get(tenant_id)

    def holds(self, role: Role, tenant_id: int) -> bool:
        """Whether the subject has at least that role there."""
        held = self.role_in(tenant_id)
        return held is not None and _RANK[held] >= _RANK[role]


NOBODY = Subject()
CLOUD = Subject(user_id=-1, user_name="stratograph", admin=True)


def check(subject: Subject, need: Need) -> None:
    """Refuse a caller who cannot possibly meet the need, whatever the input says."""
    if need is Need.PUBLIC:
        return
    if not subject.signed_in:
        raise Unauthenticated("Sign in first: sessionCreate gives a token.")
    if need is Need.SIGNED_IN or subject.admin:
        return
    if need is Need.ADMIN:
        raise Forbidden("Only an operator of the cloud may do this.", required="ADMIN")
    floor = _RANK[Role(need.value)]
    if not any(_RANK[role] >= floor for role in subject.roles.values()):
        raise Forbidden(f"This needs the role {need.value} in a tenant.", required=need.value)


def require(subject: Subject, role: Role, tenant_id: int, *, what: str = "this") -> None:
    """Refuse a caller without that role in the tenant: NotFound when it may not even see it."""
    held = subject.role_in(tenant_id)
    if held is None:
        raise NotFound("There is no such thing.")
    if _RANK[held] < _RANK[role]:
        raise Forbidden(f"The role {role.value} is needed for {what}; yours is {held.value}.", required=role.value)


def within(column: Any, subject: Subject) -> sa.ColumnElement[bool]:
    """The predicate "belongs to a tenant the subject may read", for a column holding a tenant's key."""
    if subject.admin:
        return sa.true()
    readable: sa.ColumnElement[bool] = column.in_(sorted(subject.roles))
    return readable
