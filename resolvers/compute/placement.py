"""Placement in the graph: why there, why not elsewhere; and the plan of a server before it is made."""

from dataclasses import asdict
from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from gateway.compute import host, server_create
from gateway.compute.placement import Constraint
from gateway.identity.quota import Resource
from gateway.kernel import money
from gateway.kernel.access import Need
from gateway.kernel.errors import Refusal, Refusals, UserErrorCode
from resolvers.kernel import inputs, problems, scalars
from resolvers.kernel.context import Context, on_thread
from resolvers.kernel.graph import Resolved, lazy, wrap
from resolvers.kernel.roots import query

CONSTRAINT = scalars.enum(Constraint)
RESOURCE = scalars.enum(Resource)


def _field(name: str, shown_as: Any, description: str) -> Any:
    def resolve(root: Any) -> Any:
        return root.told[name]

    return strawberry.field(resolver=resolve, graphql_type=shown_as, description=description)


def _constraint(root: Any) -> Any:
    return Constraint(root.told["constraint"])


@strawberry.type(description="One constraint that a host does not meet.")
class PlacementReason:
    """A reason as kept in JSON."""

    told: strawberry.Private[dict[str, Any]]
    constraint = strawberry.field(resolver=_constraint, graphql_type=CONSTRAINT, description="What it lacks.")
    message = _field("message", str, "The same for people.")
    short_by = _field("short_by", int | None, "How much is missing, where that is a number.")


def _reasons(root: Any) -> list[PlacementReason]:
    return [PlacementReason(told=each) for each in root.told["reasons"]]


def _changes(root: Any) -> list[PlacementReason]:
    return [PlacementReason(told=each) for each in root.told["changes"]]


@strawberry.type(description="What one host says; only operators see it.")
class PlacementVerdict:
    """A verdict as kept in JSON."""

    told: strawberry.Private[dict[str, Any]]
    fits = _field("fits", bool, "Whether it could take the server.")
    weight = _field("weight", float, "How good it is: the highest that fits is chosen.")
    reasons = strawberry.field(
        resolver=_reasons, graphql_type=list[PlacementReason], description="All that speaks against it."
    )

    @strawberry.field(graphql_type=lazy(host.NOUN) | None, description="The host; null when it is gone.")
    async def host(self, info: Info) -> Any:
        """The host."""
        return await _host(info, self.told["host_uid"])


@strawberry.type(description="How many hosts do not meet a constraint.")
class PlacementCount:
    """A count."""

    constraint: CONSTRAINT = strawberry.field(description="What they lack.")
    hosts: int = strawberry.field(description="How many they are.")


@strawberry.type(description="The least change of the request that some host could meet.")
class SmallestChange:
    """A change as kept in JSON."""

    told: strawberry.Private[dict[str, Any]]
    message = _field("message", str, "What to change, for people.")
    changes = strawberry.field(
        resolver=_changes, graphql_type=list[PlacementReason], description="What that host lacks now."
    )


@strawberry.type(description="The explanation of a placement.")
class PlacementDecision:
    """A decision as kept in JSON."""

    told: strawberry.Private[dict[str, Any]]
    considered = _field("considered", int, "How many hosts were asked.")

    @strawberry.field(description="How many hosts fail each constraint; empty when none does.")
    def counts(self) -> list[PlacementCount]:
        """The counts, by constraint."""
        found = self.told["counts"]
        return [PlacementCount(constraint=Constraint(each), hosts=found[each]) for each in sorted(found)]

    @strawberry.field(
        graphql_type=lazy(host.NOUN) | None, description="The host that was chosen; only operators see it."
    )
    async def chosen(self, info: Info) -> Any:
        """The host."""
        return await _host(info, self.told["chosen"]) if self.told["chosen"] else None

    @strawberry.field(
        description="The best hundred hosts with all their reasons, best first; null unless you are an operator."
    )
    async def verdicts(self, info: Info) -> list[PlacementVerdict] | None:
        """The verdicts."""
        if not info.context.subject.admin:
            return None
        return [PlacementVerdict(told=each) for each in self.told["verdicts"]]

    @strawberry.field(description="The least change that would fit; null when it fits, or when no change helps.")
    def smallest_change(self) -> SmallestChange | None:
        """The change."""
        found = self.told["smallest_change"]
        return SmallestChange(told=found) if found else None


async def _host(info: Info, public_id: str) -> Any:
    context: Context = info.context
    uid = host.NOUN.uid(public_id)
    found = await context.batch(
        "placement.host", lambda session, uids: host.NOUN.find(session, context.subject, uids)
    ).load(uid)
    return wrap(found)


@problems.problem(UserErrorCode.NO_VALID_HOST)
class NoValidHost(problems.UserError):
    """No host can take it."""

    @strawberry.field(description="The explanation, where hosts were compared.")
    def decision(self) -> PlacementDecision | None:
        """The decision."""
        found = self.refusal.data.get("decision")
        return PlacementDecision(told=found) if found else None


@strawberry.type(description="A quota as it would be afterwards.")
class PlannedQuota:
    """A quota."""

    resource: RESOURCE = strawberry.field(description="What is limited.")
    limit: int = strawberry.field(description="How much the tenant may have; -1 means no limit.")
    used: int = strawberry.field(description="How much it would have.")


@strawberry.type(description="What serverCreate would do now. Nothing was changed.")
class ServerPlan:
    """A plan."""

    possible: bool = strawberry.field(
        description="Whether serverCreate would be accepted and a host could take the server."
    )
    decision: PlacementDecision | None = strawberry.field(description="Where the (first) server would go, and why.")
    quota: list[PlannedQuota] = strawberry.field(description="The quotas it touches, as they would be afterwards.")
    addresses: list[scalars.IPAddress] = strawberry.field(
        description="The addresses that the first server would get now."
    )
    price_per_hour: scalars.Decimal | None = strawberry.field(
        description="What an hour of all the servers would cost by their flavor, in the currency that `cloud` tells; "
        "null: the flavor has no price. Volumes and addresses have none."
    )
    user_errors: list[problems.UserError] = strawberry.field(description="Why serverCreate would be refused.")


@query(
    Need.MEMBER,
    "What serverCreate would do with this input: the same checks, the same scheduler, and no effect.",
    name="serverCreatePlan", shown_as=ServerPlan, reads=Resolved(),
)  # fmt: skip
async def server_create_plan(
    info: Info,
    input: Annotated[  # noqa: A002 - the argument's public name
        inputs.input_type(server_create.ServerCreate, "ServerCreateInput"),
        strawberry.argument(description="As for serverCreate."),
    ],
) -> Any:
    """The plan."""
    context: Context = info.context
    try:
        command: Any = inputs.command_of(server_create.ServerCreate, input)
        plan = await on_thread(
            lambda: context.services.db.rehearse(lambda session: server_create.plan(session, context.subject, command))
        )
    except (Refusal, Refusals) as refused:
        several = refused.refusals if isinstance(refused, Refusals) else (refused,)
        return ServerPlan(
            possible=False, decision=None, quota=[], addresses=[], price_per_hour=None,
            user_errors=[problems.show(each) for each in several],
        )  # fmt: skip
    told = asdict(plan.decision) if plan.decision is not None else None
    return ServerPlan(
        possible=plan.decision is not None and plan.decision.chosen is not None,
        decision=PlacementDecision(told=told) if told else None,
        quota=[PlannedQuota(resource=each, limit=limit, used=used) for each, (limit, used) in plan.quota.items()],
        addresses=[scalars.IPAddress(each) for each in plan.addresses],
        price_per_hour=money.shown(plan.price_micros),  # type: ignore[arg-type]  # a Decimal is a text
        user_errors=[],
    )
