"""API keys: how programs call the cloud, as their user but in one tenant and with at most one role.

The token is ``sgk_<TypeID>_<secret>``; the secret has 256 random bits, is told once, and only its SHA-256 is kept (a
slow hash guards guessable passwords, which this is not). A key is worth at most what its user holds in the tenant now,
so it weakens and ends with the membership and the user. A key can make no sessions, keys or passwords.
"""

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, col, or_, select

from gateway.identity import tenant, user
from gateway.identity.recognised import forget
from gateway.kernel import clock, row
from gateway.kernel.access import Role, Subject, require
from gateway.kernel.command import AnyId, Name, Retryable
from gateway.kernel.errors import Invalid, NotFound
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row

_TOKEN = re.compile(r"sgk_(apikey_[0-7][0-9a-hjkmnp-tv-z]{25})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES = 32


class ApiKey(Row, table=True):
    """A key. ``digest`` is the SHA-256 of its secret."""

    __tablename__ = "api_key"

    name: str = Field(max_length=255)
    user_id: int = row.ref("user_account.id")
    tenant_id: int = row.ref("tenant.id")
    role: Role = row.enum(Role)
    digest: str = Field(max_length=64, repr=False)
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


def _scope(subject: Subject) -> sa.ColumnElement[bool]:
    if subject.admin:
        return sa.true()
    managed = sorted(key for key in subject.roles if subject.holds(Role.MANAGER, key))
    own = (col(ApiKey.user_id) == subject.user_id) & col(ApiKey.tenant_id).in_(sorted(subject.roles))
    return or_(own, col(ApiKey.tenant_id).in_(managed))


NOUN = register(Noun("apikey", ApiKey, _scope))


class ApiKeyCreate(Retryable):
    """A new API key."""

    name: Name = Field(description="What it is for.")
    tenant_id: AnyId = Field(description="The one tenant it is good in.")
    role: Role = Field(description="What it may do there; at most your own role.")
    expires_at: datetime | None = Field(default=None, description="When it ends; null for never.")


class ApiKeyRevoke(Retryable):
    """The API key to revoke."""

    id: AnyId = Field(description="The key.")


def create(session: Session, subject: Subject, command: ApiKeyCreate) -> dict[str, Any]:
    """Make a key for the caller. Raises Forbidden, NotFound, Invalid."""
    user.person(subject)
    place = tenant.NOUN.get(session, subject, command.tenant_id, "tenantId")
    require(subject, command.role, place.id, what="a key of that role")
    if command.expires_at is not None and command.expires_at <= clock.now(session):
        raise Invalid("This moment is past.", path=("expiresAt",))
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    made = ApiKey(
        name=command.name,
        user_id=subject.user_id,
        tenant_id=place.id,
        role=command.role,
        digest=_digest(secret),
        expires_at=command.expires_at,
    )
    session.add(made)
    session.flush()
    return {"api_key": made, "token": f"sgk_{NOUN.public(made)}_{secret}"}


def revoke(session: Session, subject: Subject, command: ApiKeyRevoke) -> ApiKey:
    """End a key: one's own, or any of a tenant that one manages; doing it again changes nothing. Raises NotFound."""
    user.person(subject)
    found = NOUN.get(session, subject, command.id, "id")
    return _end(session, [found])[0]


def revoke_all(session: Session, user_id: int, tenant_id: int | None = None) -> None:
    """End all keys of a user, in one tenant or everywhere."""
    statement = select(ApiKey).where(ApiKey.user_id == user_id, col(ApiKey.revoked_at).is_(None))
    if tenant_id is not None:
        statement = statement.where(ApiKey.tenant_id == tenant_id)
    _end(session, list(session.exec(statement)))


def parse(token: str) -> tuple[str, str] | None:
    """TypeID and secret of a key's token; None for any other text."""
    found = _TOKEN.fullmatch(token)
    return (found[1], found[2]) if found else None


def proven(session: Session, public_id: str, secret: str) -> ApiKey | None:
    """The key of a TypeID and secret, whatever its state; None when there is none. Takes the same time either way."""
    try:
        uid = NOUN.uid(public_id)
    except NotFound:
        return None
    found = session.exec(select(ApiKey).where(ApiKey.uid == uid)).first()
    right = hmac.compare_digest(found.digest if found else _digest(""), _digest(secret))
    return found if right and found is not None else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _end(session: Session, ended: list[ApiKey]) -> list[ApiKey]:
    for each in ended:
        each.revoked_at = each.revoked_at or clock.now(session)
    forget(session)
    return ended


def _end_with_tenant(session: Session, gone: tenant.Tenant) -> None:
    statement = select(ApiKey).where(ApiKey.tenant_id == gone.id, col(ApiKey.revoked_at).is_(None))
    _end(session, list(session.exec(statement)))


tenant.not_owned.add(ApiKey)
tenant.on_delete.append(_end_with_tenant)
