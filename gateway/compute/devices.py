"""Giving a stopped server other devices: virtio in place of VMware's, when its guest has the drivers by then.

Only what the machine looks like to its guest changes; id, disks, ports and addresses stay. The guest has to find its
root disk by something else than a device's name.
"""

from typing import Any

from sqlmodel import Field, Session

from gateway.compute import server as servers
from gateway.compute import server_snapshot
from gateway.compute.host import Host
from gateway.compute.machine_model import Devices
from gateway.compute.server_state import Phase, ServerStatus
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Retryable
from gateway.kernel.errors import InvalidState, Unsupported


class ServerDevicesSet(Retryable):
    """The devices a server is to have."""

    id: AnyId = Field(description="The server; it must be stopped.")
    devices: Devices = Field(description="What its disks and interfaces shall look like to its guest.")


def set_devices(session: Session, subject: Subject, command: ServerDevicesSet) -> dict[str, Any]:
    """Order the change; none is needed when it has them. Raises NotFound, Forbidden, InvalidState, Unsupported."""
    server = servers.reach(session, subject, command.id)
    moving = server.in_place or server.migration_id is not None
    if server.phase is not Phase.READY or server.status is not ServerStatus.STOPPED or moving or server.host_id is None:
        current = "MIGRATING" if moving else server.status.value
        raise InvalidState(f"The server is {current}.", path=("id",), current=current, allowed=["STOPPED"])
    server_snapshot.refuse(session, server, "id")
    host = session.get_one(Host, server.host_id)
    if command.devices is Devices.VMWARE and "VMWARE_DEVICES" not in host.capabilities:
        raise Unsupported(
            "Its host has no such devices.", path=("devices",), capability="VMWARE_DEVICES",
            hypervisor=host.hypervisor.value,
        )  # fmt: skip
    if server.devices is command.devices:
        return {"server": server, "job": None}
    arguments = {"server_id": server.id, "devices": command.devices.value}
    order = Order("server.devices", server.tenant_id, servers.NOUN.public(server), arguments=arguments)
    return {"server": server, "job": jobs.submit(session, subject, order)}
