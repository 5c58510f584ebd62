"""The audit trail in the graph."""

from typing import Annotated, Any

import strawberry
from strawberry.types import Info

from gateway.identity import audit, audit_seal, tenant, user
from gateway.kernel.access import Need
from gateway.kernel.errors import Invalid
from resolvers.kernel.connections import Listing, connection_query
from resolvers.kernel.context import Context
from resolvers.kernel.graph import Node, column, edge, node
from resolvers.kernel.roots import query
from resolvers.kernel.scalars import JSON, BigInt

_MOST_AT_ONCE = 10_000
_START = BigInt(0)


@node(audit.NOUN)
class AuditRecord(Node):
    """One mutation as it was asked for, carried out or denied."""

    at = column("When.")
    operation = column("The mutation's name.")
    result = column("OK, or the code of the refusal.")
    user = edge(user.NOUN, "user_id", "Who asked; null for nobody known, and for users who are gone.")
    user_name = column("Their name at that time; empty for nobody known.")
    tenant = edge(tenant.NOUN, "tenant_id", "In which tenant; null for none, and for tenants that are gone.")
    address = column("The address it came from; empty when unknown.")
    request_id = column("The request's id, as in the logs.")
    asked = column("The input as given, without secrets.", shown_as=JSON)
    objects = column("The ids of what was made or changed.")


connection_query(
    "auditRecords", Listing(audit.NOUN, audit.find, audit.Filter, audit.ORDERS),
    "What was asked of the cloud: everything for an operator, else what happened in the tenants that you manage.",
    Need.MANAGER,
)  # fmt: skip


def _told(name: str, shown: Any, description: str) -> Any:
    def resolve(root: Any) -> Any:
        return getattr(root.verdict, name)

    return strawberry.field(resolver=resolve, graphql_type=shown, description=description)


def _intact(root: Any) -> bool:
    reason: str | None = root.verdict.reason
    return reason is None


@strawberry.type(description="What a look at the seals of the audit trail found.")
class AuditVerdict:
    """A verdict on some links of the chain."""

    verdict: strawberry.Private[audit_seal.Verdict]

    intact = strawberry.field(
        resolver=_intact, graphql_type=bool, description="Whether every record looked at is as it was sealed."
    )
    checked = _told("checked", int, "How many records were looked at and found intact.")
    cursor = _told("last", BigInt, "Give it as `after` to go on behind them.")
    newest = _told("newest", str, "The seal of the last of them; keep it elsewhere to notice a trail that was cut.")
    reason = _told("reason", str | None, "What is wrong with the record after them; null when nothing is.")
    broken_record = _told(
        "broken_record", BigInt | None, "The internal number of that record; null when none is known."
    )


@query(Need.ADMIN, "Check that the audit trail is as it was sealed, in parts.", shown_as=AuditVerdict)
async def audit_verify(
    info: Info,
    first: Annotated[int, strawberry.argument(description="How many records, at most 10000.")] = 10_000,
    after: Annotated[BigInt, strawberry.argument(description="Behind this cursor.")] = _START,
) -> Any:
    """The verdict on the next part of the chain."""
    if not 1 <= first <= _MOST_AT_ONCE:
        raise Invalid(f"1 to {_MOST_AT_ONCE} records are checked at once.", path=("first",))
    context: Context = info.context
    return AuditVerdict(verdict=await context.read(lambda session: audit_seal.verify(session, after, first)))
