"""Who shows a token: a session's JWT or an API key, looked up and turned into a Subject.

Invariant: what a token is worth is what the database says (session and key not revoked, user enabled, roles as they are
now), within a second on every process: it is read anew when anybody's standing changed
(:mod:`gateway.identity.recognised`). Every reason to refuse is told alike. Not here: passwords.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

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
    found = authenticate_all(db, [token])[0]
    if isinstance(found, Unauthenticated):
        raise found
    return found


def authenticate_all(db: Database, tokens: Sequence[str]) -> list[Recognition | Unauthenticated]:
    """Whose tokens these are, in their order, by one reading for all. Blocks: it reads the database."""
    memory: Recognised | None = db.provided("recognised")
    if memory is not None and not memory.trusted:
        confirm(db)
    known: dict[str, Recognition | Unauthenticated] = {}
    for token in tokens:
        found = remembered(db, token)
        if found is not None:
            known[token] = found
    unknown = [token for token in dict.fromkeys(tokens) if token not in known]
    if unknown:
        known.update(_looked_up(db, unknown, memory))
    return [known[token] for token in tokens]


def _looked_up(
    db: Database, tokens: Sequence[str], memory: Recognised | None
) -> dict[str, Recognition | Unauthenticated]:
    began = memory.begin() if memory is not None else 0
    shown, now, stale_before = db.look(lambda session: _read(session, tokens))
    found: dict[str, Recognition | Unauthenticated] = {}
    stale: list[Subject] = []
    for token, seen in shown.items():
        if isinstance(seen, Unauthenticated):
            found[token] = seen
            continue
        recognition, used = seen
        if not _good(recognition, now):
            found[token] = Unauthenticated("This token has expired; sign in again.")
            continue
        found[token] = recognition
        if memory is not None:
            memory.put(token, recognition, began)
        if used is None or used < stale_before:
            stale.append(recognition.subject)
    if stale:
        _note_use(db, stale, now)
    return found


_Seen = tuple[Recognition, datetime | None]
"""Whose token this is, and its last use."""


def _read(
    session: sqlmodel.Session, tokens: Sequence[str]
) -> tuple[dict[str, _Seen | Unauthenticated], datetime, datetime]:
    """What is there of each token, the time now, and since when a last use is new enough."""
    now = clock.now(session)
    seen: dict[str, _Seen | Unauthenticated] = {}
    claims: dict[str, keys.Claims] = {}
    for token in tokens:
        parts = api_key.parse(token)
        try:
            if parts is None:
                claims[token] = keys.of(session).read(token, now)
            else:
                seen[token] = _key(session, *parts)
        except Unauthenticated as refused:
            seen[token] = refused
    seen.update(_sessions(session, claims))
    return seen, now, now - timedelta(seconds=policy.of(session).last_use_every_s)


def told(found: Recognition, *, address: str, request_id: str, user_agent: str) -> Subject:
    """The subject of one call: who, and from where."""
    who = found.subject
    return Subject(  # dataclasses.replace costs thrice as much, and this is done for every request
        user_id=who.user_id, user_uid=who.user_uid, user_name=who.user_name, admin=who.admin, roles=who.roles,
        session_id=who.session_id, api_key_id=who.api_key_id,
        request_id=request_id, address=address, user_agent=user_agent,
    )  # fmt: skip


def _sessions(session: sqlmodel.Session, claims: Mapping[str, keys.Claims]) -> dict[str, _Seen | Unauthenticated]:
    """The sessions that tokens speak of."""
    uids: dict[str, UUID | None] = dict.fromkeys(claims)
    for token, said in claims.items():
        with suppress(NotFound):
            uids[token] = SESSIONS.uid(said.session)
    wanted = {each for each in uids.values() if each is not None}
    statement = sqlmodel.select(Session, User).where(col(User.id) == col(Session.user_id))
    read = session.exec(statement.where(col(Session.uid).in_(wanted))) if wanted else ()
    rows: dict[UUID | None, tuple[Session, User]] = {found.uid: (found, owner) for found, owner in read}
    roles = role.roles_of_each(session, {owner.id for _, owner in rows.values()}) if rows else {}
    seen: dict[str, _Seen | Unauthenticated] = {}
    for token, said in claims.items():
        row = rows.get(uids[token])
        if row is None or row[0].revoked_at is not None or not _usable(row[1]):
            seen[token] = _refused()
            continue
        found, owner = row
        subject = Subject(
            user_id=owner.id,
            user_uid=owner.uid,
            user_name=owner.name,
            admin=owner.admin,
            roles=roles[owner.id],
            session_id=found.id,
        )
        expires_at = min(found.expires_at, said.expires_at)
        seen[token] = (Recognition(subject, expires_at, said.session), found.last_used_at)
    return seen


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


def _note_use(db: Database, subjects: Sequence[Subject], now: datetime) -> None:
    """Note the last use. A database that cannot write now must not keep a good token out."""

    def work(session: sqlmodel.Session) -> None:
        for table, name in ((Session, "session_id"), (ApiKey, "api_key_id")):
            used = sorted({getattr(each, name) for each in subjects} - {None})
            if used:
                session.execute(sa.update(table).where(col(table.id).in_(used)).values(last_used_at=now))

    try:
        db.run(work)
    except OperationalError as error:
        log.warning("last_use_not_noted", error=str(error.orig))
