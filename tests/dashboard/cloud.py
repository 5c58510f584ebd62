"""A small cloud with a real schema behind the product's own transport: sessions, who is signed in, ticks to watch.

It answers as the product's schema does, over a real socket, and lets a test set how long a session lasts and end one
from elsewhere. What the product's resolvers do is not its concern: they have their own tests.
"""

import asyncio
import datetime as dt
import secrets
import socket
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import strawberry
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from strawberry.types import Info

from gateway.dashboard.routes import routes
from resolvers.transport import app as transport
from resolvers.transport.caller import OperationInfo

PASSWORD = "correct horse battery staple"


@dataclass
class Sessions:
    """The sessions that live, by token, and who called."""

    expiries: dict[str, dt.datetime] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)
    callers: list[transport.Caller] = field(default_factory=list)
    lifetime: dt.timedelta = dt.timedelta(hours=12)

    def open(self) -> tuple[str, dt.datetime]:
        token = f"ses_{secrets.token_urlsafe(24)}"
        self.expiries[token] = dt.datetime.now(dt.UTC) + self.lifetime
        return token, self.expiries[token]

    def end(self, token: str) -> None:
        del self.expiries[token]
        self.revoked.append(token)

    async def authenticate(self, caller: transport.Caller) -> transport.Identity:
        self.callers.append(caller)
        if caller.token is None:
            return Visitor("anonymous", self)
        expires_at = self.expiries.get(caller.token)
        if expires_at is None or expires_at <= dt.datetime.now(dt.UTC):
            code = transport.ErrorCode.UNAUTHENTICATED
            raise transport.RequestRefused(code, "The token is not valid, or has expired.")
        return Visitor(caller.token, self, expires_at)


@dataclass
class Visitor:
    """Whom a token names; anonymous without one."""

    key: str
    sessions: Sessions
    expires_at: dt.datetime | None = None

    async def valid(self) -> bool:
        return self.expires_at is None or self.key in self.sessions.expiries


def _context(identity: transport.Identity, _caller: transport.Caller, _operation: OperationInfo) -> transport.Identity:
    return identity


_Info = Info[Visitor, None]


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


@strawberry.type
class Query:
    @strawberry.field
    def viewer(self, info: _Info) -> Viewer | None:
        expires_at = info.context.expires_at
        return Viewer(user=User(name="ada"), expires_at=expires_at) if expires_at else None


@strawberry.type
class Mutation:
    @strawberry.mutation
    def session_create(self, info: _Info, input: SessionCreateInput) -> SessionCreatePayload:  # noqa: A002 - the schema's argument is called input
        if (input.username, input.password) != ("ada", PASSWORD):
            refusal = UserError(code="UNAUTHENTICATED", message="User name or password is wrong.", path=["input"])
            return SessionCreatePayload(token=None, expires_at=None, user=None, user_errors=[refusal])
        token, expires_at = info.context.sessions.open()
        return SessionCreatePayload(token=token, expires_at=expires_at, user=User(name="ada"), user_errors=[])

    @strawberry.mutation
    def session_revoke(self, info: _Info, input: SessionRevokeInput) -> SessionRevokePayload:  # noqa: A002 - as above
        del input
        info.context.sessions.end(info.context.key)
        return SessionRevokePayload(user_errors=[])


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self, info: _Info, upto: int) -> AsyncGenerator[Tick, None]:
        if info.context.expires_at is None:
            raise transport.RequestRefused(transport.ErrorCode.UNAUTHENTICATED, "Sign in first.")
        for count in range(1, upto + 1):
            yield Tick(count=count, seen_by="ada")
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Cloud:
    """A running gateway: its address without a slash at the end, and its sessions."""

    address: str
    sessions: Sessions


@contextmanager
def running(prefix: str = "", *, trusted: Mapping[str, str] | None = None) -> Iterator[Cloud]:
    """A cloud on a free port of loopback, at `prefix` (as behind a proxy), until the block ends. It runs nothing but
    the `trusted` documents when there are such.
    """
    schema = strawberry.Schema(Query, Mutation, Subscription)
    sessions = Sessions()
    settings = transport.TransportSettings(manifest=trusted or {}, trusted_only=trusted is not None)
    served = [
        *routes(sdl=schema.as_str()),
        *transport.routes(schema, settings, sessions.authenticate, _context),
        Route("/healthz", lambda _: JSONResponse({"status": "ok"})),
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
