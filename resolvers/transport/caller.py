"""Who calls and what is asked: the values that the transport hands to the application and gets back from it.

Invariant: nothing here is read from a connection after authentication but through these values, so that a resolver
never sees a header. It deliberately holds no policy: the application says what a token is worth (``authenticate``) and
what a resolver gets to see (``context``).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

import uuid_utils
from graphql import OperationType

from resolvers.transport.errors import ErrorCode, RequestRefused
from resolvers.transport.rates import Budget

_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=+-]{7,127}")
_BEARER: Final = re.compile(r"(?i:bearer) +([A-Za-z0-9\-._~+/:]{1,8192}=*)")


class Transport(StrEnum):
    """How the operation reached us."""

    HTTP = "http"
    SSE = "sse"
    WEBSOCKET = "websocket"


class Caller(NamedTuple):
    """The calling side of one request or one socket, before anybody believed it.

    ``token`` is the bearer token without its scheme, None when none was shown. ``ip`` is the peer as the server saw it
    (behind a proxy: what uvicorn's ``proxy_headers`` made of it).
    """

    token: str | None
    ip: str | None
    user_agent: str | None
    request_id: str
    transport: Transport


Steady = Callable[[], Hashable | None]
"""Asked before and after something, and equal: no identity that has this very function was worth anything else in
between, but for those that expired. None when that is not known."""


class Identity(Protocol):
    """Whom the application recognised. ``key`` counts connections and budgets; an anonymous one names the address.

    ``expires_at`` has a zone. ``valid`` is asked at most every half second for each open socket or stream and answers
    False once the token was revoked. One that has a ``steady`` (:data:`Steady`) is asked seldom while that stays equal.
    """

    @property
    def key(self) -> str:
        """The caller in counters and budgets."""

    @property
    def expires_at(self) -> datetime | None:
        """When what was shown stops being good; None for never."""

    async def valid(self) -> bool:
        """Whether it still is."""


class OperationInfo(NamedTuple):
    """What a resolver's context may know of the operation that it serves.

    ``cost`` is static and at most ``cost_limit``. ``budget`` is the caller's after paying for this operation; None
    without a rate limiter. ``request_id`` is the operation's own: a socket carries many.
    """

    name: str | None
    kind: OperationType
    cost: int
    cost_limit: int
    budget: Budget | None
    request_id: str
    transport: Transport


Authenticate = Callable[[Caller], Awaitable[Identity]]
"""Raises an exception whose ``code`` is UNAUTHENTICATED (or FORBIDDEN, LOCKED_OUT, RATE_LIMITED) to refuse."""

ContextBuilder = Callable[[Identity, Caller, OperationInfo], Any]
"""Makes (or awaits) the strawberry context: once per query or mutation, once per event of a subscription, so that
loaders never serve yesterday's rows to a long stream."""


def new_request_id() -> str:
    """A time-ordered request id."""
    return uuid_utils.uuid7().hex


def request_id_from(header: str | None) -> str:
    """The client's request id if it is sane (8 to 128 plain characters), else a new one."""
    return header if header is not None and _SANE_REQUEST_ID.fullmatch(header) else new_request_id()


def bearer_token(authorization: str | None) -> str | None:
    """The token of an ``Authorization`` value; None for an absent one.

    Raises :class:`RequestRefused` (UNAUTHENTICATED) for any other scheme or form: a malformed header never becomes an
    anonymous call.
    """
    if authorization is None:
        return None
    found = _BEARER.fullmatch(authorization.strip())
    if found is None:
        raise RequestRefused(
            ErrorCode.UNAUTHENTICATED,
            "The authorization must be of the form: Bearer TOKEN.",
            headers={"www-authenticate": 'Bearer error="invalid_request"'},
        )
    return found[1]
