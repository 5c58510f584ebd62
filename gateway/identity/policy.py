"""The rules of signing in that an operator may set: lifetimes, lengths, limits.

One frozen value for each database, given by the composition root (``db.provide("identity", Policy(...))``); without it
the defaults below hold, which are safe. Not here: argon2's cost, which belongs to :mod:`gateway.identity.password`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """``session_ttl_s``: how long a token lasts. ``password_history``: how many old passwords may not come again, the
    present one included. ``wrong_passwords`` in a row shut a name out for ``locked_s``. One client address may try to
    sign in ``tries_per_minute`` times. A session's last use is noted every ``last_use_every_s``.
    """

    session_ttl_s: int = 3600
    password_min_chars: int = 12
    password_max_chars: int = 1024
    password_history: int = 5
    wrong_passwords: int = 5
    locked_s: int = 300
    tries_per_minute: int = 60
    last_use_every_s: int = 60


DEFAULT = Policy()

LONGEST_SESSION_S = 86_400
"""No token lasts longer, whatever the setting: a replaced signing key is kept for so long."""


def of(session: Session) -> Policy:
    """The policy of the session's database."""
    found: Policy = session.info.get("identity", DEFAULT)
    return found
