"""The read planner's proof: whatever is asked, by whomever, it answers as the executor does.

``STRATOGRAPH_TEST_EXAMPLES=5000 pytest tests/planner/test_differential.py`` looks longer: from 1,000 on each operation
is asked by every role, below by some of them.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from graphql import parse, validate
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.planner.operations import Terrain, operations
from tests.planner.terrain import terrain_of
from tests.planner.two_ways import TwoWays

pytestmark = pytest.mark.timeout(7200)
EXAMPLES = int(os.environ.get("STRATOGRAPH_TEST_EXAMPLES", "80"))
MANY = 1000
SOME_ROLES = 3
FLOOR = 0.4
"""At least this share of what the executor answers without an error must be planned, or the proof shows little."""
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture(scope="module")
def terrain(ways: TwoWays) -> Terrain:
    """What arguments are drawn from."""
    return terrain_of(ways)


def test_both_ways_answer_alike(ways: TwoWays, terrain: Terrain) -> None:
    found: Counter[str] = Counter()
    roles = st.just(sorted(ways.people))
    if EXAMPLES < MANY:
        roles = st.permutations(sorted(ways.people)).map(lambda each: each[:SOME_ROLES])

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=CHECKS)
    @given(drawn=operations(terrain), roles=roles)
    def ask(drawn: tuple[str, dict[str, object]], roles: list[str]) -> None:
        document, values = drawn
        assert validate(terrain.schema, parse(document)) == [], document
        for who in roles:
            before = ways.on.counts["planned"]
            answer = ways.same(who, document, values)
            planned = ways.on.counts["planned"] - before
            found["planned"] += planned
            found["answered"] += not answer.codes
            event(f"{who}: {' '.join(answer.codes) or ('planned' if planned else 'executed')}")

    ask()
    assert ways.on.meter.spent == ways.off.meter.spent
    assert found["planned"] >= FLOOR * found["answered"], found
