"""Single operations, each for something in which two ways of reading may differ, or did."""

from __future__ import annotations

import pytest

from gateway.compute.server import Server
from gateway.kernel import ids
from tests.planner.two_ways import TwoWays

pytestmark = pytest.mark.xdist_group("planner")


def _server(ways: TwoWays, tenant: int = 1) -> str:
    """The id of a server of that tenant."""
    return next(ids.encode("server", row["uid"]) for row in ways.rows[Server] if row["tenant_id"] == tenant)


def test_a_field_that_fails_takes_nothing_from_others(ways: TwoWays) -> None:
    """The executor cancels the failed field's siblings; what they await is awaited by another root, too."""
    hours = 'metricsByHour(start: "2026-01-02T00:00:00Z", end: "2026-01-01T00:00:00Z") { samples }'
    bad, good = (f"server(id: $id) {{ tenant {{ id }} {more} }}" for more in (hours, ""))
    document = f"query($id: ID!) {{ bad: {bad} good: {good} }}"
    answer = ways.same("admin", document, {"id": _server(ways)})
    assert answer.codes == ["INVALID"]
    assert answer.data["bad"] is None
    assert answer.data["good"]["tenant"]["id"].startswith("tenant_")


@pytest.mark.parametrize(
    "document", ["{ servers @skip(if: true) { totalCount } }", "{ ... @include(if: false) { cloud { version } } }"]
)
def test_nothing_is_asked(ways: TwoWays, document: str) -> None:
    """PostgreSQL has rows without columns; SQLite refuses them."""
    assert ways.same("reader", document).data == {}


@pytest.mark.parametrize(
    "inner", ["id @skip(if: true)", "tenant { id @skip(if: true) }", "ports { id @skip(if: true) }"]
)
def test_nothing_is_asked_of_an_object(ways: TwoWays, inner: str) -> None:
    """It is an empty object, not nothing."""
    ways.planned("reader", f"query($id: ID!) {{ server(id: $id) {{ {inner} }} }}", {"id": _server(ways)})
    ways.planned("reader", f"{{ servers {{ nodes {{ {inner} }} pageInfo {{ hasNextPage @skip(if: true) }} }} }}")
