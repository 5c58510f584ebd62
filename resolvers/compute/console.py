"""Graphical consoles in the graph: the ticket. What it opens is in :mod:`resolvers.compute.console_route`."""

from __future__ import annotations

from datetime import datetime

from gateway.compute import console, server
from gateway.kernel.access import Need
from resolvers.kernel.roots import mutation

mutation(
    "serverConsoleCreate", console.create, console.ServerConsoleCreate, Need.MEMBER,
    "Get an address that shows a server's screen, once and within a minute.",
    payload={
        "url": (str, "A page for a browser; it opens once. Told this once."),
        "websocket_url": (str, "The same console for other VNC clients that speak WebSocket. Told this once."),
        "protocol": (console.ConsoleProtocol, "What is spoken there."),
        "expires_at": (datetime, "Until when one of the two has to be opened."),
        "server": (server.NOUN, "The server."),
    },
    secret=frozenset({"url", "websocket_url", "protocol", "expires_at"}),
)  # fmt: skip
