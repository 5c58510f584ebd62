"""Making servers: one transaction that authorises, checks, takes quota, allocates addresses and volumes, and inserts
server and job together, or refuses and leaves nothing.

The plan is the very same function, rolled back, followed by the same scheduler; so what a plan says is what would
happen.
"""

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, Self
from uuid import UUID

import sqlalchemy as sa
from pydantic import StringConstraints, field_validator, model_validator
from sqlmodel import Field, Session, col

from gateway.compute import flavor as flavors
from gateway.compute import keypair as keypairs
from gateway.compute import placing, server_group
from gateway.compute.flavor import Flavor
from gateway.compute.host import Amount, Hypervisor
from gateway.compute.placement import Decision, Request
from gateway.compute.server import NOUN, Server, share
from gateway.identity import ownership, quota
from gateway.identity.quota import Resource
from gateway.identity.tenant import Tenant
from gateway.image import image as images
from gateway.image.formats import ImageFormat
from gateway.image.image import Image, ImageStatus
from gateway.jobs import job as jobs
from gateway.jobs.job import Job, Order
from gateway.kernel import ids
from gateway.kernel.access import Role, Subject
from gateway.kernel.command import AnyId, Command, KeyValue, Name, Retryable, Tag, unique_keys
from gateway.kernel.errors import Invalid, InvalidState, Refusal
from gateway.kernel.prepared import Prepared, rows_of
from gateway.metering import usage
from gateway.metering.usage import Metered
from gateway.network import network as networks
from gateway.network import port as ports
from gateway.network.port import Port
from gateway.volume import volume as volumes
from gateway.volume.volume import Volume, VolumeStatus

MAX_COUNT = 50
MAX_USER_DATA_BYTES = 65_536
_GIB = 1 << 30


class ServerNetwork(Command):
    """A network interface: on a network (a port is made), or an existing port of yours."""

    network_id: AnyId | None = Field(default=None, description="The network to make a port on.")
    port_id: AnyId | None = Field(default=None, description="An existing port that is not in use.")
    fixed_ip: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        default=None, description="The address the new port shall have; any free one by default."
    )
    security_group_ids: list[AnyId] | None = Field(
        default=None,
        max_length=10,
        description="Security groups of the new port; the tenant's default one when absent.",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.network_id is None) == (self.port_id is None):
            raise ValueError("give networkId or portId, one of them")
        if self.port_id is not None and (self.fixed_ip or self.security_group_ids):
            raise ValueError("an existing port has its address and security groups already")
        return self


class ServerVolume(Command):
    """A data volume: an existing one, or a new one of a size."""

    volume_id: AnyId | None = Field(default=None, description="An available volume.")
    size_gib: int | None = Field(default=None, ge=1, le=65_536, description="Size in GiB of a new, blank volume.")
    delete_with_server: bool = Field(default=False, description="Whether the new volume goes when the server goes.")

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.volume_id is None) == (self.size_gib is None):
            raise ValueError("give volumeId or sizeGib, one of them")
        return self


class ServerCreate(Retryable):
    """A new server."""

    name: Name = Field(description="Its name. With `count`, `-1`, `-2` ... is added.")
    description: Annotated[str, Field(max_length=1024)] = Field(default="", description="What it is for.")
    tenant_id: AnyId | None = Field(default=None, description="Whose it is; your only tenant by default.")
    flavor_id: AnyId = Field(description="Its size.")
    image_id: AnyId | None = Field(default=None, description="The image its own root disk is made from.")
    boot_volume_id: AnyId | None = Field(default=None, description="The volume it boots from instead.")
    networks: list[ServerNetwork] = Field(default_factory=list, max_length=8, description="Its interfaces, in order.")
    volumes: list[ServerVolume] = Field(default_factory=list, max_length=20, description="Its data volumes, in order.")
    keypair_id: AnyId | None = Field(default=None, description="The SSH key that may sign in.")
    user_data: str | None = Field(
        default=None, description="What cloud-init gets: a script or cloud-config, at most 64 KiB."
    )
    tags: list[Tag] = Field(default_factory=list, max_length=50, description="Words to find it by.")
    metadata: list[KeyValue] = Field(
        default_factory=list, max_length=128, description="Texts for the guest and for you."
    )
    group_id: AnyId | None = Field(
        default=None, description="The server group it is in for life: near its other members, or away from them."
    )
    availability_zone: Name | None = Field(default=None, description="The zone it shall run in; any by default.")
    hypervisor: Hypervisor | None = Field(default=None, description="What it shall run on; anything by default.")
    count: int = Field(default=1, ge=1, le=MAX_COUNT, description="How many alike.")

    _metadata = field_validator("metadata")(lambda value: (unique_keys(value), value)[1])

    @field_validator("user_data")
    @classmethod
    def _short(cls, value: str | None) -> str | None:
        if value is not None and len(value.encode()) > MAX_USER_DATA_BYTES:
            raise ValueError("user data is at most 64 KiB")
        return value

    @model_validator(mode="after")
    def _bootable(self) -> Self:
        if (self.image_id is None) == (self.boot_volume_id is None):
            raise ValueError("give imageId or bootVolumeId, one of them")
        single = self.boot_volume_id or any(n.port_id or n.fixed_ip for n in self.networks)
        if self.count > 1 and (single or any(v.volume_id for v in self.volumes)):
            raise ValueError("several servers cannot share a volume, a port or an address")
        return self


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the ids in the input name."""

    tenant: Tenant
    flavor: Flavor
    image: Image | None
    public_key: str | None
    keypair_id: int | None
    group_id: int | None


def create(session: Session, subject: Subject, command: ServerCreate) -> dict[str, Any]:
    """Insert the servers with their jobs, or refuse. Raises any refusal of what they are made of."""
    made = _create(session, subject, command)
    return {"server": made[0][0], "job": made[0][1], "servers": [s for s, _ in made], "jobs": [j for _, j in made]}


def _create(session: Session, subject: Subject, command: ServerCreate) -> list[tuple[Server, Job]]:
    tenant = ownership.tenant_for(session, subject, command.tenant_id, Role.MEMBER)
    parts = _parts(session, subject, command, tenant)
    size = parts.flavor
    amounts = {Resource.SERVERS: 1, Resource.VCPUS: size.vcpus, Resource.RAM_MIB: size.ram_mib}
    quota.take(session, tenant.id, {resource: amount * command.count for resource, amount in amounts.items()})
    return [_one(session, subject, command, parts, number) for number in range(1, command.count + 1)]


def _parts(session: Session, subject: Subject, command: ServerCreate, tenant: Tenant) -> _Parts:
    flavor = flavors.NOUN.get(session, subject, command.flavor_id, "flavorId")
    if flavor.deleted_at is not None:
        raise Invalid("This flavor is no longer offered.", path=("flavorId",))
    image = None if command.image_id is None else _image(session, subject, command.image_id, flavor)
    keypair = None
    if command.keypair_id is not None:
        keypair = keypairs.NOUN.get(session, subject, command.keypair_id, "keypairId")
    group = None if command.group_id is None else server_group.join(session, subject, command.group_id, tenant)
    return _Parts(
        tenant=tenant,
        flavor=flavor,
        image=image,
        public_key=keypair.public_key if keypair else None,
        keypair_id=keypair.id if keypair else None,
        group_id=group.id if group else None,
    )


def _image(session: Session, subject: Subject, public_id: str, flavor: Flavor) -> Image:
    image = images.NOUN.get(session, subject, public_id, "imageId")
    if image.status is not ImageStatus.ACTIVE:
        raise InvalidState(
            f"The image is {image.status.value}.", path=("imageId",), current=image.status.value, allowed=["ACTIVE"]
        )
    if image.format is ImageFormat.ISO:
        raise Invalid("An ISO image is no disk; make a volume from it or choose a disk image.", path=("imageId",))
    needed = max(image.min_disk_gib, -(-(image.virtual_size_bytes or 0) // _GIB))
    if flavor.disk_gib < needed:
        raise Invalid(f"The image needs a disk of {needed} GiB; the flavor has {flavor.disk_gib}.", path=("flavorId",))
    if flavor.ram_mib < image.min_ram_mib:
        raise Invalid(
            f"The image needs {image.min_ram_mib} MiB of memory; the flavor has {flavor.ram_mib}.", path=("flavorId",)
        )
    return image


def _one(session: Session, subject: Subject, command: ServerCreate, parts: _Parts, number: int) -> tuple[Server, Job]:
    server = Server(
        tenant_id=parts.tenant.id,
        creator_id=subject.user_id,
        name=command.name if command.count == 1 else f"{command.name}-{number}",
        description=command.description,
        flavor_id=parts.flavor.id,
        vcpus=parts.flavor.vcpus,
        ram_mib=parts.flavor.ram_mib,
        disk_gib=parts.flavor.disk_gib if parts.image is not None else 0,
        image_id=parts.image.id if parts.image is not None else None,
        keypair_id=parts.keypair_id,
        group_id=parts.group_id,
        public_key=parts.public_key,
        root_uid=ids.new(session) if parts.image is not None else None,
        wanted_hypervisor=command.hypervisor,
        availability_zone=command.availability_zone,
        user_data=command.user_data,
        properties=unique_keys(command.metadata),
        tags=list(dict.fromkeys(command.tags)),
    )
    session.add(server)
    session.flush()
    server.own_ports = _connect(session, subject, command, server)
    fresh_volumes = _volumes(session, subject, command, server)
    if server.disk_gib:
        usage.made(session, server.tenant_id, server.uid, {Metered.DISK_GIB: server.disk_gib})
    public = NOUN.public(server)
    arguments = {"server_id": server.id, "fresh_volumes": fresh_volumes}
    job = jobs.submit(session, subject, Order("server.create", server.tenant_id, public, arguments=arguments))
    return server, job


def _connect(session: Session, subject: Subject, command: ServerCreate, server: Server) -> list[int]:
    """Give the server its ports; answers with the keys of those made for it."""
    fresh = []
    for index, wanted in enumerate(command.networks):
        try:
            if wanted.port_id is not None:
                ports.bind(session, ports.reach(session, subject, wanted.port_id), server.id)
            else:
                asked = ports.Wanted(
                    network_id=wanted.network_id or "",
                    fixed_ip=wanted.fixed_ip,
                    security_group_ids=wanted.security_group_ids,
                    server_id=server.id,
                    nic=index,
                )
                fresh.append(ports.open(session, subject, server.tenant_id, asked).id)
        except Refusal as refusal:
            raise refusal.at("networks", str(index)) from None
    return fresh


def _volumes(session: Session, subject: Subject, command: ServerCreate, server: Server) -> list[int]:
    """Promise the server its volumes, boot volume first; answers with the keys of those made for it."""
    letters = iter("abcdefghijklmnopqrstuvwxyz" if command.boot_volume_id else "bcdefghijklmnopqrstuvwxyz")
    if command.boot_volume_id is not None:
        boot = _own_volume(session, subject, command.boot_volume_id, server, "bootVolumeId")
        volumes.promise(boot, server.id, f"vd{next(letters)}", "bootVolumeId")
    fresh = []
    for index, wanted in enumerate(command.volumes):
        path = ("volumes", str(index))
        device = f"vd{next(letters)}"
        if wanted.volume_id is not None:
            volumes.promise(
                _own_volume(session, subject, wanted.volume_id, server, *path, "volumeId"), server.id, device, *path
            )
            continue
        size = wanted.size_gib or 0
        quota.take(session, server.tenant_id, {Resource.VOLUMES: 1, Resource.VOLUME_GIB: size})
        volume = Volume(
            tenant_id=server.tenant_id,
            name=f"{server.name}-{device}"[:255],
            size_gib=size,
            server_id=server.id,
            device=device,
            delete_with_server=wanted.delete_with_server,
        )
        session.add(volume)
        session.flush()
        usage.made(session, server.tenant_id, volume.uid, {Metered.VOLUME_GIB: size})
        fresh.append(volume.id)
    return fresh


def _own_volume(session: Session, subject: Subject, public_id: str, server: Server, *path: str) -> Volume:
    volume = volumes.NOUN.get(session, subject, public_id, *path)
    if volume.tenant_id != server.tenant_id:
        raise Invalid("The volume belongs to another tenant than the server.", path=path)
    return volume


# ------------------------------------------------------------------------------------------------ placement


class Asked(NamedTuple):
    """What placement has to find for a server, and what it takes of the host; the rows that say so."""

    request: Request
    amount: Amount
    volumes: list[Volume]
    ports: list[Port]


class Made(NamedTuple):
    """A server as its job finds it, with whose it is; its volumes and ports are empty lists where it has none, and
    None where they are still to be read.
    """

    server: Server
    tenant_uid: UUID
    volumes: list[Volume] | None
    ports: list[Port] | None


_SERVER_ID: Any = sa.bindparam("server")
_MADE = Prepared(
    sa.select(
        sa.inspect(Tenant).columns.uid,
        sa.exists().where(col(Volume.server_id) == _SERVER_ID),
        sa.exists().where(col(Port.server_id) == _SERVER_ID),
        *rows_of(Server).columns,
    ).where(col(Server.id) == _SERVER_ID, col(Tenant.id) == col(Server.tenant_id))
)


def made(session: Session, server_id: int) -> Made | None:
    """A server and what comes with it, by one statement; None when it is gone."""
    found = _MADE.first(session, server=server_id)
    if found is None:
        return None
    tenant_uid, volumes_there, ports_there, *row = found
    server = rows_of(Server).object(session, row)
    return Made(server, tenant_uid, None if volumes_there else [], None if ports_there else [])


def request(
    session: Session,
    server: Server,
    avoid: frozenset[int] = frozenset(),
    *,
    held: list[Volume] | None = None,
    connected: list[Port] | None = None,
) -> Asked:
    """What is asked of placement for a server. ``held`` and ``connected`` are its volumes and ports, if known."""
    held = volumes.of_server(session, server.id) if held is None else held
    fresh = sum(v.size_gib for v in held if v.status is VolumeStatus.CREATING)
    where = [v.host_id for v in held if v.host_id is not None and v.status is not VolumeStatus.CREATING]
    connected = ports.of_server(session, server.id) if connected is None else connected
    network_ids = [p.network_id for p in connected]
    needs = {"MACHINES", "VOLUMES"} | ({"NETWORKS"} if connected else set())
    if any(p.port_security for p in connected):
        needs.add("SECURITY_GROUPS")
    amount = Amount(server.vcpus, server.ram_mib, server.disk_gib + fresh)
    wanted = Request(
        vcpus=amount.vcpus,
        ram_mib=amount.ram_mib,
        disk_gib=amount.disk_gib,
        hypervisor=server.wanted_hypervisor.value if server.wanted_hypervisor else None,
        availability_zone=server.availability_zone,
        needs=frozenset(needs),
        only=frozenset(where[:1]) if len(set(where)) == 1 else frozenset() if where else None,
        colliding=networks.colliding_hosts(session, network_ids) if network_ids else frozenset(),
        avoid=avoid,
        together=server_group.together(session, server),
    )
    return Asked(wanted, amount, held, connected)


@dataclass(frozen=True, slots=True)
class Plan:
    """What serverCreate would do. ``quota`` maps each touched resource to (limit, used afterwards); ``price_micros`` is
    what an hour of all the servers costs, None when their flavor has no price.
    """

    decision: Decision | None
    refusals: tuple[Refusal, ...]
    quota: dict[Resource, tuple[int, int]]
    addresses: tuple[str, ...] = ()
    price_micros: int | None = None


def plan(session: Session, subject: Subject, command: ServerCreate) -> Plan:
    """Create, look at what came of it, and leave it to the caller to roll back."""
    made = _create(session, subject, command)
    server = made[0][0]
    decision = placing.explain(session, request(session, server).request)
    held = quota.left(session, server.tenant_id)
    for each in held.values():
        session.refresh(each)
    touched = {
        resource: (held[resource].limit, held[resource].used)
        for resource in (*share(server), Resource.PORTS, Resource.VOLUMES, Resource.VOLUME_GIB)
    }
    keys = [p.id for p in ports.of_server(session, server.id)]
    found = ports.addresses(session, keys)
    price = session.get_one(Flavor, server.flavor_id).price_micros
    total = None if price is None else price * command.count
    return Plan(decision, (), touched, tuple(a for key in keys for a in found.get(key, [])), total)


__all__ = ["Plan", "ServerCreate", "ServerNetwork", "ServerVolume", "create", "plan", "request"]
