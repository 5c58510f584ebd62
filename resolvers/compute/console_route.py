"""The way of a console's bytes, past GraphQL: a WebSocket that is opened with a ticket, carried to the hypervisor.

The ticket is the whole permission to open it, and what it stands for (a session or key, a user, a role, the server) is
looked at twice a second for all consoles of a process together; who lost one is closed within a second. A page of
another origin gets no handshake. Everything else that is wrong is told by a close code, for a browser shows a script
nothing of a refused handshake: 4404 for the ticket, 4409 when the screen cannot be had, 4429 for too many, 1013 when
the database is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

import structlog
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.compute import console
from gateway.compute.console import Opened
from gateway.kernel.db import Database
from gateway.kernel.errors import NotFound, Refusal, Unavailable
from gateway.kernel.settings import Settings
from resolvers.kernel.context import on_thread
from resolvers.transport.console import SUBPROTOCOL, CarriageEnd, carry
from resolvers.transport.errors import RequestRefused
from resolvers.transport.lives import Tally
from resolvers.transport.vigil import Bells
from resolvers.transport.websocket import origin_allowed

PATH: Final = "/console/socket"
LOOK_S: Final = 0.5
DOUBT_S: Final = 30.0
"""For so long a database that does not answer is no reason to close anything."""
MOST_OF_A_USER: Final = 32
MOST_UNPROVEN: Final = 100
"""Tickets of one address that are looked at at the same time."""
_REASON_BYTES: Final = 120

log = structlog.get_logger(__name__)


def routes(db: Database, settings: Settings, live: Any, stopping: asyncio.Event | None) -> list[WebSocketRoute]:
    """The route, to be mounted at the root. ``live`` opens screens (workers.compute.live)."""
    return [WebSocketRoute(PATH, ConsoleEndpoint(db, settings, live, stopping))]


class ConsoleEndpoint:
    """All consoles of one process."""

    def __init__(self, db: Database, settings: Settings, live: Any, stopping: asyncio.Event | None) -> None:
        self._db = db
        self._settings = settings
        self._live = live
        self._tally = Tally(MOST_OF_A_USER, "consoles")
        self._pending = Tally(MOST_UNPROVEN, "tickets shown at once")
        self._vigil = ConsoleVigil(db)
        self._stopping = Bells(stopping)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one console until it ends."""
        websocket = WebSocket(scope, receive, send)
        if not origin_allowed(websocket, self._settings.cors_origins):
            await websocket.close(1008)  # before the handshake is accepted this is an HTTP 403
            return
        offered = websocket.scope.get("subprotocols", [])
        await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        if offered and SUBPROTOCOL not in offered:
            await websocket.close(4406, "Subprotocol not acceptable")
            return
        try:
            end = await self._serve(websocket)
        except WebSocketDisconnect:
            return
        except Exception:  # the last line: a bug is logged and the socket still closes properly
            log.exception("console failed")
            end = CarriageEnd(1011, "A fault of the cloud")
        if end is not None:
            with suppress(RuntimeError, WebSocketDisconnect):  # it is closed already
                reason = end.reason.encode()[:_REASON_BYTES].decode(errors="ignore")
                await websocket.close(end.code, reason)

    async def _serve(self, websocket: WebSocket) -> CarriageEnd | None:
        try:
            with self._pending.slot(_address(websocket)):
                opened = await on_thread(lambda: self._redeem(websocket))
        except NotFound as refused:
            return CarriageEnd(4404, refused.message)
        except RequestRefused as refused:
            return CarriageEnd(4429, str(refused))
        except Unavailable as away:
            return CarriageEnd(1013, str(away))
        try:
            with self._tally.slot(str(opened.user)):
                return await self._open(websocket, opened)
        except RequestRefused as refused:
            return CarriageEnd(4429, str(refused))
        except Refusal as refused:
            return CarriageEnd(4409, str(refused.data.get("reason") or refused.message))
        finally:
            await on_thread(lambda: self._forget(opened.console_id))

    def _redeem(self, websocket: WebSocket) -> Opened:
        ticket = websocket.query_params.get("ticket", "")
        if len(ticket) != console.TICKET_CHARS:
            raise NotFound("There is no ticket in this address.")
        shown = websocket.headers.get("origin")
        origin = shown.lower() if shown is not None else None
        with self._db.read() as session:
            console.proven(session, ticket, origin)  # what is made up costs a look, and never waits for the writers
        return self._db.run(lambda session: console.redeem(session, ticket, origin, _address(websocket)))

    def _forget(self, console_id: int) -> None:
        with suppress(Unavailable):  # it opens nothing any more, and is swept up within a day
            self._db.run(lambda session: console.closed(session, console_id))

    async def _open(self, websocket: WebSocket, opened: Opened) -> CarriageEnd | None:
        line = await on_thread(lambda: self._live.open_console(opened.server))
        with ExitStack() as stack:
            stack.enter_context(line)
            reasons = {
                stack.enter_context(self._vigil.over(opened.console_id)): (4403, "You may not see it any more"),
                stack.enter_context(self._stopping.rung()): (1001, "The server is stopping"),
            }
            return await carry(websocket, line, reasons, self._settings.console_idle_s)


def _address(websocket: WebSocket) -> str:
    return websocket.client.host if websocket.client else ""


class ConsoleVigil:
    """Looks whether the open consoles may still be open: one question for all of them, twice a second, while there are
    any. For one event loop.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._open: dict[int, asyncio.Future[None]] = {}
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def over(self, console_id: int) -> Iterator[asyncio.Future[None]]:
        """A future that is done when this console may not be open any more."""
        future = self._open[console_id] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._look())
        try:
            yield future
        finally:
            del self._open[console_id]
            future.cancel()
            if not self._open and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        known_at = loop.time()
        while True:
            await asyncio.sleep(LOOK_S)
            asked = frozenset(self._open)
            try:
                standing = await on_thread(lambda asked=asked: self._standing(asked))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            except Exception as error:  # the database is away, and will be asked again
                log.warning("consoles could not be looked at", exc_info=error)
                if loop.time() - known_at < DOUBT_S:
                    continue
                standing = set()
            known_at = loop.time()
            for console_id in asked - standing:
                future = self._open.get(console_id)
                if future is not None and not future.done():
                    future.set_result(None)

    def _standing(self, console_ids: frozenset[int]) -> set[int]:
        with self._db.read() as session:
            return console.standing(session, console_ids)
