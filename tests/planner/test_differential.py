"""The read planner's proof: whatever is asked, by whomever, it answers as the executor does.

``STRATOGRAPH_TEST_EXAMPLES=5000`` looks longer (each example is asked by every role on both databases).
"""

from __future__ import annotations

import os

import pytest
from graphql import parse, validate
from hypothesis import HealthCheck, event, given, settings

from tests.planner.operations import Terrain, operations
from tests.planner.terrain import terrain_of
from tests.planner.two_ways import TwoWays

pytestmark = [pytest.mark.xdist_group("planner"), pytest.mark.timeout(3600)]
EXAMPLES = int(os.environ.get("STRATOGRAPH_TEST_EXAMPLES", "100"))
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.fixture(scope="module")
def terrain(ways: TwoWays) -> Terrain:
    """What arguments are drawn from."""
    return terrain_of(ways)


def test_both_ways_answer_alike(ways: TwoWays, terrain: Terrain) -> None:

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=CHECKS)
    @given(drawn=operations(terrain))
    def ask(drawn: tuple[str, dict[str, object]]) -> None:
        document, values = drawn
        assert validate(terrain.schema, parse(document)) == [], document
        for who in ways.people:
            found = ways.same(who, document, values)
            event(f"{who}: {' '.join(found.codes) or 'data'}")

    ask()
    assert ways.on.meter.spent == ways.off.meter.spent
