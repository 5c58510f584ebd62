"""Machines that others made, in the graph: looking at them, live, and adopting one. For operators."""

from enum import StrEnum
from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from gateway.compute import adoption, host, server
from gateway.compute.machine_model import Firmware
from gateway.compute.server_state import Observed
from gateway.jobs import job
from gateway.kernel.access import Need
from gateway.kernel.errors import Invalid
from resolvers.kernel import scalars
from resolvers.kernel.context import Context, on_thread
from resolvers.kernel.roots import mutation, query

MOST = 100


class MachinePower(StrEnum):
    """What a machine that is no server of the cloud is doing."""

    RUNNING = "RUNNING"
    """It runs."""
    OFF = "OFF"
    """It is powered off."""
    PAUSED = "PAUSED"
    """Its processors stand still."""
    SUSPENDED = "SUSPENDED"
    """Its memory is saved on disk."""
    CRASHED = "CRASHED"
    """It crashed."""
    UNKNOWN = "UNKNOWN"
    """The host cannot say."""


POWER = scalars.enum(MachinePower)
FIRMWARE = scalars.enum(Firmware)
assert {each.value for each in MachinePower} == {each.value for each in Observed} - {"ABSENT"}  # noqa: S101 - one list


@strawberry.type(description="A disk of a machine that others made.")
class ForeignDisk:
    """A disk."""

    key: str = strawberry.field(description="What the host calls it.")
    size_bytes: scalars.BigInt = strawberry.field(description="Its size.")


@strawberry.type(description="A network interface of a machine that others made.")
class ForeignInterface:
    """An interface."""

    mac_address: scalars.MacAddress = strawberry.field(description="Its MAC address.")
    network: str | None = strawberry.field(description="What the host calls the network it is on.")


@strawberry.type(description="A machine on a host that is not one of the cloud's.")
class ForeignMachine:
    """A machine."""

    ref: str = strawberry.field(description="What the host calls it, for serverAdopt.")
    name: str = strawberry.field(description="Its name on the host.")
    power: POWER = strawberry.field(description="What it is doing.")
    vcpus: int = strawberry.field(description="Its virtual processors.")
    ram_mib: int = strawberry.field(description="Its memory in MiB.")
    firmware: FIRMWARE = strawberry.field(description="What starts its guest.")
    guest: str | None = strawberry.field(description="The host's word for its operating system.")
    disks: list[ForeignDisk] = strawberry.field(description="Its disks, the one that boots first.")
    interfaces: list[ForeignInterface] = strawberry.field(description="Its network interfaces.")
    obstacles: list[str] = strawberry.field(description="Why it cannot be adopted as it is; empty when it can.")


@strawberry.type(description="Some machines that others made, and where the next ones begin.")
class ForeignMachines:
    """A page, read live."""

    nodes: list[ForeignMachine] = strawberry.field(description="The machines, in the host's order.")
    after: str | None = strawberry.field(description="Give it as `after` for the next ones; null when these are all.")


@query(
    Need.ADMIN,
    "The machines on a host that are not the cloud's, as the host says now.",
    name="foreignMachines", shown_as=ForeignMachines,
)  # fmt: skip
async def foreign_machines(
    info: Info,
    host_id: Annotated[strawberry.ID, strawberry.argument(description="The host.")],
    after: Annotated[str | None, strawberry.argument(description="Behind this place of the last page.")] = None,
    first: Annotated[int, strawberry.argument(description="How many at most; 100 is the most.")] = 20,
) -> Any:
    """The page."""
    context: Context = info.context
    if not 1 <= first <= MOST:
        raise Invalid(f"Ask for 1 to {MOST} machines.", path=("first",))
    if after is not None and len(after) > 255:  # noqa: PLR2004 - as long as a ref may be
        raise Invalid("This is no place of a page.", path=("after",))
    there = await context.read(lambda session: host.NOUN.get(session, context.subject, host_id, "hostId"))
    live = context.services.extras["live"]
    page = await on_thread(lambda: live.foreign_machines(there, after, first))
    return ForeignMachines(nodes=[_shown(each) for each in page.machines], after=page.after)


def _shown(found: Any) -> ForeignMachine:
    return ForeignMachine(
        ref=found.ref,
        name=found.name,
        power=MachinePower(found.power.value),
        vcpus=found.vcpus,
        ram_mib=found.ram_mib,
        firmware=Firmware(found.firmware.value),
        guest=found.guest,
        disks=[ForeignDisk(key=each.key, size_bytes=each.size_bytes) for each in found.disks],
        interfaces=[ForeignInterface(mac_address=each.mac, network=each.network) for each in found.nics],
        obstacles=list(found.obstacles),
    )


mutation(
    "serverAdopt", adoption.adopt, adoption.ServerAdopt, Need.ADMIN,
    "Make a machine that others made a server of a tenant: it is read first, then marked, and nothing else is changed.",
    payload={"server": (server.NOUN, "The new server."), "job": (job.NOUN, "The job that reads and marks it.")},
)  # fmt: skip
