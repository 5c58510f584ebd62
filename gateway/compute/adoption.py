"""Adopting machines that others made on a host, VMware's for one: they become servers without being touched much.

The row is inserted by the operator's command; what the machine is, is read from the host by the job, and only then does
it get our mark. Its disks become the server's root disk and volumes that stay where they are (``in_place``): they are
metered and count towards quotas, and can be moved to another host with the server (gateway.compute.migration), but not
detached or grown. Deleting such a server hands the machine back, it never destroys it. Interfaces belong to networks of
the cloud only where the operator says so; such a port has the interface's own MAC address.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import StringConstraints
from sqlmodel import Field, Session, col, select

from gateway.compute import flavor as flavors
from gateway.compute import host as hosts
from gateway.compute import server as servers
from gateway.compute.flavor import Flavor
from gateway.compute.host import Amount
from gateway.compute.machine_model import Firmware
from gateway.compute.server import Server
from gateway.identity import ownership, quota
from gateway.identity.quota import Resource
from gateway.jobs import job as jobs
from gateway.jobs.job import Order
from gateway.kernel.access import Role, Subject
from gateway.kernel.command import AnyId, Command, Name, Retryable, Tag
from gateway.kernel.errors import Invalid, NoValidHost, Refusal, Unsupported
from gateway.metering import usage
from gateway.metering.usage import Metered
from gateway.network import port as ports
from gateway.network.port import MacText
from gateway.volume.volume import Volume, VolumeStatus

_GIB = 1 << 30
_TAIL = (1 << 62) - 1
"""The bits of a UUIDv7 that are neither its moment nor its version and variant."""
DEVICES = "abcdefghijklmnopqrstuvwxyz"


class AdoptedInterface(Command):
    """An interface of the machine, and the network of the cloud that it is to be on when the server is moved."""

    mac_address: MacText = Field(description="The interface's MAC address, which its port will have.")
    network_id: AnyId = Field(description="The network.")
    fixed_ip: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="The address that the guest has; any free one by default."
    )
    port_security: bool = Field(
        default=False, description="Whether rules are enforced and false addresses dropped, where a host can do that."
    )


class ServerAdopt(Retryable):
    """A machine to adopt."""

    host_id: AnyId = Field(description="The host that it is on.")
    machine_ref: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        description="What the host calls it: the `ref` of `foreignMachines`."
    )
    tenant_id: AnyId = Field(description="Whose server it becomes.")
    flavor_id: AnyId | None = Field(
        default=None,
        description="The flavor it is shown with, by default one of its vCPUs and memory; its size stays its own.",
    )
    name: Name | None = Field(default=None, description="Its name; the machine's own by default.")
    networks: list[AdoptedInterface] = Field(
        default_factory=list, max_length=8, description="Interfaces that belong to networks of the cloud."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=50, description="Words to find it by.")


def adopt(session: Session, subject: Subject, command: ServerAdopt) -> dict[str, Any]:
    """Insert the server and order the job that reads the machine and marks it. Raises NotFound, Unsupported, Invalid,
    QuotaExceeded, and any refusal of its ports.
    """
    host = hosts.NOUN.get(session, subject, command.host_id, "hostId")
    if "ADOPTION" not in host.capabilities:
        raise Unsupported(
            "Machines on this host cannot be adopted.", path=("hostId",), capability="ADOPTION",
            hypervisor=host.hypervisor.value,
        )  # fmt: skip
    tenant = ownership.tenant_for(session, subject, command.tenant_id, Role.MEMBER)
    flavor = _flavor(session, subject, command.flavor_id)
    quota.take(session, tenant.id, {Resource.SERVERS: 1})
    server = Server(
        tenant_id=tenant.id,
        creator_id=subject.user_id,
        name=command.name or command.machine_ref,
        flavor_id=flavor.id,
        vcpus=0,
        ram_mib=0,
        disk_gib=0,
        hypervisor=host.hypervisor,
        tags=list(dict.fromkeys(command.tags)),
        adopted=True,
        managed=False,
        in_place=True,
    )
    session.add(server)
    session.flush()
    server.own_ports = _connect(session, subject, command, server)
    arguments = {
        "server_id": server.id,
        "on_host": host.id,
        "ref": command.machine_ref,
        "named": command.name is not None,
        "flavored": command.flavor_id is not None,
    }
    order = Order("server.adopt", server.tenant_id, servers.NOUN.public(server), arguments=arguments)
    return {"server": server, "job": jobs.submit(session, subject, order)}


def _flavor(session: Session, subject: Subject, public_id: str | None) -> Flavor:
    """The flavor named, or any for now: the job finds the right one once the machine was read."""
    if public_id is not None:
        found = flavors.NOUN.get(session, subject, public_id, "flavorId")
        if found.deleted_at is not None:
            raise Invalid("This flavor is no longer offered.", path=("flavorId",))
        return found
    offered = select(Flavor).where(col(Flavor.deleted_at).is_(None)).order_by(col(Flavor.id)).limit(1)
    some = session.exec(offered).first()
    if some is None:
        raise Invalid("There is no flavor that it could be shown with.", path=("flavorId",))
    return some


def _connect(session: Session, subject: Subject, command: ServerAdopt, server: Server) -> list[int]:
    made = []
    for index, each in enumerate(command.networks):
        wanted = ports.Wanted(
            network_id=each.network_id, fixed_ip=each.fixed_ip, mac=each.mac_address, port_security=each.port_security
        )
        try:
            port = ports.open(session, subject, server.tenant_id, wanted)
            ports.bind(session, port, server.id)
        except Refusal as refusal:
            raise refusal.at("networks", str(index)) from None
        made.append(port.id)
    return made


# ------------------------------------------------------------------------------------------------ facts


@dataclass(frozen=True, slots=True)
class Found:
    """What a machine was found to be. ``disks`` are (key, size in bytes), the one that boots first; ``nics`` are (MAC,
    the platform's name of the network).
    """

    ref: str
    name: str
    vcpus: int
    ram_mib: int
    firmware: Firmware
    guest: str | None
    disks: tuple[tuple[str, int], ...]
    nics: tuple[tuple[str, str | None], ...]

    @property
    def gib(self) -> list[int]:
        """The disks' sizes, in whole GiB."""
        return [-(-size // _GIB) for _, size in self.disks]


def check_interfaces(session: Session, server: Server, found: Found) -> None:
    """Raises Invalid when a port was made for an interface that the machine does not have."""
    there = {mac.lower() for mac, _ in found.nics}
    for index, port in enumerate(ports.of_server(session, server.id)):
        if port.mac.lower() not in there:
            raise Invalid(
                f"The machine has no interface {port.mac}.", path=("networks", str(index), "macAddress")
            )  # fmt: skip


def read(
    session: Session, server: Server, host_id: int, found: Found, *, flavored: bool, named: bool
) -> dict[str, Any]:  # fmt: skip
    """Record what was read: the server has the machine's size, its quota, room on the host and its disks. Answers with
    what the job is to remember. Raises Invalid, QuotaExceeded, NoValidHost.
    """
    check_interfaces(session, server, found)
    gib = found.gib
    quota.take(
        session, server.tenant_id,
        {
            Resource.VCPUS: found.vcpus, Resource.RAM_MIB: found.ram_mib, Resource.VOLUMES: len(gib) - 1,
            Resource.VOLUME_GIB: sum(gib[1:]),
        },
    )  # fmt: skip
    amount = Amount(found.vcpus, found.ram_mib, sum(gib))
    before = {"name": server.name, "flavor_id": server.flavor_id}
    if not hosts.claim(session, host_id, amount):
        raise NoValidHost("The host has not that much room left, or is out of service.", decision=None)
    if not flavored:
        server.flavor_id = _fitting(session, found).id
    if not named:
        server.name = found.name[:255] or server.name
    server.vcpus, server.ram_mib, server.disk_gib = found.vcpus, found.ram_mib, gib[0]
    server.firmware = found.firmware
    server.host_id = host_id
    server.root_uid = _disk_uid(server, found.disks[0][0])
    nics = [{"mac": mac, "network": network} for mac, network in found.nics]
    server.origin = {"ref": found.ref, "name": found.name, "guest": found.guest, "nics": nics}
    disks = {found.disks[0][0]: [str(server.root_uid), "vda"]}
    for at, ((key, _), size) in enumerate(zip(found.disks, gib, strict=True)):
        if at:
            volume = _volume(session, server, key, f"vd{DEVICES[at]}", size)
            disks[key] = [str(volume.uid), volume.device or ""]
    session.flush()
    return {"disks": disks, "amount": [amount.vcpus, amount.ram_mib, amount.disk_gib], "before": before}


def _fitting(session: Session, found: Found) -> Flavor:
    same = select(Flavor).where(
        Flavor.vcpus == found.vcpus, Flavor.ram_mib == found.ram_mib, col(Flavor.deleted_at).is_(None)
    )
    fitting = session.exec(same.order_by(col(Flavor.id)).limit(1)).first()
    if fitting is None:
        message = f"No flavor has {found.vcpus} vCPUs and {found.ram_mib} MiB: make one, or name the one to show."
        raise Invalid(message, path=("flavorId",))
    return fitting


def _disk_uid(server: Server, key: str) -> UUID:
    """The id of a disk: of the server's own moment, and the same each time the machine is read."""
    tail = int.from_bytes(hashlib.sha256(server.uid.bytes + key.encode()).digest()[:8]) & _TAIL
    return UUID(int=server.uid.int & ~_TAIL | tail)


def _volume(session: Session, server: Server, key: str, device: str, gib: int) -> Volume:
    made = Volume(
        uid=_disk_uid(server, key), tenant_id=server.tenant_id, name=f"{server.name}-{device}"[:255], size_gib=gib,
        server_id=server.id, device=device, delete_with_server=True, status=VolumeStatus.HELD, host_id=server.host_id,
    )  # fmt: skip
    session.add(made)
    return made


def unread(session: Session, server: Server, memory: dict[str, Any]) -> None:
    """Take back what :func:`read` recorded."""
    held = session.exec(select(Volume).where(Volume.server_id == server.id)).all()
    given = {Resource.VCPUS: server.vcpus, Resource.RAM_MIB: server.ram_mib, Resource.VOLUMES: len(held)}
    quota.give(session, server.tenant_id, {**given, Resource.VOLUME_GIB: sum(each.size_gib for each in held)})
    for volume in held:
        session.delete(volume)
    if server.host_id is not None:
        hosts.release(session, server.host_id, Amount(*memory["amount"]))
    server.host_id = server.root_uid = None
    server.vcpus = server.ram_mib = server.disk_gib = 0
    server.name, server.flavor_id = memory["before"]["name"], memory["before"]["flavor_id"]
    server.firmware = Firmware.BIOS
    server.origin = {}


def taken_over(session: Session, server: Server) -> None:
    """The machine carries our mark: from now on the server is managed, and metered."""
    server.managed = True
    servers.ready(server)
    if server.root_uid is not None and server.disk_gib:
        usage.opened(session, server.tenant_id, Metered.DISK_GIB, server.uid, server.disk_gib)
    for volume in session.exec(select(Volume).where(Volume.server_id == server.id)).all():
        usage.opened(session, server.tenant_id, Metered.VOLUME_GIB, volume.uid, volume.size_gib)


def disk_ids(memory: dict[str, Any]) -> dict[str, tuple[UUID, str]]:
    """The job's memory of disks: by the platform's key, our id and the device name."""
    return {key: (UUID(uid), device) for key, (uid, device) in memory["disks"].items()}
