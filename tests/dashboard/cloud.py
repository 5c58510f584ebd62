"""A small cloud with a real schema, for the playground alone: sessions, who is signed in, a subscription that ticks.

It answers as the product's schema does (names, payloads, `connection_init`), over a real socket, and lets a test set
how long a session lasts. It is not the product's transport: that has its own tests.
"""

import asyncio
import datetime as dt
import secrets
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from strawberry.asgi import GraphQL
from strawberry.types import Info

from gateway.dashboard.routes import routes

PASSWORD = "correct horse battery staple"


@dataclass
class Sessions:
    """The sessions that live, by token; and every authorization header and payload that came."""

    expiries: dict[str, dt.datetime] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    connection_payloads: list[object] = field(default_factory=list)
    lifetime: dt.timedelta = dt.timedelta(hours=12)

    def open(self) -> tuple[str, dt.datetime]:
        token = f"ses_{secrets.token_urlsafe(24)}"
        self.expiries[token] = dt.datetime.now(dt.UTC) + self.lifetime
        return token, self.expiries[token]

    def of(self, authorization: str) -> dt.datetime | None:
        return self.expiries.get(authorization.removeprefix("Bearer "))


@strawberry.type
class User:
    name: str


@strawberry.type
class UserError:
    code: str
    message: str
    path: list[str]


@strawberry.input
class SessionCreateInput:
    username: str
    password: str


@strawberry.input
class SessionRevokeInput:
    session_id: strawberry.ID | None = None


@strawberry.type
class SessionCreatePayload:
    token: str | None
    expires_at: dt.datetime | None
    user: User | None
    user_errors: list[UserError]


@strawberry.type
class SessionRevokePayload:
    user_errors: list[UserError]


@strawberry.type
class Viewer:
    user: User
    expires_at: dt.datetime


@strawberry.type
class Tick:
    count: int
    seen_by: str


def _authorization(info: Info[dict[str, Any], None]) -> str:
    """The header of a request, or what `connection_init` said on a socket."""
    payload = info.context.get("connection_params")
    if payload is not None:
        info.context["sessions"].connection_payloads.append(payload)
        return str(payload.get("authorization", ""))
    return str(info.context["request"].headers.get("authorization", ""))


@strawberry.type
class Query:
    @strawberry.field
    def viewer(self, info: Info[dict[str, Any], None]) -> Viewer | None:
        expires_at = info.context["sessions"].of(_authorization(info))
        return Viewer(user=User(name="ada"), expires_at=expires_at) if expires_at else None


@strawberry.type
class Mutation:
    @strawberry.mutation
    def session_create(self, info: Info[dict[str, Any], None], input: SessionCreateInput) -> SessionCreatePayload:  # noqa: A002 - the schema's argument is called input
        if (input.username, input.password) != ("ada", PASSWORD):
            refusal = UserError(code="UNAUTHENTICATED", message="User name or password is wrong.", path=["input"])
            return SessionCreatePayload(token=None, expires_at=None, user=None, user_errors=[refusal])
        token, expires_at = info.context["sessions"].open()
        return SessionCreatePayload(token=token, expires_at=expires_at, user=User(name="ada"), user_errors=[])

    @strawberry.mutation
    def session_revoke(self, info: Info[dict[str, Any], None], input: SessionRevokeInput) -> SessionRevokePayload:  # noqa: A002 - as above
        del input
        sessions: Sessions = info.context["sessions"]
        token = _authorization(info).removeprefix("Bearer ")
        del sessions.expiries[token]
        sessions.revoked.append(token)
        return SessionRevokePayload(user_errors=[])


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self, info: Info[dict[str, Any], None], upto: int) -> AsyncGenerator[Tick, None]:
        if info.context["sessions"].of(_authorization(info)) is None:
            raise PermissionError("Sign in first.")
        for count in range(1, upto + 1):
            yield Tick(count=count, seen_by="ada")
            await asyncio.sleep(0.05)


class _Endpoint(GraphQL[dict[str, Any], None]):
    sessions: Sessions

    async def get_context(self, request: Any, response: Any) -> dict[str, Any]:
        return {"request": request, "response": response, "sessions": self.sessions}


@dataclass(frozen=True)
class Cloud:
    """A running gateway: its address without a slash at the end, and its sessions."""

    address: str
    sessions: Sessions


@contextmanager
def running(prefix: str = "") -> Iterator[Cloud]:
    """A cloud on a free port of loopback, at `prefix` (as behind a proxy), until the block ends."""
    schema = strawberry.Schema(Query, Mutation, Subscription)
    sessions = Sessions()
    endpoint = _Endpoint(schema, graphql_ide=None, subscription_protocols=("graphql-transport-ws",))
    endpoint.sessions = sessions
    served = [
        *routes(sdl=schema.as_str()),
        Route("/healthz", lambda _: JSONResponse({"status": "ok"})),
        Route("/graphql", endpoint, methods=["GET", "POST"]),
        WebSocketRoute("/graphql", endpoint),
    ]
    app = Starlette(routes=[Mount(prefix, routes=served)] if prefix else served)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        # The listener is bound already: a first connection waits in its queue until the server takes it.
        yield Cloud(f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}", sessions)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
