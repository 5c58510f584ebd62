"""The cloud itself, for everyone: what version it is, and what its drivers can do."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import strawberry
from strawberry.types import Info

from gateway.kernel.access import Need
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Resolved
from resolvers.kernel.roots import query

SERVICES = ("compute", "identity", "image", "metering", "network", "volume")


@dataclass(frozen=True, slots=True)
class Known:
    """A driver as the composition root tells it to the graph (resolvers import no drivers)."""

    kind: str
    description: str
    capabilities: tuple[str, ...]
    missing: str | None


@strawberry.type(description="A hypervisor driver of this cloud.")
class DriverInfo:
    """What a driver is."""

    kind: str = strawberry.field(description="Its kind, as `hypervisor` of hosts and servers.")
    description: str = strawberry.field(description="What it drives.")
    capabilities: list[str] = strawberry.field(
        description="What it can do; what is not listed is refused as UNSUPPORTED."
    )
    missing: list[str] = strawberry.field(description="What some driver can do and this one cannot.")
    unavailable: str | None = strawberry.field(
        description="What must be installed before this process can use it; null: nothing."
    )


@strawberry.type(description="This cloud.")
class Cloud:
    """What everybody may know of it."""

    version: str = strawberry.field(description="The version of Stratograph.")
    services: list[str] = strawberry.field(description="The services it offers.")
    currency: str = strawberry.field(
        description="What prices are in: an ISO 4217 code; `XXX` when the operator named none."
    )
    drivers: list[DriverInfo] = strawberry.field(description="The capability matrix.")


@query(Need.PUBLIC, "This cloud; needs no token.", reads=Resolved())
async def cloud(info: Info) -> Cloud:
    """What everybody may know."""
    context: Context = info.context
    known: Iterable[Any] = context.services.extras.get("drivers", ())
    every = sorted({each for driver in known for each in driver.capabilities})
    told = [
        DriverInfo(
            kind=driver.kind,
            description=driver.description,
            capabilities=sorted(driver.capabilities),
            missing=[each for each in every if each not in driver.capabilities],
            unavailable=driver.missing,
        )
        for driver in known
    ]
    currency = context.services.settings.currency
    return Cloud(version=version("stratograph"), services=list(SERVICES), currency=currency, drivers=told)


@strawberry.type(description="What you may still ask for now.")
class RateLimit:
    """The caller's budget."""

    cost: int = strawberry.field(description="The cost of this operation.")
    cost_limit: int = strawberry.field(description="The highest cost that an operation may have.")
    limit: int | None = strawberry.field(description="The cost you may spend in a window; null: no limit is set.")
    remaining: int | None = strawberry.field(description="What is left of it.")
    reset_at: str | None = strawberry.field(description="When it is whole again, by RFC 3339.")


@query(
    Need.PUBLIC, "Your budget, and what this operation costs.", name="rateLimit", shown_as=RateLimit | None,
    reads=Resolved(),
)  # fmt: skip
async def rate_limit(info: Info) -> Any:
    """The budget, as the transport counted it."""
    limits = info.context.limits
    if limits is None:
        return None
    budget = limits.budget
    return RateLimit(
        cost=limits.cost,
        cost_limit=limits.cost_limit,
        limit=budget.limit if budget else None,
        remaining=budget.remaining if budget else None,
        reset_at=budget.reset_at.isoformat() if budget else None,
    )
