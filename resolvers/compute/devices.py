"""Giving a server other devices, in the graph."""

from __future__ import annotations

from gateway.compute import devices, server
from gateway.jobs import job
from gateway.kernel.access import Need
from resolvers.kernel.roots import mutation

mutation(
    "serverDevicesSet", devices.set_devices, devices.ServerDevicesSet, Need.MEMBER,
    "Give a stopped server other devices, such as virtio after it came from VMware; its console log begins anew.",
    payload={
        "server": (server.NOUN, "The server as it is now."),
        "job": (job.NOUN, "The job that does it; null when it has them already."),
    },
)  # fmt: skip
