"""Attaching ports to servers and taking them away, in the graph."""

from __future__ import annotations

from gateway.compute import port_attachment, server
from gateway.jobs import job
from gateway.kernel.access import Need
from gateway.network import port
from resolvers.kernel.roots import mutation

_PAYLOAD = {
    "port": (port.NOUN, "The port as it is now."),
    "server": (server.NOUN, "The server as it is now."),
    "job": (job.NOUN, "The job that does it."),
}

mutation(
    "portAttach", port_attachment.attach, port_attachment.PortAttach, Need.MEMBER,
    "Give a server another interface, running or not: on a port of yours, or on a new one.", payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "portDetach", port_attachment.detach, port_attachment.PortDetach, Need.MEMBER,
    "Take an interface from its server, running or not.", payload=_PAYLOAD,
)  # fmt: skip
