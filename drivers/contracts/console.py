"""What ``drivers/console.py`` promises of a machine's screen, as tests: RFB from the greeting to the first picture.

Bytes go over the line as any VNC client would send them; nothing here knows how the driver came by its socket.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from uuid import uuid4

from drivers import api
from drivers.api import Capability, PowerAction
from drivers.contracts.rig import Rig, refused, unchanged

GREETING = b"RFB 003.008\n"
NO_SECURITY = 1


class ConsoleContract:
    """The graphical console. The log is in the contract of all drivers, for one without machines has none either."""

    def test_a_screen_is_shown_while_the_machine_runs(self, rig: Rig) -> None:
        driver = rig.driver
        if not isinstance(driver, api.GraphicalConsole):
            rig.lacking(Capability.GRAPHICAL_CONSOLE)
            return
        rig.need(Capability.GRAPHICAL_CONSOLE, Capability.MACHINES, Capability.VOLUMES)
        with refused(rig):
            driver.open_console(uuid4(), rig.deadline)
        with rig.boot_volume() as volume, rig.machine(volume) as machine:
            with refused(rig):
                driver.open_console(machine.id, rig.deadline)
            rig.power(machine.id, PowerAction.ON)
            with unchanged(rig):
                first, second = (driver.open_console(machine.id, rig.deadline) for _ in range(2))
            with first, second:
                for each in (first, second):
                    each.settimeout(rig.seconds)
                    width, height = shown(each)
                    assert width > 0
                    assert height > 0
                second.close()
                ask(first)  # the other one's end was not its own
                if rig.stop_behind_our_back is not None:
                    rig.stop_behind_our_back(machine.id)
                else:
                    rig.power(machine.id, PowerAction.OFF)
                while first.recv(1 << 16):
                    pass  # it ends
            with refused(rig):
                driver.open_console(machine.id, rig.deadline)
        rig.works(Capability.GRAPHICAL_CONSOLE)

    def test_a_screen_whose_deadline_passed_is_not_opened(self, rig: Rig) -> None:
        rig.need(Capability.GRAPHICAL_CONSOLE)
        assert isinstance(rig.driver, api.GraphicalConsole)
        with refused(rig, api.Transient):
            rig.driver.open_console(uuid4(), api.Deadline(0))


def shown(wire: socket.socket) -> tuple[int, int]:
    """Go through RFB's greeting as a client does; the size of the screen in pixels."""
    read = _reader(wire)
    assert read(len(GREETING)) == GREETING
    wire.sendall(GREETING)
    kinds = read(read(1)[0])
    assert NO_SECURITY in kinds, "a screen is opened without a password: who may was decided before"
    wire.sendall(bytes([NO_SECURITY]))
    assert read(4) == b"\0\0\0\0"
    wire.sendall(b"\1")  # others may look as well
    width, height, length = struct.unpack(">HH16xI", read(24))
    read(length)
    return width, height


def ask(wire: socket.socket) -> bytes:
    """Ask for a dot of the screen, raw; the bytes of its one pixel."""
    read = _reader(wire)
    wire.sendall(struct.pack(">BxHi", 2, 1, 0) + struct.pack(">BB4H", 3, 0, 0, 0, 1, 1))
    kind, count = struct.unpack(">BxH", read(4))
    assert kind == 0, "the answer is an update of the screen"
    pixel = b""
    for _ in range(count):
        _, _, width, height, encoding = struct.unpack(">4Hi", read(12))
        assert encoding == 0
        pixel = read(width * height * 4)[:4] or pixel
    return pixel


def _reader(wire: socket.socket) -> Callable[[int], bytes]:
    def read(count: int) -> bytes:
        found = b""
        while len(found) < count:
            piece = wire.recv(count - len(found))
            assert piece, "the line ended in the middle"
            found += piece
        return found

    return read
