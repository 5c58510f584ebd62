"""Giving and taking roles in a tenant: by its managers and by operators, and anybody may leave.

Invariant: nobody gives or takes a role above their own. Whoever leaves loses the API keys they had there.
"""

from typing import Self

from pydantic import ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from sqlmodel import Field, Session, select

from gateway.identity import api_key, tenant, user
from gateway.identity.recognised import forget
from gateway.identity.role import Membership
from gateway.identity.tenant import Tenant
from gateway.identity.user import User
from gateway.kernel.access import Role, Subject, require
from gateway.kernel.command import AnyId, Command, Retryable
from gateway.kernel.db import unique
from gateway.kernel.errors import NotFound


class UserBy(Command):
    """A user, by one of these."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, json_schema_extra={"oneOf": True}
    )

    id: AnyId | None = Field(default=None, description="By id, of a user whom you see.")
    name: str | None = Field(default=None, max_length=255, description="By the exact name they sign in with.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.id is None) == (self.name is None):
            raise ValueError("give exactly one of id and name")
        return self


class MemberAdd(Retryable):
    """Who gets which role in a tenant."""

    tenant_id: AnyId = Field(description="The tenant.")
    user: UserBy = Field(description="Who.")
    role: Role = Field(description="The role they have from now on, instead of another one; at most your own.")


class MemberRemove(Retryable):
    """Who leaves a tenant."""

    tenant_id: AnyId = Field(description="The tenant.")
    user_id: AnyId = Field(description="Who leaves; yourself, or anybody when you manage the tenant.")


def add(session: Session, subject: Subject, command: MemberAdd) -> Membership:
    """Give a user a role in a tenant. Raises NotFound, Forbidden."""
    place = _place(session, subject, command.tenant_id)
    require(subject, Role.MANAGER, place.id, what="managing members")
    require(subject, command.role, place.id, what="giving that role")
    who = _who(session, subject, command.user)
    found = _membership(session, who, place)
    if found is None:
        found = Membership(user_id=who.id, tenant_id=place.id, role=command.role)
        with unique(session, "Somebody gave them a role at the same moment.", "user"):
            session.add(found)
    else:
        found.role = command.role
    forget(session)
    return found


def remove(session: Session, subject: Subject, command: MemberRemove) -> dict[str, object]:
    """End a user's role in a tenant, and their API keys there. Raises NotFound, Forbidden."""
    place = _place(session, subject, command.tenant_id)
    who = user.NOUN.get(session, subject, command.user_id, "userId")
    if who.id == subject.user_id:
        user.person(subject)
    else:
        require(subject, Role.MANAGER, place.id, what="managing members")
    found = _membership(session, who, place)
    if found is None:
        raise NotFound("This user has no role in the tenant.", path=("userId",))
    session.delete(found)
    api_key.revoke_all(session, who.id, place.id)
    forget(session)
    return {"tenant": place, "user": who}


def _place(session: Session, subject: Subject, public_id: str) -> Tenant:
    return tenant.NOUN.get(session, subject, public_id, "tenantId")


def _who(session: Session, subject: Subject, by: UserBy) -> User:
    if by.id is not None:
        return user.NOUN.get(session, subject, by.id, "user", "id")
    found = user.by_name(session, by.name or "")
    if found is None:
        raise NotFound("There is no such user.", path=("user", "name"))
    return found


def _membership(session: Session, who: User, place: Tenant) -> Membership | None:
    return session.exec(
        select(Membership).where(Membership.user_id == who.id, Membership.tenant_id == place.id)
    ).first()
