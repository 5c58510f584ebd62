"""Guessing passwords is made slow: wrong ones shut a name out for a while, and an address may only try so often.

Invariant: outcomes are counted one after the other, so of any number of parallel tries at most ``wrong_passwords`` ever
learn whether their password was right. Names of nobody are counted alike, so being shut out tells nothing about whether
a user exists. Counts are kept under a digest of the name and forgotten with time. The address window is kept in
each process's memory; it bounds work, the count bounds guesses.
"""

import hashlib
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache, cached_property
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlmodel import Field, Session, col, select

from gateway.identity import policy
from gateway.kernel import clock
from gateway.kernel.errors import LockedOut, RateLimited
from gateway.kernel.row import Row

if TYPE_CHECKING:
    from limits.strategies import SlidingWindowCounterRateLimiter

_FORGOTTEN_AT_ONCE = 20
_SITE_PREFIX_BITS = 64


class WrongPassword(Row, table=True):
    """How many wrong passwords a name had in a row. ``digest`` is SHA-256 of the name."""

    __tablename__ = "wrong_password"

    digest: str = Field(max_length=64, unique=True)
    count: int = 0
    locked_until: datetime | None = None
    forget_at: datetime = Field(index=True)


class Tries:
    """How often each client address tried to sign in within the last minute, in this process."""

    @cached_property
    def _limiter(self) -> "SlidingWindowCounterRateLimiter":
        from limits.storage import MemoryStorage  # with the first who signs in: a start, or a worker, counts nobody
        from limits.strategies import SlidingWindowCounterRateLimiter

        return SlidingWindowCounterRateLimiter(MemoryStorage())

    def spend(self, address: str, per_minute: int) -> None:
        """Count one try. Raises RateLimited. No address (a call inside the process) is not counted."""
        if not address:
            return
        from limits import RateLimitItemPerMinute

        item, key = RateLimitItemPerMinute(per_minute), _site(address)
        if not self._limiter.hit(item, key):
            seconds = _seconds_left(self._limiter.get_window_stats(item, key).reset_time)
            raise RateLimited("Too many tries to sign in from your address.", retry_after_s=seconds)


def tries_of(session: Session) -> Tries:
    """The counter of the session's database (``db.provide("tries", Tries())``), one for the process without it."""
    found: Tries = session.info.get("tries") or _tries()
    return found


def check_open(session: Session, name: str) -> None:
    """Refuse while the name is shut out. Raises LockedOut."""
    found = _get(session, name)
    if found is not None and found.locked_until is not None and found.locked_until > clock.now(session):
        raise _locked(found.locked_until)


def settle_wrong(session: Session, name: str) -> LockedOut | None:
    """Count a wrong password; the refusal that stands instead of it when the name was shut out already."""
    now, rules = clock.now(session), policy.of(session)
    _forget(session, now)
    for_s = timedelta(seconds=rules.locked_s)
    found = _get(session, name)
    if found is not None and found.forget_at <= now:
        session.delete(found)
        session.flush()
        found = None
    if found is None:
        found = WrongPassword(digest=_digest(name), forget_at=now + for_s)
        session.add(found)
    if found.locked_until is not None:
        return _locked(found.locked_until)
    found.count += 1
    found.forget_at = now + for_s
    if found.count >= rules.wrong_passwords:
        found.locked_until = now + for_s
    session.flush()
    return None


def settle_right(session: Session, name: str) -> None:
    """Forget the wrong passwords before a right one. Raises LockedOut when they shut the name out meanwhile."""
    check_open(session, name)
    found = _get(session, name)
    if found is not None:
        session.delete(found)


def unlock(session: Session, name: str) -> None:
    """Let a name in again at once."""
    found = _get(session, name)
    if found is not None:
        session.delete(found)


def locked_until(session: Session, names: Sequence[str]) -> dict[str, datetime]:
    """Until when each of these names is shut out; those that are not are left out."""
    digests = {_digest(name): name for name in names}
    statement = select(WrongPassword).where(
        col(WrongPassword.digest).in_(list(digests)), col(WrongPassword.locked_until) > clock.now(session)
    )
    return {digests[each.digest]: each.locked_until for each in session.exec(statement) if each.locked_until}


def _get(session: Session, name: str) -> WrongPassword | None:
    """The row of a name, locked where the database locks rows."""
    statement = select(WrongPassword).where(WrongPassword.digest == _digest(name))
    return session.exec(statement.with_for_update()).first()


def _forget(session: Session, now: datetime) -> None:
    old = select(WrongPassword.id).where(col(WrongPassword.forget_at) < now).limit(_FORGOTTEN_AT_ONCE)
    keys = list(session.exec(old.with_for_update(skip_locked=True)))
    if keys:
        session.execute(sa.delete(WrongPassword).where(col(WrongPassword.id).in_(keys)))


def _digest(name: str) -> str:
    return hashlib.sha256(name.lower().encode()).hexdigest()


def _locked(until: datetime) -> LockedOut:
    return LockedOut("Too many wrong passwords; wait, or ask an operator.", until=until.isoformat())


def _site(address: str) -> str:
    """The address, or of an IPv6 address the /64: one household has 2^64 of those."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((parsed, _SITE_PREFIX_BITS), strict=False)) if isinstance(parsed, IPv6Address) else address


def _seconds_left(reset_time: float) -> int:
    return max(1, round(reset_time - time.time()))


@cache
def _tries() -> Tries:
    return Tries()
