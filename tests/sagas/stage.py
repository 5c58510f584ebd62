"""Stages: worlds that stand just before a job, made once per saga and copied for each run.

A stage is a folder with the SQLite database and the image store, and the sim host's memory. Ids and clock are
deterministic, so two runs of one job can be compared by content: every table but the trail of what happened, and the
data centre.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Column, DateTime
from sqlmodel import SQLModel, select

from drivers.sim import DataCentre, data_centre
from drivers.sim.store import MemoryStore
from drivers.sim.world import World as Centre
from gateway.compute import flavor as flavors
from gateway.compute import host as hosts
from gateway.identity.tenant import Tenant
from gateway.image import reception
from gateway.jobs.job import LIVE, Job
from gateway.kernel import noun
from gateway.kernel.access import CLOUD, Subject
from gateway.kernel.row import Row
from gateway.metering.usage import Interval
from gateway.network import network as networks
from gateway.network import subnet as subnets
from tests.compute.scene import active_image
from tests.world import World

T = TypeVar("T")

TRAIL = frozenset({"audit_record", "event", "job", "idempotency_key", "turn"})
"""Tables that tell of the way, not of the place."""
_OWN = frozenset({"id", "uid", "version", "revision", "created_at", "updated_at"})
_TOLD = frozenset({"status_reason"})
HOST = "stage"
SETTINGS: dict[str, Any] = {"allowed_import_networks": ["127.0.0.0/8"]}
"""An image is imported from a web server of the tests."""
OTHER = "stage-other"
"""A second host, for what goes from one to another; it is there when a scenario says so."""
CONTENT = b"a disk image".ljust(4096, b"\0")


def ordered_uids() -> Callable[[], UUID]:
    """UUIDv7s that are the same in every run."""
    numbers = itertools.count(1)
    return lambda: UUID(int=0x019B_0000_0000_7000_8000_0000_0000_0000 + next(numbers))


@dataclass(slots=True)
class Stage:
    """A world with one host, a tenant, its member, a flavor, a network and an image (public ids)."""

    world: World
    folder: Path
    centre: DataCentre
    tenant: Tenant
    alice: Subject
    root: Subject
    parts: dict[str, str] = field(default_factory=dict)

    def order(self, function: Callable[..., T], command: Any, *, subject: Subject | None = None) -> T:
        """Ask for something, as the member by default."""
        return self.world.db.run(lambda session: function(session, subject or self.alice, command))

    def done(self, function: Callable[..., Any], command: Any) -> Any:
        """Ask for something and carry it out; the row which the outcome names first."""
        outcome = self.order(function, command)
        self.world.work()
        found = next(iter(outcome.values())) if isinstance(outcome, dict) else outcome
        with self.world.db.read() as session:
            return session.get_one(type(found), found.id)

    def id(self, row: Row) -> str:
        """A row's public id."""
        return noun.public(row)

    @property
    def other(self) -> DataCentre:
        """The second host."""
        return data_centre(OTHER)

    def open_other(self) -> DataCentre:
        """Register the second host."""
        self.order(hosts.enlist, host(OTHER), subject=CLOUD)
        self.other.use_clock(lambda: self.world.clock.at)
        self.world.work()
        return self.other

    def live_job(self) -> Job:
        """The one job that waits to be run."""
        with self.world.db.read() as session:
            return session.exec(select(Job).where(Job.status.in_(LIVE))).one()  # type: ignore[attr-defined]  # a column

    def state(self) -> State:
        """Everything that can be compared."""
        tables = {**_tables(self.world), "files": _files(self.world)}
        return State(tables, self.centre.snapshot_of_world(), self.other.snapshot_of_world())


@dataclass(frozen=True, slots=True)
class State:
    """Rows by table without what differs from run to run, and the data centre, both hosts of it."""

    tables: dict[str, list[str]]
    centre: Centre
    second: Centre

    def difference(self, other: State, *, without: frozenset[str] = frozenset()) -> list[str]:
        """What differs, one line each. ``without`` names tables, and parts of the data centre as ``centre.images``."""
        return [
            *self._difference(other, without),
            *(f"other host: {each}" for each in self.second.difference(other.second)),
        ]

    def _difference(self, other: State, without: frozenset[str]) -> list[str]:
        lines = []
        for name in sorted(self.tables):
            if name not in without and self.tables[name] != other.tables[name]:
                mine, theirs = self.tables[name], other.tables[name]
                lines += [f"{name}: - {each}" for each in mine if each not in theirs]
                lines += [f"{name}: + {each}" for each in theirs if each not in mine]
                lines += [f"{name}: {len(mine)} rows, {len(theirs)} rows"] if len(mine) != len(theirs) else []
        for part in fields(self.centre):
            if f"centre.{part.name}" not in without:
                mine_, theirs_ = getattr(self.centre, part.name), getattr(other.centre, part.name)
                lines += [f"centre.{part.name}: {mine_} != {theirs_}"] if mine_ != theirs_ else []
        return lines


def _files(world: World) -> list[str]:
    """What lies in the image store."""
    root = reception.store_of(world.settings).root
    return sorted(path.name for path in root.iterdir()) if root.is_dir() else []


def _tables(world: World) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with world.db.engine.connect() as connection:
        for name, question in _questions().items():
            # As SQLite has it: the ORM's values of some fifty tables would take longer than the job.
            rows = connection.exec_driver_sql(question)
            columns = tuple(rows.keys())
            found[name] = sorted(repr(dict(zip(columns, each, strict=True))) for each in rows.fetchall())
        connection.rollback()
    return found


@cache
def _questions() -> dict[str, str]:
    """The SQL that reads what can be compared of each table."""
    made = {}
    for name, table in SQLModel.metadata.tables.items():
        if name in TRAIL:
            continue
        read = [_column(each) for each in table.columns if each.key not in _OWN]
        # What was held for a while was held.
        rest = " WHERE ended_at IS NULL" if name == Interval.__tablename__ else ""
        made[name] = f'SELECT {", ".join(read) or "1"} FROM "{name}"{rest}'  # noqa: S608  # our own names
    return made


def _column(column: Column[Any]) -> str:
    """How a column is read: of a moment, and of what is told to people, only whether there is one."""
    name = f'"{column.name}"'
    if column.key in _TOLD or isinstance(getattr(column.type, "impl", column.type), DateTime):
        return f"{name} IS NOT NULL AS {name}"
    return name


def build(folder: Path) -> Stage:
    """A stage in a new folder, the host probed and nothing under way."""
    folder.mkdir(parents=True)
    world = World.open(f"sqlite:///{folder / 'world.db'}", folder, uids=ordered_uids(), **SETTINGS)
    tenant = world.tenant("acme")
    stage = Stage(world, folder, data_centre(HOST), tenant, world.member(tenant).subject, world.admin.subject)
    stage.centre.clear()
    stage.other.clear()
    stage.order(hosts.enlist, host(HOST), subject=CLOUD)
    stage.centre.use_clock(lambda: world.clock.at)
    world.work()
    flavor = stage.order(flavors.create, flavors.FlavorCreate(name="small", vcpus=1, ram_mib=512, disk_gib=2))
    network = stage.order(networks.create, networks.NetworkCreate(name="net"))
    stage.order(subnets.create, subnets.SubnetCreate(network_id=noun.public(network), cidr="10.0.0.0/24"))
    stage.parts.update(
        flavor=noun.public(flavor), network=noun.public(network), image=active_image(world, tenant, content=CONTENT)
    )
    return stage


def host(name: str) -> hosts.HostRegister:
    """A host of four processors and four GiB, in this process's memory."""
    size = {"store": "memory", "vcpus": "4", "ram_mib": "4096", "disk_gib": "100"}
    options = [{"key": key, "value": value} for key, value in size.items()]
    given = {"name": name, "hypervisor": "SIM", "endpoint": f"sim://{name}", "options": options, "vcpu_ratio": 1.0}
    return hosts.HostRegister.model_validate(given)


def _memory(centre: DataCentre) -> MemoryStore:
    assert isinstance(centre.store, MemoryStore)
    return centre.store


def _copied(tables: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {kind: dict(records) for kind, records in tables.items()}


@dataclass(slots=True)
class Template:
    """A folder that is never used itself, only copied, and what is not in it."""

    folder: Path
    at: Any
    tenant: Tenant
    alice: Subject
    root: Subject
    parts: dict[str, str]
    job: Job
    memory: tuple[tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]], ...]
    copies: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def make(cls, folder: Path, scenario: Callable[[Stage], object]) -> Template:
        """Build a stage, bring it to the point where the job waits, and close it."""
        stage = build(folder)
        try:
            scenario(stage)
            job = stage.live_job()
            stores = [_memory(stage.centre), _memory(stage.other)]
            memory = tuple((_copied(each._records), _copied(each._holds)) for each in stores)
        finally:
            stage.world.close()
        return cls(folder, stage.world.clock.at, stage.tenant, stage.alice, stage.root, stage.parts, job, memory)

    @contextmanager
    def copy(self) -> Iterator[Stage]:
        """A stage of one's own."""
        folder = self.folder.with_name(f"{self.folder.name}-{next(self.copies)}")
        shutil.copytree(self.folder, folder)
        # Ids of the run continue far behind those of the template.
        uids = ordered_uids()
        world = World.open(
            f"sqlite:///{folder / 'world.db'}", folder, uids=lambda: UUID(int=uids().int + (1 << 32)), **SETTINGS
        )
        world.clock.at = self.at
        for name, memory in zip((HOST, OTHER), self.memory, strict=True):
            centre = data_centre(name)
            centre.clear()
            store = _memory(centre)
            store._records, store._holds = _copied(memory[0]), _copied(memory[1])
            centre.use_clock(lambda: world.clock.at)
        try:
            yield Stage(world, folder, data_centre(HOST), self.tenant, self.alice, self.root, self.parts)
        finally:
            world.close()
            shutil.rmtree(folder, ignore_errors=True)
