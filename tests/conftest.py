"""Fixtures of the whole suite. ``--backend`` (or STRATOGRAPH_TEST_BACKEND) chooses the world's database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from gateway import migrations
from gateway.kernel.db import Database
from tests.servers.postgres import PostgresServer
from tests.servers.stock import Stock
from tests.world import World

pytest_plugins = ["tests.servers.fixtures", "tests.schedule"]

# The renderer it comes with draws each traceback with the values of all variables: as much work as a test.
_plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _plain])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=("sqlite", "postgresql", "both"),
        default=os.environ.get("STRATOGRAPH_TEST_BACKEND", "sqlite"),
        help="the database of the in-process world",
    )


BEHAVIOUR = frozenset({"compute", "identity", "integration", "jobs", "kernel", "metering", "network", "volume"})
"""What ``--backend both`` runs on PostgreSQL as well. The sagas' disturbances, the images' files and the simulation try
what does not depend on the database, and choose theirs by ``--backend postgresql``."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test of a world on every chosen database."""
    if "backend" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--backend")
    names: tuple[str, ...] = (chosen,)
    if chosen == "both":
        behaviour = metafunc.module.__name__.split(".")[1] in BEHAVIOUR
        names = ("sqlite", "postgresql") if behaviour else ("sqlite",)
    metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of database."""
    name: str = request.param
    return name


@pytest.fixture
def database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of that kind, at the newest revision where that is quicker than making it so."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'world.db'}"
    else:
        yield request.getfixturevalue("migrated_url")


@pytest.fixture(scope="session")
def postgres_stock(postgres_server: PostgresServer) -> Stock:
    """This process's PostgreSQL databases at the newest revision."""
    return Stock(postgres_server, "newest_revision", _migrate)


@pytest.fixture
def migrated_url(postgres_stock: Stock) -> Iterator[str]:
    """The address of a PostgreSQL database at the newest revision without a row."""
    url = postgres_stock.take()
    yield url
    postgres_stock.give_back(url)


def _migrate(url: str) -> None:
    db = Database(url)
    migrations.upgrade(db)
    db.close()


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    """An empty world."""
    made = World.open(database_url, tmp_path)
    yield made
    made.close()
