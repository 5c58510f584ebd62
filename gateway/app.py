"""Composition root: settings become a database, a schema, a doorbell, workers and pages, in one Starlette app.

``Cloud.open`` does everything that must be done before the first request: migrations, the first admin, the local host.
Nothing here holds a rule of the domain.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from gateway import first_start
from gateway.dashboard.asset import Assets
from gateway.dashboard.routes import routes as dashboard_routes
from gateway.database import open_database
from gateway.identity import bootstrap
from gateway.kernel.db import Database
from gateway.kernel.errors import Unavailable
from gateway.kernel.settings import Settings
from gateway.reads.reader import reader
from resolvers.compute.console_route import routes as console_routes
from resolvers.identity.authentication import Recogniser
from resolvers.image.routes import routes as image_routes
from resolvers.integration.download import routes as export_routes
from resolvers.kernel.context import Context, Services
from resolvers.kernel.feed import Feed
from resolvers.planner.planner import Planner
from resolvers.schema import committed, schema
from resolvers.schema_care.deprecation import future
from resolvers.schema_care.future import future_of
from resolvers.transport.app import Caller, OperationInfo, TransportSettings
from resolvers.transport.app import routes as transport_routes
from resolvers.transport.documents import read_manifest, sha256_hex
from resolvers.transport.rates import MemoryRateLimiter
from workers import main as workers
from workers.compute.live import Live
from workers.main import Plant

READY_S = 5.0
FULL_BYTES = 4 << 20
"""Less room than this in the state directory is told as a full disk; SQLite's log alone grows to this size."""
"""How long a database may take to answer and still count as there."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Cloud:
    """One running gateway process."""

    settings: Settings
    db: Database
    plant: Plant
    feed: Feed
    first: first_start.FirstStart
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    asking: asyncio.Future[None] | None = None
    planner: Planner | None = None

    @classmethod
    def open(cls, settings: Settings) -> Cloud:
        """Open everything; raises when the database cannot be had.

        Passwords are hashed beside the making of the schema: both take long, and hashing leaves the interpreter free.
        Workers come last, so that what they load for the hosts does not hold up what the first request needs.
        """
        db = open_database(settings)
        with ThreadPoolExecutor(1, "first-start") as beside:
            admin = beside.submit(bootstrap.ensure_admin, db, settings.state_dir, settings.admin_password)
            schema()
            made = admin.result()
        plant = workers.start(db, settings, work=settings.embedded)
        return cls(settings, db, plant, Feed(db), first_start.prepare(db, settings, made))

    def close(self) -> None:
        """Let go of everything, steps under way first."""
        self.plant.stop()
        if self.planner is not None:
            self.planner.close()
        self.db.close()

    def app(self) -> Starlette:
        """The ASGI application; its lifespan starts the feed, and closes the cloud at the end."""

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            self.feed.start()
            yield
            self.stopping.set()
            await self.feed.stop()
            await asyncio.to_thread(self.close)

        return Front(routes=self._routes(), lifespan=lifespan)

    def _routes(self) -> list[BaseRoute]:
        live = Live(self.db, self.plant.hosts)
        services = Services(
            db=self.db,
            feed=self.feed,
            settings=self.settings,
            extras={"live": live, "drivers": self.first.known},
        )
        recogniser = Recogniser(self.db)
        if self.settings.read_planner:
            connections = reader(self.db, self.settings.operation_timeout_s)
            self.planner = Planner(schema(), connections, on_sqlite=self.db.sqlite)

        async def context(identity: Any, caller: Caller, operation: OperationInfo) -> Context:
            structlog.contextvars.bind_contextvars(request_id=operation.request_id)

            async def refresh() -> Any:
                return await identity.current(caller, operation.request_id)

            return Context(subject=await refresh(), services=services, limits=operation, refresh=refresh)

        manifest = self.settings.trusted_documents
        transport = TransportSettings(
            allowed_origins=tuple(self.settings.cors_origins),
            operation_deadline_seconds=self.settings.operation_timeout_s,
            manifest=_trusted(manifest) if manifest else {},
            trusted_only=manifest is not None,
            compression=self.settings.compression,
            stopping=self.stopping,
            plan=self.planner,
            rate_limiter=MemoryRateLimiter(self.settings.rate_limit, 60) if self.settings.rate_limit else None,
        )
        return [
            *transport_routes(schema(), transport, recogniser.authenticate, context, future=future_of),
            *image_routes(self.db, self.settings),
            *export_routes(self.db, self.settings),
            *console_routes(self.db, self.settings, live, self.stopping),
            *dashboard_routes(sdl=committed(), future=lambda: future(committed())),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._metrics),
        ]

    async def _healthz(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "version": version("stratograph")})

    async def _readyz(self, _request: Request) -> Response:
        def ask() -> None:
            with self.db.read() as session:
                session.exec(select(1)).one()

        if self.asking is None or self.asking.done():  # one at a time: a database that hangs must not take all threads
            self.asking = asyncio.ensure_future(asyncio.to_thread(ask))
        try:
            await asyncio.wait_for(asyncio.shield(self.asking), READY_S)
        except (SQLAlchemyError, Unavailable, TimeoutError) as error:
            return JSONResponse({"status": "unavailable", "database": type(error).__name__}, status_code=503)
        free = shutil.disk_usage(self.settings.state_dir).free
        broker, disk = "ok" if self.plant.healthy else "away", "ok" if free >= FULL_BYTES else "full"
        return JSONResponse({"status": "ready", "broker": broker, "disk": disk})

    async def _metrics(self, request: Request) -> Response:
        token = self.settings.metrics_token
        if token is not None and request.headers.get("authorization") != f"Bearer {token}":
            return PlainTextResponse("a bearer token is needed\n", status_code=401)
        from gateway import metrics  # its client library takes as long to load as a small service, and not all ask

        text = await asyncio.to_thread(metrics.render, self.db)
        return Response(text, media_type=metrics.CONTENT_TYPE)


def _trusted(manifest: Path) -> dict[str, str]:
    """The operator's trusted documents, and those of our own command and playground: they must not be shut out."""
    from gateway.client.commands.documents import every as own_documents  # it brings all that reads a command line

    return {
        **{sha256_hex(each): each for each in own_documents()},
        **Assets().documents,
        **read_manifest(manifest),
    }


class Front(Starlette):
    """The application, with a short way to its first two routes, GraphQL by HTTP and by WebSocket: those endpoints
    answer whatever comes by themselves, so the router and the two layers that catch exceptions would only cost them (a
    tenth of reading one server, and some memory for as long as a socket is open).
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve GraphQL, or pass the request on."""
        first, second = self.router.routes[:2]
        kind = scope["type"]
        if kind == "http" and isinstance(first, Route) and scope["path"] == first.path:
            await first.app(scope, receive, send)
        elif kind == "websocket" and isinstance(second, WebSocketRoute) and scope["path"] == second.path:
            await second.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)
