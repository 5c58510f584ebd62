"""Sizes of servers in the graph: the record of each change, the plan, and the three commands."""

from dataclasses import asdict
from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from gateway.compute import flavor, host, resizing, server
from gateway.jobs import job
from gateway.kernel import money
from gateway.kernel.access import Need
from gateway.kernel.errors import Refusal, Refusals
from resolvers.compute.placement import PlacementDecision, PlannedQuota
from resolvers.kernel import inputs, problems, scalars
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.context import Context, on_thread
from resolvers.kernel.graph import Node, Resolved, column, edge, node
from resolvers.kernel.roots import mutation, node_query, query


@node(resizing.NOUN)
class Resize(Node):
    """One change of a server's size."""

    server = edge(server.NOUN, "server_id", "Whose size it is.")
    status = column("Where it stands.")
    status_reason = column("Why it failed; null when it did not.")
    old_flavor = edge(flavor.NOUN, "old_flavor_id", "The size before.")
    new_flavor = edge(flavor.NOUN, "new_flavor_id", "The size after.")
    old_vcpus = column("Virtual processors before.")
    old_ram_mib = column("Memory before, in MiB.")
    old_disk_gib = column("Its own root disk before, in GiB; 0 when it boots from a volume.")
    new_vcpus = column("Virtual processors after.")
    new_ram_mib = column("Memory after, in MiB.")
    new_disk_gib = column("Its own root disk after, in GiB: it grows with the confirmation.")
    host = edge(host.NOUN, "host_id", "The other host that holds room for it, when it changed hosts; for operators.")
    confirm_at = column("When it is confirmed by itself; null when it does not wait, or waits for ever.")
    version = column("Raised with every change.")
    created_at = column("When it was asked for.")
    updated_at = column("When it last changed.")
    finished_at = column("When it was confirmed, reverted or had failed.")


node_query(resizing.NOUN, "A change of a server's size by its id.")
connection_query(
    "resizes", Listing(resizing.NOUN, resizing.find, resizing.Filter, resizing.ORDERS),
    "Changes of servers' sizes, oldest first.",
)  # fmt: skip


@strawberry.type(description="What serverResize would do now. Nothing was changed.")
class ResizePlan:
    """A plan."""

    possible: bool = strawberry.field(description="Whether it would be accepted and a host has room for the new size.")
    decision: PlacementDecision | None = strawberry.field(description="Where the server would be, and why.")
    quota: list[PlannedQuota] = strawberry.field(
        description="The quotas it touches, as they would be until it is confirmed or reverted: the larger of both "
        "sizes counts."
    )
    moves: bool = strawberry.field(description="Whether the server would go to another host: its own has no room.")
    interrupts: bool = strawberry.field(description="Whether its guest would be shut down and started again.")
    price_per_hour: scalars.Decimal | None = strawberry.field(
        description="What an hour of the server would cost by its new flavor; null: that has no price."
    )
    price_difference_per_hour: scalars.Decimal | None = strawberry.field(
        description="By how much that is more than now, less than zero when it is cheaper; null when either flavor has "
        "no price."
    )
    user_errors: list[problems.UserError] = strawberry.field(description="Why serverResize would be refused.")


@query(
    Need.MEMBER,
    "What serverResize would do with this input: the same checks, the same scheduler, and no effect.",
    name="serverResizePlan", shown_as=ResizePlan, reads=Resolved(),
)  # fmt: skip
async def server_resize_plan(
    info: Info,
    input: Annotated[  # noqa: A002 - the argument's public name
        inputs.input_type(resizing.ServerResize, "ServerResizeInput"),
        strawberry.argument(description="As for serverResize."),
    ],
) -> Any:
    """The plan."""
    context: Context = info.context
    try:
        command: Any = inputs.command_of(resizing.ServerResize, input)
        plan = await on_thread(
            lambda: context.services.db.rehearse(lambda session: resizing.plan(session, context.subject, command))
        )
    except (Refusal, Refusals) as refused:
        several = refused.refusals if isinstance(refused, Refusals) else (refused,)
        return ResizePlan(
            possible=False, decision=None, quota=[], moves=False, interrupts=False, price_per_hour=None,
            price_difference_per_hour=None, user_errors=[problems.show(each) for each in several],
        )  # fmt: skip
    return ResizePlan(
        possible=plan.decision.chosen is not None,
        decision=PlacementDecision(told=asdict(plan.decision)),
        quota=[PlannedQuota(resource=each, limit=limit, used=used) for each, (limit, used) in plan.quota.items()],
        moves=plan.moves,
        interrupts=plan.interrupts,
        price_per_hour=money.shown(plan.price_micros),  # type: ignore[arg-type]  # a Decimal is a text
        price_difference_per_hour=money.shown(plan.delta_micros),  # type: ignore[arg-type]  # as above
        user_errors=[],
    )


_PAYLOAD = {
    "resize": (resizing.NOUN, "The change of its size."),
    "server": (server.NOUN, "The server as it is now."),
    "job": (job.NOUN, "The job that does it."),
}

mutation(
    "serverResize", resizing.resize, resizing.ServerResize, Need.MEMBER,
    "Give a server the size of another flavor. It is shut down for that and started again, then waits in VERIFY_RESIZE "
    "for serverResizeConfirm or serverResizeRevert.",
    payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "serverResizeConfirm", resizing.confirm, resizing.ServerResizeConfirm, Need.MEMBER,
    "Keep a server's new size: its root disk grows, and what was held for the way back is given back.",
    payload=_PAYLOAD,
)  # fmt: skip
mutation(
    "serverResizeRevert", resizing.revert, resizing.ServerResizeRevert, Need.MEMBER,
    "Bring a server's old size back; nothing that was written meanwhile is lost.", payload=_PAYLOAD,
)  # fmt: skip
