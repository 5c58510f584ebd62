"""Puts the transport together: one schema, one path, four ways in; and with ``?future`` the schema that is coming.

``routes`` is all that an application needs; it mounts them in its Starlette app and runs uvicorn with
``ws_max_size=settings.body_size_max_bytes`` (uvicorn reads a whole message before we see its size).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

from graphql import GraphQLSchema
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
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

_FUTURE = re.compile(rb"(?:^|&)future(?:=|&|$)")
_CORS_REQUEST_HEADERS = ("authorization", "content-type", "x-request-id")
_CORS_MAX_AGE_SECONDS = 600


def routes(
    schema: Schema,
    settings: TransportSettings,
    authenticate: Authenticate,
    context: ContextBuilder,
    *,
    future: Callable[[GraphQLSchema], GraphQLSchema] | None = None,
) -> list[BaseRoute]:
    """The HTTP (with event streams) and WebSocket routes of ``settings.path``.

    ``authenticate`` turns a :class:`Caller` (token None: anonymous) into an :class:`Identity` or raises an exception
    whose ``code`` is UNAUTHENTICATED: 401 over HTTP, close 4401 over WebSocket. ``context`` builds what resolvers get
    as ``info.context``; it may be a coroutine function. ``future`` makes the schema that requests with ``?future`` in
    their address meet, with the same resolvers; it is called when the first one comes.
    """
    tally = Tally(settings.connections_per_identity, "connections")

    def ways(engine: Engine) -> tuple[ASGIApp, ASGIApp]:
        streams = EventStreams(engine, tally)
        return GraphQLEndpoint(engine, authenticate, streams), SocketEndpoint(engine, authenticate, tally)

    endpoint, socket = ways(Engine(schema, settings, context))
    if future is not None:

        @cache
        def coming() -> tuple[ASGIApp, ASGIApp]:
            core = future(schema._schema)  # noqa: SLF001 - strawberry offers no public way to its graphql-core schema
            return ways(Engine(schema, replace(settings, plan=None), context, core=core))

        endpoint, socket = ByFuture(endpoint, lambda: coming()[0]), ByFuture(socket, lambda: coming()[1])
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
        WebSocketRoute(settings.path, endpoint=socket),
    ]


class ByFuture:
    """Serves the present, or with ``?future`` in the address what is coming."""

    def __init__(self, present: ASGIApp, coming: Callable[[], ASGIApp]) -> None:
        self._present = present
        self._coming = coming

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        asked = scope["query_string"]
        chosen = self._coming() if asked and _FUTURE.search(asked) else self._present
        await chosen(scope, receive, send)
