"""A machine's screen: a ticket for it, which opens a WebSocket on the host once, and the handshake there.

The ticket names the host that shows the screen; behind vCenter that is another one than the endpoint. It is spoken to
under the rules of leases (drivers.esxi.nfc): by the endpoint's own trust, or by the certificate's thumbprint as the
endpoint told it; the ticket is not said before. Asking for one changes nothing, so after a lost answer another is asked
for and the first one dies unused. What is spoken is VMware's RFB: seen on a simulator only (see README.md).
"""

from __future__ import annotations

import socket
import ssl
import time
from threading import Thread
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from pyVmomi import vim, vmodl
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from drivers.api import Capability, Deadline, HostAtFault, Power, Refused, Transient, Unsupported
from drivers.esxi import nfc, reading
from drivers.esxi.errors import driver_error
from drivers.esxi.machines import EsxiMachines
from drivers.esxi.site import Site, verb
from drivers.esxi.webmks import Relay

KIND: Final = "webmks"
SUBPROTOCOL: Final = "binary"
FRAME_BYTES_MOST: Final = 16 << 20
"""The largest message of a host: a whole screen of four million pixels."""
PIECE_BYTES: Final = 1 << 16


class EsxiScreens:
    """See :class:`drivers.api.GraphicalConsole`."""

    def __init__(self, site: Site, machines: EsxiMachines) -> None:
        self.site = site
        self._machines = machines

    @verb
    def open_console(self, machine_id: UUID, deadline: Deadline) -> socket.socket:
        """See :meth:`drivers.api.GraphicalConsole.open_console`."""
        machine, found = self._machines.must(machine_id, deadline)
        seen = reading.our_machine(found)
        if seen is None or seen.power is not Power.RUNNING:
            raise Refused("the machine does not run")
        try:
            ticket = self.site.look(lambda: machine.AcquireTicket(KIND), deadline)
        except vim.fault.InvalidState as error:
            raise Refused("the machine does not run", vendor_code=type(error).__name__) from error
        except vmodl.MethodFault as error:
            told = driver_error(error)
            if isinstance(told, Unsupported):
                raise Unsupported(Capability.GRAPHICAL_CONSOLE, "the host gives no tickets for consoles") from error
            raise
        wire, protocol = _open(self.site, ticket, deadline)
        ours, theirs = socket.socketpair()
        relay = Relay(wire, protocol, ours)
        Thread(target=relay.run, name="esxi-console", daemon=True).start()
        return theirs


def _open(site: Site, ticket: Any, deadline: Deadline) -> tuple[ssl.SSLSocket, ClientProtocol]:
    """The WebSocket that a ticket opens, ready to carry."""
    at = site.session.endpoint
    host = str(ticket.host or at.host)
    where = f"{f'[{host}]' if ':' in host else host}:{ticket.port or at.port}"
    path = f"/ticket/{quote(str(ticket.ticket), safe='')}"
    connection, target, _ = nfc.connection_to(site, f"https://{where}{path}", _thumbprint(ticket), deadline)
    wire: ssl.SSLSocket = connection.sock
    protocol = ClientProtocol(
        parse_uri(f"wss://{where}{target}"), subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=FRAME_BYTES_MOST
    )
    try:
        protocol.send_request(protocol.connect())
        for data in protocol.data_to_send():
            wire.sendall(data)
        _shake(wire, protocol, deadline)
    except BaseException:
        connection.close()
        raise
    return wire, protocol


def _shake(wire: ssl.SSLSocket, protocol: ClientProtocol, deadline: Deadline) -> None:
    """Wait for the host's consent. What came right behind it stays in the protocol."""
    until = time.monotonic() + deadline.remaining
    while protocol.state.name == "CONNECTING":
        wire.settimeout(max(until - time.monotonic(), 0.001))
        data = wire.recv(PIECE_BYTES)
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        if protocol.handshake_exc is not None:
            break
    error = protocol.handshake_exc
    if error is None:
        return
    events = [each for each in protocol.events_received() if isinstance(each, Response)]
    code = str(events[0].status_code) if events else type(error).__name__
    if isinstance(error, InvalidHandshake) and events:
        raise HostAtFault("the host does not take its own ticket", vendor_code=code) from error
    raise Transient("the host broke off a console", vendor_code=code) from error


def _thumbprint(ticket: Any) -> str | None:
    """The strongest thumbprint that the ticket tells of the host's certificate."""
    told = {str(each.hashAlgorithm).lower(): str(each.thumbprint) for each in ticket.certThumbprintList or ()}
    return told.get("sha256") or ticket.sslThumbprint
