"""What the benches measure against: tenants, hosts and servers, put into the database in bulk.

``Ground`` is a state directory and a database with one member of one tenant, a flavor, an image and a network. Rows
are written past the commands (no events, no quota taken), since a set-up of 10,000 servers must take seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col, select

from gateway.compute.flavor import Flavor
from gateway.compute.host import Host, HostStatus, Hypervisor
from gateway.compute.server import Server
from gateway.compute.server_state import Observed, Phase, ServerStatus
from gateway.database import open_database
from gateway.identity.password import Passwords
from gateway.identity.quota import Quota, Resource
from gateway.identity.role import Membership
from gateway.identity.tenant import Tenant
from gateway.identity.user import User
from gateway.image.formats import ImageFormat
from gateway.image.image import Image, ImageStatus, Visibility
from gateway.jobs.job import Job, Status
from gateway.kernel import ids, noun
from gateway.kernel.access import CLOUD, Role
from gateway.kernel.db import Database
from gateway.kernel.settings import Settings
from gateway.metering.usage import Interval, Metered
from gateway.network import network as networks
from gateway.network import security_group as groups
from gateway.network import subnet as subnets
from gateway.network.address import FreeRange, PortAddress
from gateway.network.network import Network, NetworkCreate
from gateway.network.port import Port
from gateway.network.security_group import PortSecurityGroup, SecurityGroup
from gateway.network.subnet import AllocationPool, SubnetCreate
from gateway.network.tally import EVERYBODY, NetworkTally
from gateway.volume.volume import Volume, VolumeStatus
from tests.bench.client import PASSWORD_OF_BENCH, USER_OF_BENCH
from workers.image.image import store

CONTENT = b"a disk image".ljust(1 << 20, b"\0")
ROOM = {"vcpus": "65536", "ram_mib": "1000000000", "disk_gib": "1000000000"}
_CHUNK = 500


def insert(db: Database, row: SQLModel, changes: Iterator[dict[str, Any]]) -> list[int]:
    """Insert copies of a row, each with its changes; their keys, in order."""
    table: sa.Table = type(row).__table__  # type: ignore[attr-defined]  # every table model has one
    now = datetime.now(UTC)
    given = {name: value for name, value in row.model_dump().items() if name in table.c and name not in ("id", "uid")}
    common = {name: value for name, value in given.items() if value is not None or table.c[name].default is None}
    for name in ("created_at", "updated_at"):
        if name in table.c:
            common[name] = now
    found: list[int] = []
    with db.engine.begin() as connection:
        wanted = [{**common, **({"uid": ids.system()} if "uid" in table.c else {}), **each} for each in changes]
        for start in range(0, len(wanted), _CHUNK):
            statement = sa.insert(table).returning(table.c.id, sort_by_parameter_order=True)
            found.extend(connection.execute(statement, wanted[start : start + _CHUNK]).scalars())
    return found


def one(db: Database, row: SQLModel, **changes: Any) -> int:
    """Insert one row; its key."""
    return insert(db, row, iter([changes]))[0]


@dataclass(slots=True)
class Ground:
    """Keys of what is there, and public ids of what mutations name."""

    settings: Settings
    db: Database
    user: int
    tenant: int
    flavor: int
    image: int
    network: int
    subnet: int

    @classmethod
    def lay(cls, folder: Path, database_url: str | None = None) -> Ground:
        """Everything but hosts and servers, on a new database."""
        settings = Settings(state_dir=folder, database_url=database_url)
        db = open_database(settings)
        tenant = one(db, Tenant(name="bench"))
        user = one(db, User(name=USER_OF_BENCH, password=Passwords().hash(PASSWORD_OF_BENCH)))
        one(db, Membership(user_id=user, tenant_id=tenant, role=Role.MANAGER))
        insert(db, Quota(tenant_id=tenant, resource=Resource.SERVERS, limit=-1), ({"resource": r} for r in Resource))
        flavor = one(db, Flavor(name="bench", vcpus=1, ram_mib=128, disk_gib=1))
        image = active_image(db, settings, tenant, CONTENT, ImageFormat.RAW)
        network, subnet = _network(db, tenant)
        return cls(settings, db, user, tenant, flavor, image, network, subnet)

    def id(self, table: type[Any], key: int) -> str:
        """The public id of a row."""
        with self.db.read() as session:
            return noun.public(session.get_one(table, key))

    def wish(self, *, port: bool) -> dict[str, Any]:
        """The input of a serverCreate."""
        networks = [{"networkId": self.id(Network, self.network)}] if port else []
        return {
            "name": "bench", "flavorId": self.id(Flavor, self.flavor), "imageId": self.id(Image, self.image),
            "networks": networks,
        }  # fmt: skip

    def hosts(self, count: int, prefix: str, **options: str) -> list[int]:
        """Simulated hosts with room for everything, already known to be online."""
        row = Host(
            name=prefix, hypervisor=Hypervisor.SIM, endpoint="", options={**ROOM, **options}, status=HostStatus.ONLINE,
            vcpus=int(ROOM["vcpus"]), ram_mib=int(ROOM["ram_mib"]), disk_gib=int(ROOM["disk_gib"]),
            free_ram_mib=int(ROOM["ram_mib"]), seen_at=datetime.now(UTC),
            capabilities=["MACHINES", "VOLUMES", "NETWORKS", "SECURITY_GROUPS"],
        )  # fmt: skip
        names = (f"{prefix}-{number}" for number in range(count))
        return insert(self.db, row, ({"name": name, "endpoint": f"sim://{name}"} for name in names))

    def servers(self, count: int, *, first: int, host: int, history: bool = True) -> None:
        """Servers that run, each with what it would have left behind: a port with an address, a volume, and (unless
        ``history`` is false) a job and its metered intervals. ``first`` is the number of the first one's address.
        """
        db = self.db
        owner: dict[str, Any] = {"tenant_id": self.tenant}
        row = Server(
            **owner, name="old", creator_id=self.user, status=ServerStatus.ACTIVE, phase=Phase.READY,
            observed=Observed.RUNNING, flavor_id=self.flavor, vcpus=1, ram_mib=128, disk_gib=1, image_id=self.image,
            host_id=host, hypervisor=Hypervisor.SIM, launched_at=datetime.now(UTC), tags=["bench"],
        )  # fmt: skip
        uids = [ids.system() for _ in range(count)]
        keys = insert(db, row, ({"name": f"old-{n}", "uid": uid, "root_uid": uid} for n, uid in enumerate(uids)))
        numbers = range(first, first + count)
        bound = Port(**owner, network_id=self.network, mac="", host_id=host)
        macs = (":".join(f"02{number:010x}"[i : i + 2] for i in range(0, 12, 2)) for number in numbers)
        ports = insert(db, bound, ({"server_id": key, "mac": mac} for key, mac in zip(keys, macs, strict=True)))
        held = PortAddress(port_id=0, subnet_id=self.subnet, address="", position=0)
        net = int(IPv4Address("10.0.0.0"))
        insert(db, held, (
            {"port_id": port, "address": str(IPv4Address(net + number)), "position": number, "pooled": True}
            for port, number in zip(ports, numbers, strict=True)
        ))  # fmt: skip
        self._join(ports)
        disk = Volume(**owner, name="data", status=VolumeStatus.IN_USE, size_gib=1, host_id=host, device="vdb")
        insert(db, disk, ({"server_id": key} for key in keys))
        if not history:
            return
        now = datetime.now(UTC)
        done = Job(**owner, kind="server.create", status=Status.SUCCEEDED, progress=1.0, due_at=now, finished_at=now)
        targets = [ids.encode("server", uid) for uid in uids]
        insert(db, done, ({"target": target, "resource": target} for target in targets))
        interval = Interval(**owner, resource=Metered.VCPU, object_uid=ids.system(), amount=1, started_at=now)
        for resource in (Metered.VCPU, Metered.RAM_MIB, Metered.DISK_GIB):
            insert(db, interval, ({"object_uid": uid, "resource": resource} for uid in uids))

    def analysed(self) -> None:
        """Have PostgreSQL count what there is, as its autovacuum does soon after so much was written (the tests' server
        runs none).
        """
        if not self.db.sqlite:
            with self.db.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").execute(sa.text("ANALYZE"))

    def _join(self, ports: list[int]) -> None:
        """Make ports members of the tenant's default group, and count them."""
        with self.db.read() as session:
            group = session.exec(select(SecurityGroup.id).where(SecurityGroup.tenant_id == self.tenant)).one()
        member = PortSecurityGroup(port_id=0, security_group_id=group, network_id=self.network)
        insert(self.db, member, ({"port_id": port} for port in ports))

        def count(session: Session) -> None:
            for each in (EVERYBODY, group):
                found = session.exec(
                    select(NetworkTally).where(NetworkTally.network_id == self.network, NetworkTally.group_id == each)
                ).first() or NetworkTally(network_id=self.network, group_id=each)
                found.ports += len(ports)
                session.add(found)

        self.db.run(count)


def _network(db: Database, tenant: int) -> tuple[int, int]:
    """A network on 10.0.0.0/8; the lower half of its addresses is for servers put in by hand."""

    def make(session: Session) -> tuple[int, int]:
        owner = noun.public(session.get_one(Tenant, tenant))
        network = networks.create(session, CLOUD, NetworkCreate(name="bench", tenant_id=owner))
        session.flush()
        by_hand = AllocationPool(first="10.0.0.2", last="10.127.255.255")
        given = AllocationPool(first="10.128.0.0", last="10.255.255.254")
        wanted = SubnetCreate(network_id=noun.public(network), cidr="10.0.0.0/8", allocation_pools=[by_hand, given])
        subnet = subnets.create(session, CLOUD, wanted)["subnet"]
        groups.default_of(session, tenant)
        session.execute(sa.delete(FreeRange).where(col(FreeRange.first) < 1 << 23))  # nobody is given one of these
        return network.id, subnet.id

    return db.run(make)


def active_image(
    db: Database, settings: Settings, tenant: int, content: bytes, kind: ImageFormat, *, size: int = 0
) -> int:
    """An image that is ready, with its file in the store; ``size`` is its virtual size in bytes if that differs."""
    uid = ids.system()
    key = one(
        db,
        Image(
            tenant_id=tenant, name="bench", status=ImageStatus.ACTIVE, visibility=Visibility.PRIVATE, format=kind,
            size_bytes=len(content), received_bytes=len(content), virtual_size_bytes=size or len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        ),
        uid=uid,
    )  # fmt: skip
    kept = store(settings)
    kept.path(uid, kind).write_bytes(content)
    return key
