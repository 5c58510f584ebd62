"""Users: people and programs that sign in by name and password (argon2id).

Invariant: a name belongs to at most one user that is not deleted, whatever its case; a deleted user keeps its row, for
what it did must stay attributable, but neither password nor personal data. An operator sees all users, everybody else
themselves and those they share a tenant with. Not here: what ends with a user (:mod:`gateway.identity.account`).
"""

from datetime import datetime
from typing import Annotated, Any

import sqlalchemy as sa
from pydantic import AfterValidator, StringConstraints
from sqlmodel import Field, Session, col, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import password, policy
from gateway.identity.role import fellows
from gateway.kernel import clock
from gateway.kernel.access import Subject
from gateway.kernel.command import Command, Retryable, Text
from gateway.kernel.db import Database, unique
from gateway.kernel.errors import Forbidden
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row

UserName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*$"),
    AfterValidator(str.lower),
]
NewPassword = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Email = Annotated[str, StringConstraints(max_length=320, pattern=r"^$|^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$")]


class User(Row, table=True):
    """Somebody. ``password`` is an argon2id hash; ``admin`` operates the whole cloud."""

    __tablename__ = "user_account"

    name: str = Field(max_length=255)
    full_name: str = Field(default="", max_length=255)
    email: str = Field(default="", max_length=320)
    password: str = Field(max_length=255, repr=False)
    admin: bool = False
    enabled: bool = True
    password_changed_at: datetime | None = None
    given_password: str = Field(default="", max_length=255, repr=False)
    deleted_at: datetime | None = None

    __table_args__ = (
        sa.Index("uq_user_account_name", "name", unique=True, sqlite_where=sa.text("deleted_at IS NULL"),
                 postgresql_where=sa.text("deleted_at IS NULL")),
    )  # fmt: skip


def _scope(subject: Subject) -> sa.ColumnElement[bool]:
    alive = col(User.deleted_at).is_(None)
    if subject.admin:
        return alive
    return alive & or_(col(User.id) == subject.user_id, col(User.id).in_(fellows(subject)))


NOUN = register(Noun("user", User, _scope))

ORDERS: dict[str, Any] = {"NAME": col(User.name), "UPDATED_AT": col(User.updated_at)}


class UserCreate(Retryable):
    """A new user."""

    name: UserName = Field(description="The name to sign in with: letters, digits and ._@+-; case does not matter.")
    password: NewPassword = Field(repr=False, description="The first password; the cloud's password rules hold.")
    full_name: Text = Field(default="", max_length=255, description="What people call them.")
    email: Email = Field(default="", description="Where mail reaches them.")
    admin: bool = Field(default=False, description="Whether they operate the whole cloud.")
    enabled: bool = Field(default=True, description="Whether they may sign in.")


class Filter(Command):
    """Which users."""

    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")
    name_contains: str | None = Field(default=None, max_length=255, description="With this text in the name.")
    admin: bool | None = Field(default=None, description="Operators only, or all others.")
    enabled: bool | None = Field(default=None, description="Only those who may sign in, or may not.")


def by_name(session: Session, name: str) -> User | None:
    """The user of that name, whoever asks."""
    return session.exec(select(User).where(User.name == name.lower(), col(User.deleted_at).is_(None))).first()


def person(subject: Subject) -> None:
    """Refuse an API key: some things only somebody who signed in may do. Raises Forbidden."""
    if subject.api_key_id is not None:
        raise Forbidden("An API key may not do this; sign in with a password.")


def operator(subject: Subject) -> None:
    """Refuse everybody but an operator of the cloud. Raises Forbidden."""
    if not subject.admin:
        raise Forbidden("Only an operator of the cloud may do this.", required="ADMIN")


def hashed(db: Database, subject: Subject, command: UserCreate) -> str:
    """The new password's hash, made outside any transaction. Raises Invalid, RateLimited, Forbidden."""
    person(subject)
    with db.read() as session:
        rules, passwords = policy.of(session), password.of(session)
    password.check_rules(rules, command.password, command.name, "password")
    return passwords.hash(command.password)


def create(session: Session, _subject: Subject, command: UserCreate, kept: str) -> User:
    """Make a user whose password has the hash ``kept``. Raises Conflict when the name is taken."""
    made = User(
        **command.model_dump(exclude={"idempotency_key", "password"}),
        password=kept,
        password_changed_at=clock.now(session),
    )
    with unique(session, "A user has this name already.", "name"):
        session.add(made)
    password.remember(session, made.id, kept, policy.of(session).password_history)
    return made


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[User]:
    """The users a subject may see."""
    found = select(User).where(NOUN.scope(subject))
    if wanted.name is not None:
        found = found.where(User.name == wanted.name.lower())
    if wanted.name_contains is not None:
        found = found.where(col(User.name).icontains(wanted.name_contains, autoescape=True))
    if wanted.admin is not None:
        found = found.where(col(User.admin) == wanted.admin)
    if wanted.enabled is not None:
        found = found.where(col(User.enabled) == wanted.enabled)
    return found
