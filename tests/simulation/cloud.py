"""A small cloud under chance: three simulated hosts, two tenants, and everything that may happen to them as one move.

A seed is a run: the same seed makes the same moves, ids and times. Expected refusals are part of life; any other
exception, and any broken rule (tests/simulation/rules.py), is a find.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from sqlmodel import col, select

from drivers.api import DriverError, HostAtFault, Refused, Transient
from drivers.sim import DataCentre, data_centre
from gateway.compute import attachment, port_attachment, relocation, resizing, server, server_create, snapshotting
from gateway.compute import flavor as flavors
from gateway.compute import host as hosts
from gateway.compute.server import Server
from gateway.compute.server_snapshot import ServerSnapshot
from gateway.identity.tenant import Tenant
from gateway.jobs import job as jobs
from gateway.jobs.job import LIVE, Job, Status
from gateway.kernel import noun
from gateway.kernel.access import CLOUD, Subject
from gateway.kernel.errors import Refusal, Refusals
from gateway.kernel.row import Row
from gateway.network import network as networks
from gateway.network import port as ports
from gateway.network import subnet as subnets
from gateway.network.network import Network
from gateway.network.port import Port
from gateway.volume import snapshot as snapshots
from gateway.volume import snapshot_create
from gateway.volume import volume as volumes
from gateway.volume.snapshot import Snapshot
from gateway.volume.volume import Volume
from tests.compute.scene import active_image
from tests.sagas.disturbance import Death, dying_at_commit
from tests.sagas.stage import CONTENT, host, ordered_uids
from tests.world import World
from workers.runner import Runner

R = TypeVar("R", bound=Row)

HOSTS = 3
VERBS = (
    "machines.*",
    "volumes.*",
    "networks.*",
    "snapshots.*",
    "machine_snapshots.*",
    "ports.*",
    "*.ensure",
    "*.remove",
    "*",
)
ERRORS: tuple[type[DriverError], ...] = (Transient, Refused, HostAtFault)
RECONCILERS = ("hosts", "servers", "networks", "server_snapshots")


@dataclass(slots=True)
class Party:
    """A tenant with its member and its network."""

    tenant: Tenant
    member: Subject
    network: str
    image: str


@dataclass(slots=True)
class Cloud:
    """The run of one seed. ``story`` tells what was done, for a find's message."""

    world: World
    chance: Random
    centres: list[DataCentre]
    parties: list[Party]
    flavor: str
    flavors: list[str]
    story: list[str] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    runners: int = 0

    @classmethod
    def open(cls, seed: int, folder: Path) -> Cloud:
        """Set up what a seed begins with."""
        world = World.open(f"sqlite:///{folder / 'world.db'}", folder, uids=ordered_uids())
        centres = [data_centre(f"seed{seed}-{number}") for number in range(HOSTS)]
        for centre in centres:
            centre.clear()
            centre.use_clock(lambda: world.clock.at)
            world.db.run(lambda session, name=centre.name: hosts.enlist(session, CLOUD, host(name)))  # type: ignore[misc]  # mypy: default of a lambda
            world.centres.append(centre)
        world.work()
        size = flavors.FlavorCreate(name="small", vcpus=1, ram_mib=512, disk_gib=2)
        flavor = world.db.run(lambda session: flavors.create(session, CLOUD, size))
        sizes = [
            flavors.FlavorCreate(name=f"v{each}", vcpus=each, ram_mib=256 * each, disk_gib=each) for each in (2, 3)
        ]
        others = [world.db.run(lambda session, each=each: flavors.create(session, CLOUD, each)) for each in sizes]  # type: ignore[misc]  # mypy: default of a lambda
        every = [noun.public(each) for each in (flavor, *others)]
        parties = [_party(world, number) for number in range(2)]
        return cls(world, Random(seed), centres, parties, every[0], every)  # noqa: S311 - chance, not secrets

    # ------------------------------------------------------------------------------------------ rows

    def rows(self, kind: type[R], *where: Any) -> Sequence[R]:
        """Rows, oldest first."""
        with self.world.db.read() as session:
            return session.exec(select(kind).where(*where).order_by(col(kind.id))).all()

    def one(self, kind: type[R], *where: Any) -> R | None:
        """Any of them."""
        found = self.rows(kind, *where)
        return self.chance.choice(found) if found else None

    def ask(self, function: Callable[..., Any], command: Any, subject: Subject | None = None) -> bool:
        """Ask for something; whether it was granted."""
        try:
            self.world.db.run(lambda session: function(session, subject or CLOUD, command))
        except (Refusal, Refusals) as refused:
            self.told[f"refused {function.__module__.rpartition('.')[2]}.{function.__name__}"] += 1
            self.story.append(f"  refused: {refused}")
            return False
        self.told[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"] += 1
        return True

    # ------------------------------------------------------------------------------------------ moves

    def move(self) -> None:
        """One thing happens."""
        names = list(MOVES)
        (name,) = self.chance.choices(names, weights=[MOVES[each] for each in names])
        self.story.append(name)
        getattr(self, name)()

    def server_create(self) -> None:
        party = self.chance.choice(self.parties)
        given: dict[str, Any] = {"name": "s", "flavor_id": self.flavor, "image_id": party.image}
        if self.chance.random() < 0.5:
            given["networks"] = [{"network_id": party.network}]
        fresh = [{"size_gib": 1, "delete_with_server": self.chance.random() < 0.5}]
        given["volumes"] = fresh * self.chance.choice((0, 0, 1, 2))
        free = self.one(Volume, Volume.tenant_id == party.tenant.id, Volume.status == volumes.VolumeStatus.AVAILABLE)
        if free is not None and self.chance.random() < 0.3:
            given["volumes"] = [*given["volumes"], {"volume_id": noun.public(free)}]
        self.ask(server_create.create, server_create.ServerCreate.model_validate(given), party.member)

    def server_change(self) -> None:
        found = self.one(Server)
        if found is not None:
            public = noun.public(found)
            function, command = self.chance.choice((
                (server.start, server.ServerStart(id=public)),
                (server.stop, server.ServerStop(id=public, graceful_timeout_s=0)),
                (server.reboot, server.ServerReboot(id=public, hard=True)),
            ))  # fmt: skip
            self.ask(function, command, self.owner(found))

    def server_size(self) -> None:
        """Another size is asked for, or what waits is decided."""
        found = self.one(Server)
        if found is None:
            return
        public, owner = noun.public(found), self.owner(found)
        if found.resize_id is None:
            wanted = self.chance.choice(self.flavors)
            patience = self.chance.choice((0, 0, 1))
            command = resizing.ServerResize(server_id=public, flavor_id=wanted, graceful_timeout_s=patience)
            self.ask(resizing.resize, command, owner)
        elif self.chance.random() < 0.5:
            self.ask(resizing.confirm, resizing.ServerResizeConfirm(server_id=public), owner)
        else:
            self.ask(resizing.revert, resizing.ServerResizeRevert(server_id=public, graceful_timeout_s=0), owner)

    def server_relocate(self) -> None:
        found = self.one(Server)
        if found is not None:
            live = self.chance.random() < 0.5
            command = relocation.ServerRelocate(server_id=noun.public(found), live=live, graceful_timeout_s=0)
            self.ask(relocation.relocate, command)

    def server_delete(self) -> None:
        found = self.one(Server)
        if found is not None:
            self.ask(server.delete, server.ServerDelete(id=noun.public(found)), self.owner(found))

    def volume_create(self) -> None:
        party = self.chance.choice(self.parties)
        given: dict[str, Any] = {"name": "v", "size_gib": self.chance.randint(1, 3)}
        source = self.one(Snapshot, Snapshot.tenant_id == party.tenant.id)
        if source is not None and self.chance.random() < 0.5:
            given = {"name": "v", "snapshot_id": noun.public(source)}
        elif self.chance.random() < 0.3:
            given["image_id"] = party.image
        self.ask(volumes.create, volumes.VolumeCreate.model_validate(given), party.member)

    def volume_change(self) -> None:
        found = self.one(Volume)
        if found is None:
            return
        public, owner = noun.public(found), self.owner(found)
        holder = self.one(Server, Server.tenant_id == found.tenant_id)
        what = self.chance.choice(("extend", "attach", "attach", "detach", "delete", "snapshot"))
        if what == "extend":
            self.ask(volumes.extend, volumes.VolumeExtend(id=public, size_gib=found.size_gib + 1), owner)
        elif what == "attach" and holder is not None:
            whole = self.chance.random() < 0.3
            command = attachment.VolumeAttach(volume_id=public, server_id=noun.public(holder), delete_with_server=whole)
            self.ask(attachment.attach, command, owner)
        elif what == "detach":
            self.ask(attachment.detach, attachment.VolumeDetach(volume_id=public), owner)
        elif what == "delete":
            self.ask(volumes.delete, volumes.VolumeDelete(id=public), owner)
        elif what == "snapshot":
            self.ask(snapshot_create.create, snapshot_create.SnapshotCreate(volume_id=public, name="n"), owner)

    def snapshot_delete(self) -> None:
        found = self.one(Snapshot)
        if found is not None:
            self.ask(snapshots.delete, snapshots.SnapshotDelete(id=noun.public(found)), self.owner(found))

    def port_change(self) -> None:
        """A port is given to a server, made anew or free, or taken away, with all that it has or without."""
        found, port = self.one(Server), self.one(Port)
        if found is None:
            return
        public, owner, choice = noun.public(found), self.owner(found), self.chance.random()
        if port is not None and choice < 0.5:
            gone = choice < 0.25
            command = port_attachment.PortDetach(port_id=noun.public(port), delete=gone, even_if_last=True)
            self.ask(port_attachment.detach, command, self.owner(port))
        elif port is not None and choice < 0.7:
            self.ask(
                port_attachment.attach, port_attachment.PortAttach(server_id=public, port_id=noun.public(port)), owner
            )
        else:
            (network,) = {each.network for each in self.parties if each.tenant.id == found.tenant_id}
            self.ask(port_attachment.attach, port_attachment.PortAttach(server_id=public, network_id=network), owner)

    def moment(self) -> None:
        """A server's snapshot is taken, gone back to or deleted."""
        found, kept = self.one(Server), self.one(ServerSnapshot)
        if found is not None and (kept is None or self.chance.random() < 0.4):
            memory = self.chance.random() < 0.5
            wanted = snapshotting.ServerSnapshotCreate(server_id=noun.public(found), name="n", with_memory=memory)
            self.ask(snapshotting.create, wanted, self.owner(found))
        elif kept is not None:
            public, owner = noun.public(kept), self.owner(kept)
            if self.chance.random() < 0.4:
                self.ask(snapshotting.revert, snapshotting.ServerSnapshotRevert(id=public), owner)
            else:
                self.ask(snapshotting.delete, snapshotting.ServerSnapshotDelete(id=public), owner)

    def network_change(self) -> None:
        found = self.one(Network)
        if found is not None:
            command = networks.NetworkUpdate(id=noun.public(found), mtu=self.chance.randint(1300, 1500))
            self.ask(networks.update, command, self.owner(found))

    def job_cancel(self) -> None:
        found = self.one(Job, col(Job.status).in_(LIVE))
        if found is not None:
            self.ask(jobs.cancel, jobs.JobCancel(id=noun.public(found)))

    def job_retry(self) -> None:
        found = self.one(Job, Job.status == Status.STUCK)
        if found is not None:
            self.ask(jobs.retry, jobs.JobRetry(id=noun.public(found)))

    def bell_heard(self) -> None:
        rung = self.world.crank.rung
        if rung:
            at = self.chance.randrange(len(rung))  # late: any of those rung for
            key = rung[at]
            if self.chance.random() < 0.8:
                del rung[at]  # else it is delivered again
            self.world.runner.run(key)

    def bell_lost(self) -> None:
        if self.world.crank.rung:
            self.world.crank.rung.popleft()

    def swept(self) -> None:
        with self.world.db.read() as session:
            due = jobs.due(session)
        for key in due:
            self.world.runner.run(key)

    def runner_dies(self) -> None:
        with self.world.db.read() as session:
            due = jobs.due(session)
        if not due:
            return
        with dying_at_commit(self.chance.randint(1, 12), after=self.chance.random() < 0.5):
            try:
                self.world.runner.run(self.chance.choice(due))
            except Death:
                self.story.append("  it died")
        self.runners += 1
        self.world.runner = Runner(
            self.world.db, self.world.hosts, f"runner-{self.runners}", settings=self.world.settings
        )

    def host_fails(self) -> None:
        centre = self.chance.choice(self.centres)
        verb, error = self.chance.choice(VERBS), self.chance.choice(ERRORS)
        after, times, skip = self.chance.random() < 0.5, self.chance.randint(1, 3), self.chance.randint(0, 3)
        self.story.append(f"  {centre.name} {verb} {error.__name__} after={after} times={times} skip={skip}")
        centre.fail(verb, error, after=after, times=times, skip=skip)

    def host_goes(self) -> None:
        self.chance.choice(self.centres).down(self.chance.choice((Transient, HostAtFault)))

    def host_comes(self) -> None:
        self.chance.choice(self.centres).heal()

    def time_passes(self) -> None:
        self.world.clock.advance(seconds=self.chance.choice((0.5, 5, 31, 61, 130)))

    def reconciled(self) -> None:
        self.world.reconcile_only(self.chance.choice(RECONCILERS))

    def owner(self, found: Any) -> Subject:
        """The member of the tenant that a row belongs to."""
        return next(each.member for each in self.parties if each.tenant.id == found.tenant_id)

    # ------------------------------------------------------------------------------------------ the end

    def settle(self) -> None:
        """Fair weather: everything comes to an end, what is stuck is taken up again."""
        for centre in self.centres:
            centre.heal()
        for _ in range(4):
            self.world.clock.advance(seconds=120)
            self.world.reconcile(*RECONCILERS)
            for stuck in self.rows(Job, Job.status == Status.STUCK):
                self.ask(jobs.retry, jobs.JobRetry(id=noun.public(stuck)))
            self.world.work()

    def delete_all(self) -> None:
        """Every tenant deletes what it has."""
        for kind, function, command in (
            (Server, server.delete, server.ServerDelete),
            (Port, ports.delete, ports.PortDelete),
            (Volume, volumes.delete, volumes.VolumeDelete),
            (Snapshot, snapshots.delete, snapshots.SnapshotDelete),
            (Network, networks.delete, networks.NetworkDelete),
        ):
            for each in self.rows(kind):
                granted = self.ask(function, command(id=noun.public(each)), self.owner(each))
                assert granted, f"{noun.public(each)} cannot be deleted: {each!r}"
            self.world.work()


def _party(world: World, number: int) -> Party:
    tenant = world.tenant(f"tenant-{number}")
    member = world.member(tenant).subject

    def connect(session: Any) -> Network:
        made = networks.create(session, member, networks.NetworkCreate(name="net"))
        wanted = subnets.SubnetCreate(network_id=noun.public(made), cidr=f"10.{number}.0.0/24")
        subnets.create(session, member, wanted)
        return made

    network = world.db.run(connect)
    return Party(tenant, member, noun.public(network), active_image(world, tenant, content=CONTENT))


MOVES = {
    "server_create": 6, "server_change": 5, "server_size": 6, "server_relocate": 3, "server_delete": 3,
    "volume_create": 4, "volume_change": 10, "snapshot_delete": 1, "port_change": 4, "moment": 5, "network_change": 1,
    "job_cancel": 2, "job_retry": 2, "bell_heard": 16, "bell_lost": 4, "swept": 6, "runner_dies": 5, "host_fails": 5,
    "host_goes": 1, "host_comes": 3, "time_passes": 10, "reconciled": 2,
}  # fmt: skip
"""What may happen, and how often in proportion."""
