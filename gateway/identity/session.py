"""Sessions: somebody who signed in by name and password, from one device, for a while.

A token is a signed JWT that names its session's row; what the row says is remembered until somebody's standing changes
anywhere, so a revoked session, a disabled user or a taken role acts within a second on every process. An API key can
make no session. Not here: recognising a token (:mod:`gateway.identity.authentication`).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
import sqlmodel
from sqlmodel import Field, col, select

from gateway.identity import keys, lockout, password, policy, user
from gateway.identity.recognised import forget
from gateway.identity.user import NewPassword, User
from gateway.kernel import clock, row
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Command
from gateway.kernel.db import Database
from gateway.kernel.errors import Invalid, Unauthenticated
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row

_KEPT = timedelta(days=30)


class Session(Row, table=True):
    """One sign-in. ``last_used_at`` is coarse: it is noted at most once a minute."""

    __tablename__ = "session"

    user_id: int = row.ref("user_account.id")
    expires_at: datetime
    revoked_at: datetime | None = None
    last_used_at: datetime
    address: str = Field(default="", max_length=64)
    user_agent: str = Field(default="", max_length=512)


def _scope(subject: Subject) -> sa.ColumnElement[bool]:
    if subject.admin:
        return sa.true()
    if subject.api_key_id is not None:
        return sa.false()
    return col(Session.user_id) == subject.user_id


NOUN = register(Noun("session", Session, _scope, announce=False))


class SessionCreate(Command):
    """Who signs in."""

    username: str = Field(min_length=1, max_length=255, description="The user's name.")
    password: NewPassword = Field(repr=False, description="The user's password.")


class SessionRevoke(Command):
    """Which sessions end; this one when nothing is said."""

    session_id: AnyId | None = Field(default=None, description="The session; an operator may name anybody's.")
    all_of_user: AnyId | None = Field(
        default=None, description="End all sessions of this user instead: yourself, or anybody for an operator."
    )


@dataclass(frozen=True, slots=True)
class Proven:
    """A password that was right: whose, the hash it was checked against, and a new hash when that one is outdated."""

    user_id: int
    kept: str
    renewed: str | None


def prove(db: Database, subject: Subject, command: SessionCreate) -> Proven:
    """Check a name and password outside any transaction. Raises RateLimited, LockedOut, Unauthenticated.

    A disabled user and a name of nobody cost and answer the same as a wrong password.
    """
    user.person(subject)
    with db.read() as session:
        lockout.tries_of(session).spend(subject.address, policy.of(session).tries_per_minute)
        lockout.check_open(session, command.username)
        passwords = password.of(session)
        found = user.by_name(session, command.username)
    usable = found is not None and found.enabled
    if not passwords.matches(found.password if found is not None and usable else None, command.password):
        refused = db.run(lambda session: lockout.settle_wrong(session, command.username))
        raise refused or Unauthenticated("The name or the password is wrong.")
    if found is None:
        raise AssertionError("nobody's password matched")
    renewed = passwords.hash(command.password) if passwords.outdated(found.password) else None
    return Proven(found.id, found.password, renewed)


def create(session: sqlmodel.Session, subject: Subject, command: SessionCreate, proven: Proven) -> dict[str, Any]:
    """Make a session for a proven user. Raises LockedOut or Unauthenticated when that changed meanwhile."""
    lockout.settle_right(session, command.username)
    owner = session.get(User, proven.user_id)
    if owner is None or owner.deleted_at is not None or not owner.enabled or owner.password != proven.kept:
        raise Unauthenticated("The name or the password is wrong.")
    if proven.renewed is not None:
        owner.password = proven.renewed
    now = clock.now(session).replace(microsecond=0)
    expires_at = now + timedelta(seconds=min(policy.of(session).session_ttl_s, policy.LONGEST_SESSION_S))
    made = Session(
        user_id=owner.id,
        expires_at=expires_at,
        last_used_at=now,
        address=subject.address[:64],
        user_agent=subject.user_agent[:512],
    )
    session.add(made)
    session.flush()
    token = keys.of(session).sign(NOUN.public(made), user.NOUN.public(owner), now, expires_at)
    return {"token": token, "expires_at": expires_at, "session": made, "user": owner}


def revoke(session: sqlmodel.Session, subject: Subject, command: SessionRevoke) -> list[Session]:
    """End sessions; one that ended already stays as it is. Raises NotFound, Invalid, Forbidden."""
    user.person(subject)
    if command.session_id is not None and command.all_of_user is not None:
        raise Invalid("Give sessionId or allOfUser, not both.", path=("allOfUser",))
    if command.all_of_user is not None:
        owner = user.NOUN.get(session, subject, command.all_of_user, "allOfUser")
        if owner.id != subject.user_id:
            user.operator(subject)
        return revoke_all(session, owner.id)
    if command.session_id is not None:
        ended = NOUN.get(session, subject, command.session_id, "sessionId")
    else:
        current = session.get(Session, subject.session_id) if subject.session_id is not None else None
        if current is None:
            raise Invalid("You have no session; say which one.", path=("sessionId",))
        ended = current
    return _end(session, [ended])


def revoke_all(session: sqlmodel.Session, user_id: int, *, but: int | None = None) -> list[Session]:
    """End all sessions of a user, but for one."""
    statement = select(Session).where(
        Session.user_id == user_id, col(Session.revoked_at).is_(None), col(Session.expires_at) > clock.now(session)
    )
    return _end(session, [each for each in session.exec(statement.order_by(col(Session.id))) if each.id != but])


def unrevoked(columns: Any) -> Any:
    """The condition on a session's columns that it was not revoked."""
    return columns.revoked_at.is_(None)


def alive(session: sqlmodel.Session, user_id: int) -> list[Session]:
    """A user's sessions that are neither over nor revoked, oldest first."""
    statement = select(Session).where(
        Session.user_id == user_id, unrevoked(Session), col(Session.expires_at) > clock.now(session)
    )
    return list(session.exec(statement.order_by(col(Session.id))))


def prune(session: sqlmodel.Session) -> int:
    """Forget sessions that were over a month ago; how many."""
    gone = session.execute(sa.delete(Session).where(col(Session.expires_at) < clock.now(session) - _KEPT))
    return int(getattr(gone, "rowcount", 0))


def _end(session: sqlmodel.Session, ended: list[Session]) -> list[Session]:
    for each in ended:
        each.revoked_at = each.revoked_at or clock.now(session)
    forget(session)
    return ended
