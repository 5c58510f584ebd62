"""Who shows a token: a session's JWT or an API key, looked up and turned into a Subject.

Invariant: what a token is worth is what the database says (session and key not revoked, user enabled, roles as they are
now), within a second on every process: it is read anew when anybody's standing changed
(:mod:`gateway.identity.recognised`). Every reason to refuse is told alike. Not here: passwords.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
import sqlmodel
import structlog
from sqlalchemy.exc import OperationalError
from sqlmodel import col

from gateway.identity import api_key, keys, policy, role
from gateway.identity.api_key import ApiKey
from gateway.identity.recognised import Recognised, confirm
from gateway.identity.session import NOUN as SESSIONS
from gateway.identity.session import Session
from gateway.identity.user import User
from gateway.kernel import clock
from gateway.kernel.access import Role, Subject
from gateway.kernel.db import Database
from gateway.kernel.errors import NotFound, Unauthenticated

log = structlog.get_logger(__name__)

_RANKED = (Role.READER, Role.MEMBER, Role.MANAGER)


@dataclass(frozen=True, slots=True)
class Recognition:
    """Who showed a token, and until when it is good (None: for good). ``key`` names the token in counters."""

    subject: Subject
    expires_at: datetime | None
    key: str


def remembered(db: Database, token: str) -> Recognition | None:
    """Whose token this is, if that is remembered and may be relied on. Reads no database and never blocks."""
    memory: Recognised | None = db.provided("recognised")
    found: Recognition | None = memory.get(token) if memory is not None else None
    return found if found is None or found.expires_at is None or _good(found, db.clock()) else None


def authenticate(db: Database, token: str) -> Recognition:
    """Whose token this is. Raises Unauthenticated. Blocks: it reads the database."""
    memory: Recognised | None = db.provided("recognised")
    if memory is not None and not memory.trusted:
        confirm(db)
    known = remembered(db, token)
    if known is not None:
        return known
    began = memory.begin() if memory is not None else 0
    found, used, now, stale_before = db.look(lambda session: _looked_up(session, token))
    if not _good(found, now):
        raise Unauthenticated("This token has expired; sign in again.")
    if memory is not None:
        memory.put(token, found, began)
    if used is None or used < stale_before:
        _note_use(db, found.subject, now)
    return found


def _looked_up(session: sqlmodel.Session, token: str) -> tuple[Recognition, datetime | None, datetime, datetime]:
    """Whose token this is, its last use, the time now, and since when a last use is new enough."""
    now = clock.now(session)
    parts = api_key.parse(token)
    found, used = _key(session, *parts) if parts else _session(session, token, now)
    return found, used, now, now - timedelta(seconds=policy.of(session).last_use_every_s)


def told(found: Recognition, *, address: str, request_id: str, user_agent: str) -> Subject:
    """The subject of one call: who, and from where."""
    who = found.subject
    return Subject(  # dataclasses.replace costs thrice as much, and this is done for every request
        user_id=who.user_id, user_uid=who.user_uid, user_name=who.user_name, admin=who.admin, roles=who.roles,
        session_id=who.session_id, api_key_id=who.api_key_id,
        request_id=request_id, address=address, user_agent=user_agent,
    )  # fmt: skip


def _session(session: sqlmodel.Session, token: str, now: datetime) -> tuple[Recognition, datetime | None]:
    claims = keys.of(session).read(token, now)
    try:
        uid = SESSIONS.uid(claims.session)
    except NotFound:
        raise _refused() from None
    statement = sqlmodel.select(Session, User).where(Session.uid == uid, col(User.id) == col(Session.user_id))
    row = session.exec(statement).first()
    if row is None:
        raise _refused()
    found, owner = row
    if found.revoked_at is not None or not _usable(owner):
        raise _refused()
    subject = Subject(
        user_id=owner.id,
        user_uid=owner.uid,
        user_name=owner.name,
        admin=owner.admin,
        roles=role.roles_of(session, owner.id),
        session_id=found.id,
    )
    expires_at = min(found.expires_at, claims.expires_at)
    return Recognition(subject, expires_at, claims.session), found.last_used_at


def _key(session: sqlmodel.Session, public_id: str, secret: str) -> tuple[Recognition, datetime | None]:
    found = api_key.proven(session, public_id, secret)
    owner = session.get(User, found.user_id) if found is not None else None
    if found is None or found.revoked_at is not None or owner is None or not _usable(owner):
        raise _refused()
    held = Role.MANAGER if owner.admin else role.roles_of(session, owner.id).get(found.tenant_id)
    if held is None:
        raise _refused()
    subject = Subject(
        user_id=owner.id,
        user_uid=owner.uid,
        user_name=owner.name,
        roles={found.tenant_id: min(held, found.role, key=_RANKED.index)},
        api_key_id=found.id,
    )
    return Recognition(subject, found.expires_at, public_id), found.last_used_at


def _usable(owner: User) -> bool:
    return owner.enabled and owner.deleted_at is None


def _good(found: Recognition, now: datetime) -> bool:
    return found.expires_at is None or found.expires_at > now


def _refused() -> Unauthenticated:
    return Unauthenticated("This token is not valid.")


def _note_use(db: Database, subject: Subject, now: datetime) -> None:
    """Note the last use. A database that cannot write now must not keep a good token out."""
    table, key = (Session, subject.session_id) if subject.session_id is not None else (ApiKey, subject.api_key_id)

    def work(session: sqlmodel.Session) -> None:
        session.execute(sa.update(table).where(col(table.id) == key).values(last_used_at=now))

    try:
        db.run(work)
    except OperationalError as error:
        log.warning("last_use_not_noted", error=str(error.orig))
