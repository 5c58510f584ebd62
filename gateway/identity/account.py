"""Changing and ending users, with all that hangs on them: sessions, API keys, memberships, passwords.

Invariant: the cloud always has an operator who may sign in; the last one can be neither deleted, disabled nor demoted.
Whoever is disabled, deleted or gets another password loses every session, but for the one that asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlmodel import Field, Session, col, select

from gateway.identity import api_key, lockout, password, policy, session, user
from gateway.identity.recognised import forget
from gateway.identity.role import Membership
from gateway.identity.user import Email, NewPassword, User, UserName
from gateway.kernel import clock
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Retryable, Text, Versioned
from gateway.kernel.db import Database, unique
from gateway.kernel.errors import Conflict, Forbidden, Invalid
from gateway.kernel.row import expect

on_delete: list[Callable[[Session, User], None]] = []
"""Called in the unit of work that deletes a user: services drop here what belongs to users alone (keypairs)."""


class UserUpdate(Versioned):
    """A change of a user; what is absent stays."""

    id: AnyId = Field(description="The user.")
    name: UserName | None = Field(default=None, description="The new name to sign in with.")
    full_name: Text | None = Field(default=None, max_length=255, description="What people call them; null clears it.")
    email: Email | None = Field(default=None, description="Where mail reaches them; null clears it.")
    admin: bool | None = Field(default=None, description="Whether they operate the whole cloud.")
    enabled: bool | None = Field(default=None, description="Whether they may sign in; false ends all their sessions.")


class UserDelete(Versioned):
    """The user to delete."""

    id: AnyId = Field(description="The user.")


class UserUnlock(Retryable):
    """The user to let in again."""

    id: AnyId = Field(description="The user.")


class UserPasswordSet(Retryable):
    """A new password."""

    user_id: AnyId | None = Field(default=None, description="Whose; yours when absent. Others' only for an operator.")
    current_password: NewPassword | None = Field(
        default=None, repr=False, description="The password you have now; needed to change your own."
    )
    new_password: NewPassword = Field(repr=False, description="The new one; the cloud's password rules hold.")


def update(db: Session, subject: Subject, command: UserUpdate) -> User:
    """Change a user. Raises NotFound, StaleVersion, Conflict."""
    found = user.NOUN.get(db, subject, command.id, "id")
    expect(found, command.expected_version)
    if found.admin and found.enabled and (command.admin is False or command.enabled is False):
        _keep_an_operator(db, found)
    with unique(db, "A user has this name already.", "name"):
        for name in command.model_fields_set & {"name", "admin", "enabled"}:
            value = getattr(command, name)
            if value is not None:
                setattr(found, name, value)
        for name in command.model_fields_set & {"full_name", "email"}:
            setattr(found, name, getattr(command, name) or "")
    if not found.enabled:
        session.revoke_all(db, found.id)
    forget(db)
    return found


def delete(db: Session, subject: Subject, command: UserDelete) -> User:
    """Delete a user with all sessions, API keys and memberships. Raises NotFound, StaleVersion, Conflict."""
    found = user.NOUN.get(db, subject, command.id, "id")
    expect(found, command.expected_version)
    if found.admin and found.enabled:
        _keep_an_operator(db, found)
    for clear in on_delete:
        clear(db, found)
    session.revoke_all(db, found.id)
    api_key.revoke_all(db, found.id)
    for each in db.exec(select(Membership).where(Membership.user_id == found.id)):
        db.delete(each)
    for old in db.exec(select(password.PasswordHistory).where(password.PasswordHistory.user_id == found.id)):
        db.delete(old)
    lockout.unlock(db, found.name)
    found.password = found.given_password = found.email = found.full_name = ""
    found.enabled = found.admin = False
    found.deleted_at = clock.now(db)
    forget(db)
    return found


def unlock(db: Session, subject: Subject, command: UserUnlock) -> User:
    """Let a user in again who gave too many wrong passwords. Raises NotFound."""
    found = user.NOUN.get(db, subject, command.id, "id")
    lockout.unlock(db, found.name)
    return found


@dataclass(frozen=True, slots=True)
class Chosen:
    """A password that passed the rules: whose, its hash, and the hash that it replaces."""

    user_id: int
    kept: str
    replaces: str


def choose(database: Database, subject: Subject, command: UserPasswordSet) -> Chosen:
    """Check and hash a new password outside any transaction.

    Raises NotFound, Forbidden, Invalid, LockedOut, RateLimited.
    """
    user.person(subject)
    with database.read() as db:
        found = _whose(db, subject, command)
        rules, passwords = policy.of(db), password.of(db)
        own = found.id == subject.user_id
        if own:
            lockout.check_open(db, found.name)
        hashes = {found.password, *password.recent(db, found.id, rules.password_history)}
    if own:
        if command.current_password is None:
            raise Invalid("Your current password is needed.", path=("currentPassword",))
        if not passwords.matches(found.password, command.current_password):
            refused = database.run(lambda unit: lockout.settle_wrong(unit, found.name))
            raise refused or Forbidden("This is not your current password.", path=("currentPassword",))
    password.check_rules(rules, command.new_password, found.name, "newPassword")
    password.check_history(passwords, sorted(hashes), command.new_password, "newPassword")
    return Chosen(found.id, passwords.hash(command.new_password), found.password)


def set_password(db: Session, subject: Subject, command: UserPasswordSet, chosen: Chosen) -> User:
    """Give a user the chosen password and end their other sessions. Raises Conflict when it changed meanwhile."""
    found = _whose(db, subject, command)
    if found.id != chosen.user_id or found.password != chosen.replaces:
        raise Conflict("The password was changed at the same moment.", path=("newPassword",))
    found.password = chosen.kept
    found.password_changed_at = clock.now(db)
    password.remember(db, found.id, chosen.kept, policy.of(db).password_history)
    session.revoke_all(db, found.id, but=subject.session_id)
    if found.id == subject.user_id:
        lockout.settle_right(db, found.name)
    forget(db)
    return found


def _whose(db: Session, subject: Subject, command: UserPasswordSet) -> User:
    if command.user_id is None:
        return db.get_one(User, subject.user_id)
    found = user.NOUN.get(db, subject, command.user_id, "userId")
    if found.id != subject.user_id:
        user.operator(subject)
    return found


def _keep_an_operator(db: Session, leaving: User) -> None:
    """Refuse when nobody else could operate the cloud. The rows are locked, so two cannot leave each other alone."""
    statement = select(User).where(
        col(User.admin).is_(True), col(User.enabled).is_(True), col(User.deleted_at).is_(None)
    )
    rows: Any = db.exec(statement.order_by(col(User.id)).with_for_update()).all()
    if all(each.id == leaving.id for each in rows):
        raise Conflict("This is the last operator of the cloud.", path=("id",))
