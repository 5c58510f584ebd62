"""A machine's consoles: its log is what virtlogd wrote into the pool, its screen QEMU's own VNC server.

No machine listens for VNC anywhere. libvirtd makes a pair of sockets, gives QEMU one end and us the other, whatever the
domain's definition says of an address (those of older versions say 127.0.0.1). A descriptor only travels over a UNIX
socket, so a host that is reached by network shows no screen.

The log is read through libvirt's download stream. virtlogd starts a new file at 2 MiB and keeps the one before as
``.log.0``; both are read when the newest is shorter than what was asked for. Older ones are not.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import libvirt

from drivers.api import Capability, Deadline, Refused, Unsupported
from drivers.kvm import files, xml
from drivers.kvm.errors import told
from drivers.kvm.link import Link
from drivers.kvm.machines import Domains
from drivers.kvm.names import PoolFile
from drivers.kvm.xml.common import strings

_BY_SOCKET = frozenset({"qemu", "qemu+unix"})


def has_screens(endpoint: str) -> bool:
    """Whether libvirtd at that address can hand over descriptors."""
    parts = urlsplit(endpoint)
    return parts.scheme in _BY_SOCKET and not parts.hostname


def screen(link: Link, machines: Domains, machine_id: UUID, deadline: Deadline) -> socket.socket:
    """A new connection to a running machine's VNC server."""
    if not has_screens(link.config.endpoint):
        raise Unsupported(
            Capability.GRAPHICAL_CONSOLE,
            "libvirt hands a screen over only on the host itself, where the API would have to run, too",
        )
    with told(f"opening the screen of machine {machine_id}", Capability.GRAPHICAL_CONSOLE):
        domain = machines.domain(machine_id, deadline)
        if domain is None:
            raise Refused("there is no such machine")
        if not domain.isActive():
            raise Refused("the machine does not run")
        shown = strings(xml.parse(domain.XMLDesc(0)), "devices/graphics/@type")
        if "vnc" not in shown:
            raise Unsupported(Capability.GRAPHICAL_CONSOLE, "the machine was made without a VNC display")
        # Without a password: whoever reached this socket was let in by libvirtd.
        descriptor = domain.openGraphicsFD(shown.index("vnc"), libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    return socket.socket(fileno=descriptor)


def tail(link: Link, machine_id: UUID, max_bytes: int, deadline: Deadline) -> bytes:
    """The newest ``max_bytes`` bytes; empty when there is no log."""
    newest_first: list[bytes] = []
    left = max_bytes
    with told(f"reading the console log of {machine_id}", Capability.CONSOLE_LOG):
        where = files.pool(link, deadline)
        for extension in ("log", "log.0"):
            piece = _tail(where, PoolFile("console", machine_id, extension), left, deadline)
            newest_first.append(piece)
            left -= len(piece)
    return b"".join(reversed(newest_first))


def _tail(where: Any, file: PoolFile, max_bytes: int, deadline: Deadline) -> bytes:
    volume = files.look_up(where, file)
    sizes = files.info(volume) if volume is not None else None
    if volume is None or sizes is None or max_bytes <= 0:
        return b""
    length = min(max_bytes, sizes[0])
    if not length:
        return b""
    return files.download(volume, sizes[0] - length, length, deadline)
