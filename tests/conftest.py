"""Fixtures of the whole suite. ``--backend`` (or STRATOGRAPH_TEST_BACKEND) chooses the world's database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import World

pytest_plugins = ["tests.servers.fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=("sqlite", "postgresql"),
        default=os.environ.get("STRATOGRAPH_TEST_BACKEND", "sqlite"),
        help="the database of the in-process world",
    )


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the chosen kind."""
    if request.config.getoption("--backend") == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path / 'world.db'}"


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    """An empty world."""
    made = World.open(database_url, tmp_path)
    yield made
    made.close()
