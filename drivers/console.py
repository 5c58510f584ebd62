"""A machine's consoles: what it wrote on its serial port, and its screen with keyboard and pointer.

Part of the contract in drivers.api, from where everyone imports it. A graphical console is one connected socket, so
that whoever carries it to a browser needs to know nothing of the platform: bytes of the RFB protocol (RFC 6143) go both
ways, from the server's greeting on. A driver never opens a port for it that others could reach.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol, runtime_checkable
from uuid import UUID

if TYPE_CHECKING:
    from drivers.api import Deadline


@runtime_checkable
class GraphicalConsole(Protocol):
    """Shows a running machine's screen, and takes keys and pointer moves to it."""

    def open_console(self, machine_id: UUID, deadline: Deadline) -> socket.socket:
        """A connected stream, to be closed by the caller. Nobody else's console on the machine ends; this one does when
        the machine stops or is removed. The deadline is for opening only. Raises Refused when there is no such machine
        or it is off or suspended, Unsupported when screens do not come this way.
        """


@runtime_checkable
class ConsoleLog(Protocol):
    """What a machine wrote on its serial port since it was made."""

    def console_log(self, machine_id: UUID, max_bytes: int, deadline: Deadline) -> bytes:
        """The newest ``max_bytes`` bytes; empty when there is none."""
