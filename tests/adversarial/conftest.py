"""The world that generated operations meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.neighbours import Neighbours
from tests.world import World
from workers.compute.live import Live


@pytest.fixture
def neighbours(tmp_path: Path) -> Iterator[Neighbours]:
    """Two tenants in a world of their own."""
    world = World.open(f"sqlite:///{tmp_path / 'world.db'}", tmp_path)
    world.services.extras["live"] = Live(world.db, world.hosts)  # as gateway.app does
    try:
        yield Neighbours.make(world)
    finally:
        world.close()
