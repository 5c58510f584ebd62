"""What the application decides about the transport. Every bound has a default that serves a dashboard and a generated
client; none can be switched off by leaving it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graphql import DocumentNode

from resolvers.transport.limits import Limits
from resolvers.transport.operations import Operation
from resolvers.transport.rates import RateLimiter


@dataclass(frozen=True, slots=True)
class Mixed:
    """An operation of which some root fields are answered: ``ready`` JSON by response name. ``rest`` is a document with
    the others alone, ``order`` the names of all.
    """

    order: Sequence[str]
    ready: Mapping[str, bytes]
    rest: DocumentNode


Plan = Callable[[Operation, Mapping[str, Any], Any], Awaitable[bytes | Mixed | None]]
"""A read planner: ``await plan(operation, variables, context)`` gives the JSON text of ``data``, or some roots of it,
or None to let the executor answer. Asked for queries only, after every check; ``operation.memo`` is where it keeps what
it compiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """The transport's settings.

    ``path`` of all four transports. ``allowed_origins``: browser origins beside our own (``https://console.example``)
    that may open a WebSocket and, through CORS, read answers; none by default. ``manifest``: trusted documents by
    SHA-256 (:func:`resolvers.transport.documents.read_manifest`); ``trusted_only`` runs nothing else.
    ``compression`` packs answers above 4 KiB for clients that take gzip (never event streams).
    ``stopping`` is set by the application when the process was told to stop: streams and sockets then end.
    """

    path: str = "/graphql"
    allowed_origins: tuple[str, ...] = ()
    introspection: bool = True
    limits: Limits = field(default_factory=Limits)
    cache_entries_max: int = 1_000
    manifest: Mapping[str, str] = field(default_factory=dict)
    trusted_only: bool = False
    persisted_queries: bool = True
    compression: bool = True
    rate_limiter: RateLimiter | None = None
    plan: Plan | None = None
    body_size_max_bytes: int = 1_048_576
    body_deadline_seconds: float = 10.0
    operation_deadline_seconds: float = 30.0
    connections_per_identity: int = 50
    pending_connections_per_address: int = 100
    subscriptions_per_connection: int = 100
    connection_init_seconds: float = 10.0
    ping_seconds: float = 20.0
    validity_poll_seconds: float = 0.5
    stopping: asyncio.Event | None = None
