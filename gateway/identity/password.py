"""Passwords: argon2id, the rules for new ones, and the memory of old ones.

Invariant: hashing is slow and takes 64 MiB, so it never happens inside a transaction, only a few run at once, and who
finds the queue full is refused instead of holding a thread. Unknown names are verified against a dummy hash, so that
they cost the same. A hash of weaker parameters is renewed at the next successful sign-in.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from sqlmodel import Field, Session, col, select

from gateway.identity.policy import Policy
from gateway.kernel import row
from gateway.kernel.core import CORE
from gateway.kernel.errors import Invalid, RateLimited
from gateway.kernel.row import Row

_DISTINCT_CHARS = 6
_NAME_CHARS = 4


class PasswordHistory(Row, table=True):
    """A hash that a user's password had."""

    __tablename__ = "password_history"

    user_id: int = row.ref("user_account.id")
    password: str = Field(max_length=255, repr=False)


class Passwords:
    """Hashes and verifies: at most ``at_once`` in parallel, at most ``waiting`` callers in the queue for it."""

    def __init__(
        self,
        *,
        time_cost: int = 3,
        memory_kib: int = 65_536,
        parallelism: int = 4,
        at_once: int = 2,
        waiting: int = 8,
    ) -> None:
        self._hasher = PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=parallelism)
        self._running = threading.BoundedSemaphore(at_once)
        self._present = threading.BoundedSemaphore(at_once + waiting)

    def hash(self, password: str) -> str:
        """A new argon2id hash. Raises RateLimited when too many are waiting."""
        with self._turn():
            return self._hasher.hash(password)

    def matches(self, kept: str | None, password: str) -> bool:
        """Whether the hash is of this password; None costs the same and never matches. Raises RateLimited."""
        with self._turn():
            try:
                self._hasher.verify(kept or self._dummy, password)
            except VerifyMismatchError:
                return False
            except (VerificationError, InvalidHashError):
                return False
        return kept is not None

    def outdated(self, kept: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(kept)

    @cached_property
    def _dummy(self) -> str:
        return self._hasher.hash("nobody has this password")

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._present.acquire(blocking=False):
            raise RateLimited("Too many are signing in at this moment; try again.", retry_after_s=1)
        try:
            with self._running, CORE.apart():
                yield
        finally:
            self._present.release()


_DEFAULT = Passwords()


def of(session: Session) -> Passwords:
    """The hashing of the session's database (``db.provide("passwords", Passwords(...))``)."""
    found: Passwords = session.info.get("passwords", _DEFAULT)
    return found


def check_rules(policy: Policy, password: str, user_name: str, *path: str) -> None:
    """Refuse a password that is too short, too long, too simple or made of the name. Raises Invalid at ``path``."""
    if not policy.password_min_chars <= len(password) <= policy.password_max_chars:
        wanted = f"{policy.password_min_chars} to {policy.password_max_chars}"
        raise Invalid(f"A password has {wanted} characters.", path=path)
    folded, name = password.casefold(), user_name.casefold()
    if folded == name or (len(name) >= _NAME_CHARS and name in folded):
        raise Invalid("A password must not contain the user's name.", path=path)
    if len(set(folded)) < _DISTINCT_CHARS:
        raise Invalid(f"A password has at least {_DISTINCT_CHARS} different characters.", path=path)
    if _is_run(folded) or _is_repetition(folded):
        raise Invalid("A password must not be a mere sequence or repetition.", path=path)


def check_history(passwords: Passwords, hashes: list[str], password: str, *path: str) -> None:
    """Refuse a password that one of the hashes is of. Raises Invalid at ``path``, RateLimited."""
    if any(passwords.matches(each, password) for each in hashes):
        raise Invalid("This password was used before.", path=path)


def recent(session: Session, user_id: int, count: int) -> list[str]:
    """The newest hashes a user had, newest first."""
    statement = select(PasswordHistory.password).where(PasswordHistory.user_id == user_id)
    return list(session.exec(statement.order_by(col(PasswordHistory.id).desc()).limit(count)))


def remember(session: Session, user_id: int, kept: str, count: int) -> None:
    """Put a user's new hash into the memory, and drop what is older than the newest ``count``."""
    session.add(PasswordHistory(user_id=user_id, password=kept))
    session.flush()
    statement = select(PasswordHistory).where(PasswordHistory.user_id == user_id)
    for each in session.exec(statement.order_by(col(PasswordHistory.id).desc()).offset(count)):
        session.delete(each)


def _is_run(text: str) -> bool:
    return len({ord(right) - ord(left) for left, right in pairwise(text)}) == 1


def _is_repetition(text: str) -> bool:
    """Whether the text is one shorter text (of at most a third of its length) over and over."""
    place = (text + text).find(text, 1)
    return place <= len(text) // 3
