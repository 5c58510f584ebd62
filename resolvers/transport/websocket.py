"""GraphQL over WebSocket: the ``graphql-transport-ws`` subprotocol and no other.

Invariant: nothing runs before ``connection_init`` proved who calls; each operation has its own request id, context,
limits and price, and its errors end it alone; the socket closes with 4403 within half a second of the token's end.
The legacy ``graphql-ws`` subprotocol is deliberately refused (4406). Close codes are those of the protocol: 4400 bad
message, 4401 not authenticated, 4403 no longer allowed, 4408 silence, 4409 operation id in use, 4429 too many
connections or inits, 4500 a bug of ours.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from resolvers.transport.answers import presented
from resolvers.transport.audience import Offer
from resolvers.transport.caller import (
    Authenticate,
    Caller,
    Identity,
    Transport,
    bearer_token,
    new_request_id,
    request_id_from,
)
from resolvers.transport.errors import ErrorCode, RequestRefused, refusal
from resolvers.transport.execution import Engine
from resolvers.transport.lives import Tally, at_once, ended
from resolvers.transport.prompt import PROMPT, Frames, Prompt, frame_of
from resolvers.transport.requests import decoded, request_of
from resolvers.transport.vigil import Bells, Pulse, Vigil

SUBPROTOCOL: Final = "graphql-transport-ws"
_REASON_BYTES: Final = 120
_FAREWELL_SECONDS: Final = 5.0
_PING: Final = frame_of(b'{"type":"ping"}')
_ID_CHARS: Final = 128
_CLOSE_CODES: Final = {
    ErrorCode.UNAUTHENTICATED: 4401,
    ErrorCode.FORBIDDEN: 4403,
    ErrorCode.LOCKED_OUT: 4429,
    ErrorCode.RATE_LIMITED: 4429,
    ErrorCode.TOO_MANY_CONNECTIONS: 4429,
    ErrorCode.BAD_REQUEST: 4400,
    ErrorCode.UNAVAILABLE: 1013,
    ErrorCode.INTERNAL: 4500,
}


class SocketClosed(Exception):  # noqa: N818 - a decision, not an error
    """We close the socket with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode("utf-8", "replace")[:_REASON_BYTES].decode("utf-8", "ignore")


class SocketEndpoint:
    """The WebSocket side of one engine; mount it as the endpoint of a Starlette WebSocketRoute."""

    def __init__(self, engine: Engine, authenticate: Authenticate, tally: Tally) -> None:
        self._engine = engine
        self._authenticate = authenticate
        self._tally = tally
        self._shared = Shared(Vigil(engine.settings.validity_poll_seconds), Bells(engine.settings.stopping))
        self._pending = Tally(engine.settings.pending_connections_per_address, "unauthenticated connections")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one socket until it closes."""
        if not await self._accepted(scope, receive, send):
            return
        try:
            await self._serve(scope, receive, send)
        except SocketClosed as closed:
            await _close(send, closed)
        except RequestRefused as refused:
            await _close(send, SocketClosed(_CLOSE_CODES.get(refused.code, 4400), str(refused)))
        except WebSocketDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the last line: a bug is logged and the socket still closes properly
            await _close(send, SocketClosed(4500, str(refusal(error, new_request_id()))))

    async def _accepted(self, scope: Scope, receive: Receive, send: Send) -> bool:
        websocket = WebSocket(scope, receive, send)
        if not origin_allowed(websocket, self._engine.settings.allowed_origins):
            await websocket.close(1008)  # before the handshake is accepted this is an HTTP 403
            return False
        if SUBPROTOCOL not in scope.get("subprotocols", []):
            await websocket.accept()
            await websocket.close(4406, "Subprotocol not acceptable")
            return False
        await websocket.accept(SUBPROTOCOL)
        return True

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._engine.settings
        address = scope["client"][0] if scope.get("client") else None
        with self._pending.slot(address or ""):
            socket = Socket(scope, receive, send, self._engine, self._shared)
            try:
                async with asyncio.timeout(settings.connection_init_seconds):
                    caller = await socket.introduction(Headers(scope=scope), address)
                    identity = await self._recognised(caller)
            except TimeoutError:
                raise SocketClosed(4408, "Connection initialisation timeout") from None
        scope["headers"] = []  # nobody asks for them any more, and the socket may stay for hours
        with self._tally.slot(identity.key):
            await socket.run(identity, caller)

    async def _recognised(self, caller: Caller) -> Identity:
        try:
            return await self._authenticate(caller)
        except Exception as error:
            raise refusal(error, caller.request_id) from error


def origin_allowed(websocket: WebSocket, allowed: Collection[str]) -> bool:
    """Whether a page may open this socket: one of ours or of an allowed origin. Browsers always say where a page comes
    from; other programs need not.
    """
    origins = websocket.headers.getlist("origin")
    if not origins:
        return True
    if len(origins) > 1:
        return False
    if origins[0] in allowed:
        return True
    try:
        origin = urlsplit(origins[0])
    except ValueError:
        return False
    return origin.scheme in {"http", "https"} and origin.netloc.lower() == websocket.headers.get("host", "").lower()


@dataclass(frozen=True, slots=True)
class Shared:
    """What all sockets wait for, once for all."""

    tokens: Vigil
    stopping: Bells
    frames: Frames = field(default_factory=Frames)


class Socket:
    """One accepted socket: its messages and its operations."""

    __slots__ = (
        "_engine", "_heard", "_operations", "_pings", "_prompt", "_receive", "_send", "_settings", "_shared", "_task",
        "_tasks", "_why",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, engine: Engine, shared: Shared) -> None:
        self._receive = receive
        self._send = send
        self._prompt: Prompt | None = (scope.get("extensions") or {}).get(PROMPT, {}).get("send")
        self._engine = engine
        self._settings = engine.settings
        self._shared = shared
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pings: set[asyncio.Task[None]] | None = None
        self._heard = False
        self._task: asyncio.Task[Any] | None = None
        self._why: SocketClosed | None = None

    async def introduction(self, headers: Headers, address: str | None) -> Caller:
        """The caller as ``connection_init`` introduces it. Raises SocketClosed or RequestRefused."""
        while (message := await self._message())["type"] == "ping":
            await self._tell({"type": "pong"})
        if message["type"] == "subscribe":
            raise SocketClosed(4401, "Unauthorized")
        payload = message.get("payload") or {}
        if message["type"] != "connection_init" or not isinstance(payload, dict):
            raise SocketClosed(4400, "Expected connection_init with an object as payload")
        authorization = payload.get("authorization", payload.get("Authorization"))
        authorization = headers.get("authorization") if authorization is None else authorization
        if authorization is not None and not isinstance(authorization, str):
            raise SocketClosed(4400, "authorization must be a string")
        return Caller(
            token=bearer_token(authorization),
            ip=address,
            user_agent=headers.get("user-agent", "")[:512] or None,
            request_id=request_id_from(headers.get("x-request-id")),
            transport=Transport.WEBSOCKET,
        )

    async def run(self, identity: Identity, caller: Caller) -> None:
        """Acknowledges, then serves operations. Raises SocketClosed, or WebSocketDisconnect when the client left."""
        await self._tell({"type": "connection_ack"})
        self._task = asyncio.current_task()
        pulse = Pulse(self._settings.ping_seconds, self._ping)
        try:
            with (
                self._shared.tokens.when_over(identity, partial(self._stop, 4403, "The token expired or was revoked")),
                self._shared.stopping.when_rung(partial(self._stop, 1001, "The server is stopping")),
            ):
                await self._messages(identity, caller)
        except asyncio.CancelledError:
            if self._why is None or self._task is None:
                raise
            self._task.uncancel()
        finally:
            self._task = None
            pulse.stop()
            await ended([*self._tasks, *(self._pings or ())])
        if self._why is not None:
            raise self._why

    def _stop(self, code: int, reason: str) -> None:
        """Close this socket, whatever it waits for."""
        if self._why is None and self._task is not None:
            self._why = SocketClosed(code, reason)
            self._task.cancel()

    async def _messages(self, identity: Identity, caller: Caller) -> None:
        while True:
            message = await self._message()
            match message["type"]:
                case "ping":
                    await self._tell({"type": "pong"})
                case "pong":
                    pass
                case "subscribe":
                    await self._subscribe(_operation_id(message), message.get("payload"), identity, caller)
                case "complete":
                    task = self._operations.pop(_operation_id(message), None)
                    if task is not None:
                        task.cancel()
                case "connection_init":
                    raise SocketClosed(4429, "Too many initialisation requests")
                case _:
                    raise SocketClosed(4400, "Unknown message type")

    async def _subscribe(self, operation_id: str, payload: object, identity: Identity, caller: Caller) -> None:
        if operation_id in self._operations:
            raise SocketClosed(4409, f"Subscriber for {operation_id} already exists")
        caller = caller._replace(request_id=new_request_id())
        limit = self._settings.subscriptions_per_connection
        if len(self._tasks) >= limit:
            full = RequestRefused(
                ErrorCode.TOO_MANY_SUBSCRIPTIONS, f"This socket carries {limit} operations at once.", limit=limit
            )
            await self._refuse(operation_id, full, caller)
            return
        task = asyncio.create_task(self._operate(operation_id, payload, identity, caller))
        self._operations[operation_id] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _operate(self, operation_id: str, payload: object, identity: Identity, caller: Caller) -> None:
        with suppress(WebSocketDisconnect):
            await self._told(operation_id, payload, identity, caller)

    async def _told(self, operation_id: str, payload: object, identity: Identity, caller: Caller) -> None:
        prefix = '{"id":' + json.dumps(operation_id) + ',"type":"next","payload":'
        try:
            ready = await self._engine.prepare(request_of(payload), identity, caller)
            async with aclosing(self._engine.stream(ready, self._offer(prefix))) as answers:
                async for answer in answers:
                    await self._say(prefix + answer.encoded().decode("ascii") + "}")
            self._forget(operation_id)
            await self._tell({"id": operation_id, "type": "complete"})
        except WebSocketDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - an operation's failure of any kind ends that operation, masked
            self._forget(operation_id)
            await self._refuse(operation_id, refusal(error, caller.request_id), caller)
        finally:
            self._forget(operation_id)

    def _offer(self, prefix: str) -> Offer:
        """Sends what is told to many."""
        prompt, of, head = self._prompt, self._shared.frames.of, prefix.encode("ascii")
        if prompt is not None:
            return lambda body: prompt(of(head, body))
        return lambda body: at_once(self._send({"type": "websocket.send", "text": prefix + body.decode("ascii") + "}"}))

    def _forget(self, operation_id: str) -> None:
        """Frees the id before the last message is sent: the client may use it again at once."""
        if self._operations.get(operation_id) is asyncio.current_task():
            del self._operations[operation_id]

    async def _refuse(self, operation_id: str, refused: RequestRefused, caller: Caller) -> None:
        errors = presented(refused.errors, caller.request_id)
        await self._tell({"id": operation_id, "type": "error", "payload": errors})

    def _ping(self) -> None:
        """Ask for a sign of life; a client that gave none since the last time is gone."""
        if not self._heard:
            self._stop(4408, "No pong")
            return
        self._heard = False
        if self._prompt is not None:
            self._prompt(_PING)  # a client that reads so little that it cannot be asked gives no sign either
            return
        task = asyncio.create_task(self._pinged())
        self._pings = self._pings or set()
        self._pings.add(task)
        task.add_done_callback(self._pings.discard)

    async def _pinged(self) -> None:
        with suppress(WebSocketDisconnect):
            await self._tell({"type": "ping"})

    async def _message(self) -> dict[str, Any]:
        text = await self._received()
        self._heard = True
        try:
            message = decoded(text)
        except RequestRefused:
            raise SocketClosed(4400, "A message must be JSON") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise SocketClosed(4400, "A message must be an object with a type")
        return message

    async def _received(self) -> str:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(event.get("code", 1005))
        text = event.get("text")
        if not isinstance(text, str):
            raise SocketClosed(4400, "A message must be text")
        if len(text) > self._settings.body_size_max_bytes:
            raise SocketClosed(1009, "The message is too large")
        return text

    async def _tell(self, message: Mapping[str, Any]) -> None:
        await self._say(json.dumps(message, separators=(",", ":")))

    async def _say(self, text: str) -> None:
        try:
            await self._send({"type": "websocket.send", "text": text})
        except OSError:  # how an ASGI server says so
            raise WebSocketDisconnect(1006) from None


async def _close(send: Send, closed: SocketClosed) -> None:
    with suppress(OSError, RuntimeError, TimeoutError):  # the client may have closed in the same moment
        async with asyncio.timeout(_FAREWELL_SECONDS):  # or it does not read
            await send({"type": "websocket.close", "code": closed.code, "reason": closed.reason})


def _operation_id(message: Mapping[str, Any]) -> str:
    operation_id = message.get("id")
    if not isinstance(operation_id, str) or not 0 < len(operation_id) <= _ID_CHARS:
        raise SocketClosed(4400, "An operation id must be a string of 1 to 128 characters")
    return operation_id
