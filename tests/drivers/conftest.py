"""The order of the contract's tests: what sums up a class comes last, however the rest is shuffled."""

from __future__ import annotations

import pytest

from tests.drivers.matrix import Published

SUM = Published.test_the_run_found_the_published_matrix.__name__


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move each class's summing test behind the last of its other tests."""
    ends = {each.parent: at for at, each in enumerate(items)}
    sums = [each for each in items if getattr(each, "originalname", None) == SUM]
    ranks = {each: (at, 0) for at, each in enumerate(items)} | {each: (ends[each.parent], 1) for each in sums}
    items.sort(key=lambda each: ranks[each])
