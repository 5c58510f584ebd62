"""Puts the transport together: one schema, one path, four ways in.

``routes`` is all that an application needs; it mounts them in its Starlette app and runs uvicorn with
``ws_max_size=settings.body_size_max_bytes`` (uvicorn reads a whole message before we see its size).
"""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from strawberry import Schema

from resolvers.transport.caller import Authenticate, Caller, ContextBuilder, Identity, OperationInfo, Transport
from resolvers.transport.errors import ErrorCode, RequestRefused
from resolvers.transport.execution import Engine
from resolvers.transport.http import GraphQLEndpoint
from resolvers.transport.lives import Tally
from resolvers.transport.settings import TransportSettings
from resolvers.transport.sse import EventStreams
from resolvers.transport.websocket import SocketEndpoint

__all__ = [
    "Authenticate",
    "Caller",
    "ContextBuilder",
    "ErrorCode",
    "Identity",
    "OperationInfo",
    "RequestRefused",
    "Transport",
    "TransportSettings",
    "routes",
]

_CORS_REQUEST_HEADERS = ("authorization", "content-type", "x-request-id")
_CORS_MAX_AGE_SECONDS = 600
_COMPRESSED_FROM_BYTES = 4096


def routes(
    schema: Schema, settings: TransportSettings, authenticate: Authenticate, context: ContextBuilder
) -> list[BaseRoute]:
    """The HTTP (with event streams) and WebSocket routes of ``settings.path``.

    ``authenticate`` turns a :class:`Caller` (token None: anonymous) into an :class:`Identity` or raises an exception
    whose ``code`` is UNAUTHENTICATED: 401 over HTTP, close 4401 over WebSocket. ``context`` builds what resolvers get
    as ``info.context``; it may be a coroutine function.
    """
    engine = Engine(schema, settings, context)
    tally = Tally(settings.connections_per_identity, "connections")
    endpoint: ASGIApp = GraphQLEndpoint(engine, authenticate, EventStreams(engine, tally))
    if settings.compression:
        # Callers are known by a header that no foreign page can make a browser send, so lengths betray nothing.
        endpoint = GZipMiddleware(endpoint, minimum_size=_COMPRESSED_FROM_BYTES, compresslevel=1)
    if settings.allowed_origins:
        endpoint = CORSMiddleware(
            endpoint,
            allow_origins=settings.allowed_origins,
            allow_methods=("GET", "POST"),
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=("x-request-id", "retry-after"),
            max_age=_CORS_MAX_AGE_SECONDS,
        )
    return [
        Route(settings.path, endpoint=endpoint),
        WebSocketRoute(settings.path, endpoint=SocketEndpoint(engine, authenticate, tally)),
    ]
