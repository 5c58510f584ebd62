"""``python -m tests.bench.listeners``: many WebSocket subscribers in one process, made to cost next to nothing.

Reads one line of JSON from its input: the address, the tokens and how many sockets each opens, the subscription, and
how many sockets here a change reaches. Says ``ready`` when all have asked, then one line for each change that has
reached so many: the server's description after it, when each socket had been read, and when the kernel had what was
read (milliseconds of the machine's monotonic clock; what lies between is this process's own doing). Frames are
read by hand: a library of WebSockets would use more of the machine than the gateway that is measured.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
import struct
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

AT_ONCE = 40
_TEXT, _CLOSE, _PING = 1, 8, 9
_TIMESTAMPS = 35
"""SO_TIMESTAMPNS: the kernel tells with what is read when it came, by the clock of the day."""
_AHEAD_MS = (time.time() - time.monotonic()) * 1000
_CHANGE = re.compile(rb'"description":"([^"]*)"')


@dataclass(slots=True)
class Crowd:
    """All sockets of this process, and when each event reached them."""

    wanted: dict[str, Any]
    lost: int = 0
    heard: dict[str, tuple[list[float], list[float]]] = field(default_factory=lambda: defaultdict(lambda: ([], [])))

    def hear(self, change: str, came_ms: float) -> None:
        """A socket has this change; the kernel had it then."""
        read, came = self.heard[change]
        read.append(round(time.monotonic() * 1000, 2))
        came.append(round(came_ms, 2))
        if len(read) == self.wanted["reached"]:
            _say([change, read, came])

    def lose(self) -> None:
        """A socket was closed by the other end."""
        self.lost += 1
        _say({"lost": self.lost})


class Listener:
    """One socket. It is read without a transport, which could not tell when the kernel had what came."""

    def __init__(self, crowd: Crowd, token: str) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        self._crowd = crowd
        self._token = token
        self._bytes = b""
        self._upgraded = False
        self._came_ms = 0.0
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)

    async def open(self, host: str, port: int) -> None:
        """Connect, and ask for the upgrade and for the subscription."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, (host, port))
        loop.add_reader(self._socket, self._readable)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.send(
            f"GET /graphql HTTP/1.1\r\nHost: {self._crowd.wanted['address']}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n".encode()
        )
        await self.ready

    def _readable(self) -> None:
        try:
            data, told, _, _ = self._socket.recvmsg(65_536, 64)
        except BlockingIOError:
            return
        except OSError:
            data, told = b"", []
        if not data:
            self._lose()
            return
        for _, kind, stamp in told:
            if kind == _TIMESTAMPS:
                seconds, nanoseconds = struct.unpack("qq", stamp)
                self._came_ms = seconds * 1e3 + nanoseconds / 1e6 - _AHEAD_MS
        self._take_all(data)

    def _lose(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("closed before it was ready"))
        self._crowd.lose()

    def _take_all(self, data: bytes) -> None:
        self._bytes += data
        if not self._upgraded:
            head, found, rest = self._bytes.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                raise ConnectionError(head[:500].decode())
            self._upgraded, self._bytes = True, rest
            self._send({"type": "connection_init", "payload": {"authorization": f"Bearer {self._token}"}})
        while (frame := self._frame()) is not None:
            self._take(*frame)

    def _frame(self) -> tuple[int, bytes] | None:
        held = self._bytes
        if len(held) < 2:
            return None
        size, start = held[1] & 127, 2
        if size == 126:
            if len(held) < 4:
                return None
            size, start = struct.unpack("!H", held[2:4])[0], 4
        elif size == 127:
            raise ConnectionError("no message of this bench is so long")
        if len(held) < start + size:
            return None
        self._bytes = held[start + size :]
        return held[0] & 15, held[start : start + size]

    def _take(self, kind: int, body: bytes) -> None:
        if kind == _PING:
            self._write(10, body)
        elif kind == _CLOSE:
            raise ConnectionError(f"closed: {body!r}")
        elif b'"type":"next"' in body[:40]:
            found = _CHANGE.search(body)
            if found is not None:  # a server that was never changed has none
                self._crowd.hear(found[1].decode(), self._came_ms)
        elif b'"type":"ping"' in body[:40]:
            self._write(_TEXT, b'{"type":"pong"}')
        elif b'"type":"connection_ack"' in body[:40]:
            self._send({"id": "1", "type": "subscribe", "payload": self._crowd.wanted["operation"]})
            self.ready.set_result(None)
        else:
            raise ConnectionError(body.decode())

    def _send(self, message: dict[str, Any]) -> None:
        self._write(_TEXT, json.dumps(message).encode())

    def _write(self, kind: int, body: bytes) -> None:
        size = bytes([128 | len(body)]) if len(body) < 126 else b"\xfe" + struct.pack("!H", len(body))
        self._socket.send(bytes([128 | kind]) + size + b"\0\0\0\0" + body)  # a mask of zeros changes nothing


def _say(told: Any) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Open all, then listen until the input ends."""
    loop = asyncio.get_running_loop()
    wanted = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    crowd = Crowd(wanted)
    host, port = wanted["address"].split(":")
    tokens = [token for token in wanted["tokens"] for _ in range(wanted["each"])]
    kept: list[Listener] = []
    for start in range(0, len(tokens), AT_ONCE):
        some = [Listener(crowd, token) for token in tokens[start : start + AT_ONCE]]
        await asyncio.gather(*(each.open(host, int(port)) for each in some))
        kept.extend(some)
    _say("ready")
    await loop.run_in_executor(None, sys.stdin.readline)
    os._exit(0)  # thousands of sockets are closed quickest by the system


if __name__ == "__main__":
    try:
        import uvloop

        uvloop.run(main())
    except ImportError:
        asyncio.run(main())
