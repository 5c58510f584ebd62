"""The screen of a simulated guest: a VNC server of its own for each console, over a pair of sockets.

It speaks RFB 3.8 as RFC 6143 has it, without security (who holds the other end was let in) and with raw pixels only;
what it shows is a test picture (drivers.sim.picture). It ends when the machine goes off, is suspended or removed, and
when the host is down. One thread for each console, which waits in a read.
"""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack, suppress
from dataclasses import replace
from threading import Thread
from uuid import UUID

from drivers.api import Deadline, MachineChanged, Power, Refused
from drivers.sim.gate import Gate
from drivers.sim.machines import existing
from drivers.sim.picture import HEIGHT, WIDTH, PixelFormat, Shown, picture, pixels
from drivers.sim.watch import SimWatch, watch

VERSION = b"RFB 003.008\n"
NO_SECURITY = 1
RAW = 0
SHOWN_WHILE = frozenset({Power.RUNNING, Power.PAUSED})
LOOK_SECONDS = 0.5
PASTE_BYTES_MOST = 1 << 20
BITS = frozenset({8, 16, 32})


class _OverError(Exception):
    """The client left, or said what it must not."""


def open_screen(gate: Gate, machine_id: UUID, deadline: Deadline) -> socket.socket:
    """A console on that machine. It is watched before it is looked at, so that no stop in between is missed."""
    with ExitStack() as undo:
        ours, theirs = (undo.enter_context(each) for each in socket.socketpair())
        ours.settimeout(LOOK_SECONDS)

        def on_change(change: MachineChanged) -> None:
            if change.machine_id == machine_id and (change.machine is None or change.machine.power not in SHOWN_WHILE):
                with suppress(OSError):  # it was closed meanwhile
                    ours.shutdown(socket.SHUT_RDWR)

        watching = watch(gate.store, on_change, deadline)
        undo.callback(watching.close)
        with gate.verb("open_console", deadline, write=False) as transaction:
            machine = existing(transaction, machine_id)
            if machine.power not in SHOWN_WHILE:
                raise Refused("the machine does not run")
        undo.pop_all()
    screen = _Screen(ours, f"[simulated] {machine.name}", watching)
    Thread(target=screen.serve, name="sim-console", daemon=True).start()
    return theirs


class _Screen:
    """One connection."""

    def __init__(self, wire: socket.socket, title: str, watching: SimWatch) -> None:
        self._wire = wire
        self._title = title.encode()
        self._watching = watching
        self._format = PixelFormat()
        self._shown = Shown()
        self._sent: Shown | None = None
        self._asked: tuple[int, int, int, int] | None = None

    def serve(self) -> None:
        """Talk until either side ends it."""
        try:
            self._greet()
            while True:
                self._take(self._read(1)[0])
                self._show()
        except (_OverError, OSError):
            pass
        finally:
            self._watching.close()
            self._wire.close()

    def _greet(self) -> None:
        self._send(VERSION)
        if self._read(len(VERSION)) != VERSION:
            reason = b"this simulated console speaks RFB 3.8 only"
            self._send(struct.pack(">BI", 0, len(reason)) + reason)
            raise _OverError
        self._send(bytes([1, NO_SECURITY]))
        if self._read(1)[0] != NO_SECURITY:
            reason = b"there is no such security"
            self._send(struct.pack(">II", 1, len(reason)) + reason)
            raise _OverError
        self._send(struct.pack(">I", 0))
        self._read(1)  # whether others may look as well: they may
        own = self._format
        told = struct.pack(">BBBB3H3B3x", own.bits, 24, own.big_endian, 1, *own.most, *own.shifts)
        self._send(struct.pack(">HH", WIDTH, HEIGHT) + told + struct.pack(">I", len(self._title)) + self._title)

    def _take(self, kind: int) -> None:
        """One message of the client."""
        match kind:
            case 0:
                self._format, self._sent = _format(self._read(19)[3:]), None
            case 2:
                (count,) = struct.unpack(">xH", self._read(3))
                self._read(4 * count)  # raw is understood by all
            case 3:
                again, *area = struct.unpack(">B4H", self._read(9))
                self._asked = _within(*area)
                self._sent = self._sent if again else None
            case 4:
                pressed = self._read(7)[0]
                self._shown = replace(self._shown, keys=self._shown.keys + bool(pressed))
            case 5:
                _, x, y = struct.unpack(">B2H", self._read(5))
                self._shown = replace(self._shown, pointer=(min(x, WIDTH - 1), min(y, HEIGHT - 1)))
            case 6:
                (length,) = struct.unpack(">3xI", self._read(7))
                if length > PASTE_BYTES_MOST:
                    raise _OverError
                self._read(length)  # there is nobody to paste it
            case _:
                raise _OverError

    def _show(self) -> None:
        """Answer the client's request, if it made one and has not seen what there is."""
        if self._asked is None or self._sent == self._shown:
            return
        area, self._asked, self._sent = self._asked, None, self._shown
        body = pixels(picture(self._shown), area, self._format)
        self._send(struct.pack(">BxH4Hi", 0, 1, *area, RAW) + body)

    def _read(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            try:
                piece = self._wire.recv(min(count - len(found), 1 << 16))
            except TimeoutError:
                if not self._watching.alive:  # the host is down
                    raise _OverError from None
                continue
            if not piece:
                raise _OverError
            found += piece
        return bytes(found)

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self._wire.send(left) :]
            except TimeoutError:  # the client reads nothing now
                if not self._watching.alive:
                    raise _OverError from None


def _format(told: bytes) -> PixelFormat:
    bits, _, big_endian, true_colour, *rest = struct.unpack(">BBBB3H3B3x", told)
    most, shifts = rest[:3], rest[3:]
    if bits not in BITS or not true_colour or max(shifts) >= bits:
        raise _OverError
    return PixelFormat(bits, bool(big_endian), (most[0], most[1], most[2]), (shifts[0], shifts[1], shifts[2]))


def _within(left: int, top: int, width: int, height: int) -> tuple[int, int, int, int]:
    """The part of an area that is on the screen."""
    left, top = min(left, WIDTH), min(top, HEIGHT)
    return left, top, min(width, WIDTH - left), min(height, HEIGHT - top)
