"""Moves of servers within their pool, in the graph."""

from dataclasses import asdict
from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from gateway.compute import relocation, server
from gateway.jobs import job
from gateway.kernel.access import Need
from gateway.kernel.errors import Refusal, Refusals
from resolvers.compute.placement import PlacementDecision
from resolvers.kernel import inputs, problems
from resolvers.kernel.context import Context, on_thread
from resolvers.kernel.graph import Resolved
from resolvers.kernel.roots import mutation, query


@strawberry.type(description="What serverRelocate would do now. Nothing was changed.")
class RelocationPlan:
    """A plan."""

    possible: bool = strawberry.field(description="Whether it would be accepted and a host could take the server.")
    decision: PlacementDecision | None = strawberry.field(description="Where the server would go, and why.")
    interrupts: bool = strawberry.field(description="Whether its guest would be shut down and started again.")
    user_errors: list[problems.UserError] = strawberry.field(description="Why serverRelocate would be refused.")


@query(
    Need.MANAGER,
    "What serverRelocate would do with this input: the same checks, the same scheduler, and no effect.",
    name="serverRelocatePlan", shown_as=RelocationPlan, reads=Resolved(),
)  # fmt: skip
async def server_relocate_plan(
    info: Info,
    input: Annotated[  # noqa: A002 - the argument's public name
        inputs.input_type(relocation.ServerRelocate, "ServerRelocateInput"),
        strawberry.argument(description="As for serverRelocate."),
    ],
) -> Any:
    """The plan."""
    context: Context = info.context
    try:
        command: Any = inputs.command_of(relocation.ServerRelocate, input)
        plan = await on_thread(
            lambda: context.services.db.rehearse(lambda session: relocation.plan(session, context.subject, command))
        )
    except (Refusal, Refusals) as refused:
        several = refused.refusals if isinstance(refused, Refusals) else (refused,)
        shown = [problems.show(each) for each in several]
        return RelocationPlan(possible=False, decision=None, interrupts=False, user_errors=shown)
    return RelocationPlan(
        possible=plan.decision.chosen is not None,
        decision=PlacementDecision(told=asdict(plan.decision)),
        interrupts=plan.interrupts,
        user_errors=[],
    )


mutation(
    "serverRelocate", relocation.relocate, relocation.ServerRelocate, Need.MANAGER,
    "Move a server to another host of its pool, as it runs or stopped: its disks are reached from both and stay where "
    "they are. Where hosts share nothing, serverMigrate carries the disks.",
    payload={"server": (server.NOUN, "The server as it is now."), "job": (job.NOUN, "The job that does it.")},
)  # fmt: skip
