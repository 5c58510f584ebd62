"""Servers in the graph."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from gateway.compute import (
    flavor,
    host,
    keypair,
    migration,
    resizing,
    server,
    server_create,
    server_group,
    server_snapshot,
)
from gateway.compute.server_state import Action
from gateway.identity import tenant
from gateway.image import image
from gateway.jobs import job
from gateway.kernel import errors
from gateway.kernel.access import Need
from gateway.metering import sample
from gateway.network import port
from gateway.network.address import PortAddress
from gateway.volume import volume
from resolvers.jobs.event import changes
from resolvers.kernel import scalars
from resolvers.kernel.connections import Listing, children_connection, connection_query
from resolvers.kernel.context import Context, on_thread
from resolvers.kernel.graph import Between, Node, Rows, children, column, computed, edge, lazy, node, spelt, wrap
from resolvers.kernel.roots import mutation, node_query, subscription
from resolvers.metering.sample import ServerHour, ServerMetrics

MAX_LINES = 10_000
MOST_HOURS = timedelta(days=32)


@strawberry.type(description="One entry of a map of short texts.")
class KeyValue:
    """A key and its text."""

    key: str = strawberry.field(description="The entry's name.")
    value: str = strawberry.field(description="The entry's text.")


def entries(row: Any) -> list[KeyValue]:
    """A server's metadata, by key."""
    return [KeyValue(key=key, value=value) for key, value in sorted(row.properties.items())]


def _checked(start: datetime, end: datetime) -> None:
    """Raises Invalid for a period that hours are not told of."""
    if not timedelta(0) < end - start <= MOST_HOURS:
        raise errors.Invalid("Give a period of at most 32 days.", path=("end",))


@node(server.NOUN)
class Server(Node):
    """A virtual machine."""

    name = column("Its name; need not be unique.")
    description = column("What it is for.")
    status = column("Where it stands; follows what the hypervisor says.")
    status_reason = column("Why it is in that state, where that is not plain.")
    tenant = edge(tenant.NOUN, "tenant_id", "Whose it is.")
    flavor = edge(flavor.NOUN, "flavor_id", "Its size.")
    vcpus = column("Virtual processors.")
    ram_mib = column("Memory in MiB.")
    disk_gib = column("Its own root disk in GiB; 0 when it boots from a volume.")
    image = edge(image.NOUN, "image_id", "What its root disk was made from.")
    keypair = edge(keypair.NOUN, "keypair_id", "The SSH key it was made with, if it is yours and still there.")
    group = edge(server_group.NOUN, "group_id", "The server group it is in.")
    hypervisor = column("What it runs on; null until it is placed.")
    availability_zone = column("The zone it was asked to run in.")
    host = edge(host.NOUN, "host_id", "Where it runs; only operators see it.")
    ports = children(port.NOUN, "server_id", "Its network interfaces, oldest first.")
    volumes = children(volume.NOUN, "server_id", "The volumes attached or promised to it.")
    firmware = column("What starts its guest.")
    devices = column("What its disks and interfaces look like to its guest.")
    adopted = column("Whether it was taken over from a machine that was there before the cloud.")
    managed = column("False while an adopted machine was only looked at: nothing about it was changed yet.")
    in_place = column("Whether its machine still is the one that was adopted, with its disks where they were.")
    snapshots = children_connection(
        Listing(server_snapshot.NOUN, server_snapshot.find, server_snapshot.Filter, server_snapshot.ORDERS),
        "server_id", "Snapshots of it as a whole, oldest first.",
    )  # fmt: skip
    migrations = children(migration.NOUN, "server_id", "Its moves to other hosts, oldest first.")
    resize = edge(resizing.NOUN, "resize_id", "The change of its size that is under way or waits to be confirmed.")
    tags = column("Words to find it by.")
    metadata = computed(list[KeyValue], entries, "Texts for the guest and for you.", "properties")
    allowed_actions = computed(
        list[Action],
        server.allowed_actions, "What may be asked of it now.", "status", "in_place", "migration_id", "resize_id",
        "snapshot_count",
    )  # fmt: skip
    jobs = children_connection(
        Listing(job.NOUN, job.find, job.Filter, job.ORDERS), "target", "What was done to it, oldest first."
    )
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")
    launched_at = column("When it first ran.")

    @spelt(Rows(PortAddress, "port_id", "address", link=(port.Port, "server_id", "id", ("nic", "id"))))
    @strawberry.field(description="All addresses of its ports, in order of the ports.")
    async def addresses(self, info: Info) -> list[scalars.IPAddress]:
        """The addresses."""
        context: Context = info.context
        found = await context.batch("server.addresses", server.addresses_of).load(self.row.id)
        return [scalars.IPAddress(each) for each in found or []]

    @spelt(Rows(job.Job, "resource", by_public=True, where=job.live, one=True))
    @strawberry.field(graphql_type=lazy(job.NOUN) | None, description="The job at work on it, or next in its queue.")
    async def active_job(self, info: Info) -> Any:
        """The job."""
        context: Context = info.context
        public = server.NOUN.public(self.row)
        return wrap(await context.batch("active_job", job.active_of).load(public))

    @spelt(Rows(sample.Sample, "server_uid", own="uid", order=("-at", "-id"), one=True))
    @strawberry.field(description="Its newest counters; null until they were first read.")
    async def metrics(self, info: Info) -> ServerMetrics | None:
        """The newest sample."""
        context: Context = info.context
        found = await context.batch("metrics", sample.newest).load(self.row.uid)
        return None if found is None else ServerMetrics(row=found)

    @spelt(
        Rows(
            sample.SampleHour,
            "server_uid",
            own="uid",
            order=("hour",),
            period=Between("hour", "start", "end", _checked),
        )
    )
    @strawberry.field(description="Its hours that begin in a period of at most 32 days, oldest first.")
    async def metrics_by_hour(
        self,
        info: Info,
        start: Annotated[datetime, strawberry.argument(description="From this moment.")],
        end: Annotated[datetime, strawberry.argument(description="Until just before this moment.")],
    ) -> list[ServerHour]:
        """The rollups."""
        context: Context = info.context
        _checked(start, end)
        found = await context.read(lambda session: sample.history(session, self.row.uid, start, end))
        return [ServerHour(row=each) for each in found]

    @strawberry.field(
        description="What it wrote on its serial port, newest lines; null when its host cannot be asked now."
    )
    async def console_log(
        self,
        info: Info,
        last_lines: Annotated[
            int | None, strawberry.argument(description="At most so many lines; 1000 by default.")
        ] = None,
    ) -> str | None:
        """The log's tail."""
        live = info.context.services.extras["live"]
        text: str | None = await on_thread(lambda: live.console_log(self.row))
        if text is None:
            return None
        count = max(0, min(last_lines if last_lines is not None else 1000, MAX_LINES))
        return "\n".join(text.splitlines()[-count:]) if count else ""


@subscription(
    Need.SIGNED_IN, "A server now and after each change, until it is gone.", name="serverChanged", shown_as=Server
)
async def server_changed(
    info: Info,
    id: Annotated[strawberry.ID, strawberry.argument(description="The server.")],  # noqa: A002 - the argument's public name
) -> AsyncIterator[Any]:
    """The server, pushed."""
    async for each in changes(info, server.NOUN, id):
        yield each


node_query(server.NOUN, "A server by its id.")
connection_query("servers", Listing(server.NOUN, server.find, server.Filter, server.ORDERS), "Servers, oldest first.")

_SERVER = (server.NOUN, "The server as it is now.")
_JOB = (job.NOUN, "The job that does it.")

mutation(
    "serverCreate", server_create.create, server_create.ServerCreate, Need.MEMBER, "Make servers.",
    payload={
        "server": (server.NOUN, "The new server; the first of them with `count`."),
        "job": (job.NOUN, "The job that makes it."),
        "servers": ([server.NOUN], "All new servers."),
        "jobs": ([job.NOUN], "The jobs that make them, in the same order."),
    },
)  # fmt: skip
mutation(
    "serverUpdate", server.update, server.ServerUpdate, Need.MEMBER, "Change a server's name, tags or metadata.",
    payload={"server": _SERVER},
)  # fmt: skip
mutation(
    "serverStart", server.start, server.ServerStart, Need.MEMBER, "Power a server on.",
    payload={"server": _SERVER, "job": _JOB},
)  # fmt: skip
mutation(
    "serverStop", server.stop, server.ServerStop, Need.MEMBER, "Shut a server down: gracefully, then by force.",
    payload={"server": _SERVER, "job": _JOB},
)  # fmt: skip
mutation(
    "serverReboot", server.reboot, server.ServerReboot, Need.MEMBER, "Reboot a server.",
    payload={"server": _SERVER, "job": _JOB},
)  # fmt: skip
mutation(
    "serverDelete", server.delete, server.ServerDelete, Need.MEMBER, "Delete a server with its own disk and ports.",
    payload={"server": _SERVER, "job": _JOB},
)  # fmt: skip
