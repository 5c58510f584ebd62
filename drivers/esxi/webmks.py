"""The bytes of a console between a host's WebSocket and a plain socket, by one thread.

Each side is read only when the other has taken what came before, so no more than one message waits in either
direction. TLS objects are no good for two threads at once: one thread waits for both sides. It ends when either side
does, and tells the host so.
"""

from __future__ import annotations

import select
import socket
import ssl
from contextlib import suppress

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State

PIECE_BYTES = 1 << 16
CARRIED = frozenset({Opcode.BINARY, Opcode.CONT})
AGAIN = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)
GONE = select.POLLHUP | select.POLLERR


class Relay:
    """One console. ``wire`` is the host's side after its handshake, ``line`` our half of the caller's pair."""

    def __init__(self, wire: ssl.SSLSocket, protocol: ClientProtocol, line: socket.socket) -> None:
        self._wire = wire
        self._protocol = protocol
        self._line = line
        self._to_host = bytearray()
        self._to_line = bytearray()
        self._over = False

    def run(self) -> None:
        """Carry until either side ends."""
        self._wire.setblocking(False)
        self._line.setblocking(False)
        poll = select.poll()
        poll.register(self._wire, 0)
        poll.register(self._line, 0)
        try:
            self._take()  # what came with the handshake
            while not self._over or self._to_line:
                self._turn(poll)
        except (OSError, WebSocketException):
            pass
        finally:
            self._line.close()
            with suppress(OSError, WebSocketException):
                if self._protocol.state is State.OPEN:
                    self._protocol.send_close(1000)
                self._wire.sendall(bytes(self._to_host) + b"".join(self._protocol.data_to_send()))
            self._wire.close()

    def _turn(self, poll: select.poll) -> None:
        hear_host, hear_line = not self._over and not self._to_line, not self._to_host
        poll.modify(self._wire, _wanted(read=hear_host, write=bool(self._to_host)))
        poll.modify(self._line, _wanted(read=hear_line, write=bool(self._to_line)))
        ready = dict(poll.poll(0 if hear_host and self._wire.pending() else None))
        wire, line = (ready.get(each.fileno(), 0) for each in (self._wire, self._line))
        if hear_host:
            self._hear_host()
        elif wire & GONE and not self._over:
            self._over = True
            poll.unregister(self._wire)
        if hear_line and line & (select.POLLIN | GONE):
            self._hear_line()
        elif line & GONE:
            raise ConnectionResetError("the caller closed the console")
        self._write()

    def _hear_host(self) -> None:
        with suppress(*AGAIN):
            data = self._wire.recv(PIECE_BYTES)
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
                self._over = True
            self._take()

    def _take(self) -> None:
        """What the host said, for the other side; and what the protocol answers by itself (pongs, a close)."""
        for event in self._protocol.events_received():
            if isinstance(event, Frame) and event.opcode in CARRIED:
                self._to_line += event.data
            elif isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                self._over = True
        self._to_host += b"".join(self._protocol.data_to_send())
        self._over = self._over or self._protocol.close_expected()

    def _hear_line(self) -> None:
        with suppress(*AGAIN):
            data = self._line.recv(PIECE_BYTES)
            if not data:
                raise ConnectionResetError("the caller closed the console")
            self._protocol.send_binary(data)
            self._to_host += b"".join(self._protocol.data_to_send())

    def _write(self) -> None:
        with suppress(*AGAIN):
            if self._to_host:
                del self._to_host[: self._wire.send(self._to_host)]
        with suppress(*AGAIN):
            if self._to_line:
                del self._to_line[: self._line.send(self._to_line)]


def _wanted(*, read: bool, write: bool) -> int:
    return (select.POLLIN if read else 0) | (select.POLLOUT if write else 0)
