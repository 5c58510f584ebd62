"""How many documents are drawn, and of which root fields: of every one, so that none is left to luck."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from graphql import OperationType, build_schema
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from resolvers.schema import sdl

SCHEMA = build_schema(sdl())
TIMES = int(os.environ.get("STRATOGRAPH_TEST_EXAMPLES", "1"))
"""How often the usual number of examples is drawn."""
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]
ENDING = ("Delete", "Remove", "Revoke", "Disable")
Drawn = st.DataObject
Root = tuple[str, str]


def every_root(kind: str, examples: int, check: Callable[[Root, Drawn], None]) -> None:
    """``check`` that many examples of each root field; what makes and changes things first, what ends them last."""
    known = SCHEMA.get_root_type(OperationType(kind))
    assert known is not None
    for name in sorted(known.fields, key=lambda each: (each.endswith(ENDING), each)):
        _examples(examples, partial(check, (kind, name)))


def _examples(count: int, check: Callable[[Drawn], None]) -> None:
    # Without shrinking: what an operation meets depends on those before, and a failure prints all of its own.
    @settings(max_examples=count * TIMES, deadline=None, suppress_health_check=CHECKS, phases=[Phase.generate])
    @given(data=st.data())
    def one(data: Drawn) -> None:
        check(data)

    one()
