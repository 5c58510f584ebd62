"""The real servers as pytest fixtures: `pytest_plugins = ["tests.servers.fixtures"]` in tests/conftest.py.

`postgres_server` is shared by the whole run; `postgres_url` is an empty database of the test's own. A test that
pauses or kills a server takes the `private_...` fixture: a server nobody else uses.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.postgres import PostgresServer
from tests.servers.shared import run_folder, shared


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> PostgresServer:
    """The run's PostgreSQL. Do not stop it."""
    return shared(run_folder(tmp_path_factory), "postgres", PostgresServer.create, PostgresServer.attached)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty database, dropped after the test."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of this test's own, to be paused, killed and restarted."""
    server = PostgresServer.create()
    yield server
    server.stop()
