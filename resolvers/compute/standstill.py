"""Letting servers stand still and go on, in the graph."""

from __future__ import annotations

from gateway.compute import server, standstill
from gateway.jobs import job
from gateway.kernel.access import Need
from resolvers.kernel.roots import mutation

_PAYLOAD = {"server": (server.NOUN, "The server as it is now."), "job": (job.NOUN, "The job that does it.")}

mutation(
    "serverSuspend", standstill.suspend, standstill.ServerSuspend, Need.MEMBER,
    "Save a running server's memory on disk; nothing of it is metered until it goes on.", payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "serverResume", standstill.resume, standstill.ServerResume, Need.MEMBER,
    "Let a suspended server go on where it was.", payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "serverPause", standstill.pause, standstill.ServerPause, Need.MEMBER,
    "Let a running server's processors stand still; its memory is kept.", payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "serverUnpause", standstill.unpause, standstill.ServerUnpause, Need.MEMBER,
    "Let a paused server's processors go on.", payload=_PAYLOAD,
)  # fmt: skip
