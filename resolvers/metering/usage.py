"""Usage in the graph: exact amounts over a period, from intervals."""

from collections import defaultdict
from datetime import datetime
from typing import Annotated, Any, Self

import strawberry
from pydantic import Field, model_validator
from sqlmodel import Session
from strawberry.types import Info

from gateway.identity import ownership
from gateway.identity import tenant as tenants
from gateway.kernel import noun as nouns
from gateway.kernel.access import Need, Role
from gateway.kernel.command import AnyId, Command
from gateway.metering import usage
from gateway.metering.usage import Metered, Period
from resolvers.kernel import inputs, scalars
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Resolved, lazy, wrap
from resolvers.kernel.roots import query
from resolvers.kernel.scalars import Decimal

METERED = scalars.enum(Metered)
_US = 1_000_000


class Usage(Command):
    """Whose usage, and of what period."""

    tenant_id: AnyId | None = Field(default=None, description="The tenant; your only one by default.")
    start: datetime = Field(description="From this moment.")
    end: datetime = Field(description="Until just before this moment; what lies ahead counts nothing.")

    @model_validator(mode="after")
    def _forwards(self) -> Self:
        if self.end <= self.start:
            raise ValueError("the period ends before it begins")
        return self


def exact_seconds(amount_us: int) -> Decimal:
    """Microseconds as decimal seconds, without a float."""
    return Decimal(f"{amount_us // _US}.{amount_us % _US:06d}")


@strawberry.type(description="How much of one resource was used.")
class UsageTotal:
    """A sum."""

    resource: METERED = strawberry.field(description="What was used.")
    amount_seconds: Decimal = strawberry.field(description="The amount times the seconds it was held, exact.")


@strawberry.type(description="How much of one resource one object used.")
class UsageLine:
    """A line."""

    resource: METERED = strawberry.field(description="What was used.")
    object_id: strawberry.ID | None = strawberry.field(
        description="The object while it is there; null once it is gone."
    )
    object_uuid: str = strawberry.field(description="The object's UUID, which stays after it is gone.")
    amount_seconds: Decimal = strawberry.field(description="The amount times the seconds it was held, exact.")


def _owner(root: Any) -> Any:
    return wrap(root.owner)


@strawberry.type(description="What a tenant used in a period.")
class UsageReport:
    """A report."""

    owner: strawberry.Private[Any]
    tenant = strawberry.field(resolver=_owner, graphql_type=lazy(tenants.NOUN), description="Whose usage.")
    start: datetime = strawberry.field(description="The period's begin.")
    end: datetime = strawberry.field(description="The period's end.")
    totals: list[UsageTotal] = strawberry.field(description="The sums, by resource.")
    lines: list[UsageLine] = strawberry.field(description="What each object used, also objects that are gone.")


@query(
    Need.READER,
    "What a tenant used in a period: exact, from the moments at which things changed.",
    name="usage",
    shown_as=UsageReport,
    reads=Resolved(),
)
async def usage_report(
    info: Info,
    input: Annotated[  # noqa: A002 - the argument's public name
        inputs.input_type(Usage, "UsageInput"), strawberry.argument(description="Whose, and when.")
    ],
) -> Any:
    """The report."""
    context: Context = info.context
    command: Any = inputs.command_of(Usage, input)

    def work(session: Session) -> tuple[Any, list[usage.Line], dict[Any, str]]:
        owner = ownership.tenant_for(session, context.subject, command.tenant_id, Role.READER)
        found = usage.lines(session, owner.id, Period(command.start, command.end))
        uids = list({line.object_uid for line in found})
        known: dict[Any, str] = {}
        for prefix in ("server", "volume", "snapshot", "image", "port"):
            for uid, row in nouns.BY_PREFIX[prefix].find(session, context.subject, uids).items():
                known[uid] = nouns.public(row)
        return owner, found, known

    owner, found, known = await context.read(work)
    sums: dict[Metered, int] = defaultdict(int)
    for line in found:
        sums[line.resource] += line.amount_us
    return UsageReport(
        owner=owner,
        start=command.start,
        end=command.end,
        totals=[
            UsageTotal(resource=each, amount_seconds=exact_seconds(sums[each])) for each in Metered if each in sums
        ],
        lines=[
            UsageLine(
                resource=line.resource,
                object_id=strawberry.ID(known[line.object_uid]) if line.object_uid in known else None,
                object_uuid=str(line.object_uid),
                amount_seconds=exact_seconds(line.amount_us),
            )
            for line in found
        ],
    )
