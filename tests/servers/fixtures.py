"""The real servers as pytest fixtures: `pytest_plugins = ["tests.servers.fixtures"]` in tests/conftest.py.

`postgres_server`, `rabbit_server` and `redis_server` are shared by the whole run; `postgres_url`, `rabbit_url` and
`redis_url` are an empty database or virtual host of the test's own. A test that pauses or kills a server takes the
`private_...` fixture: a server nobody else uses.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
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


@pytest.fixture(scope="session")
def rabbit_server(tmp_path_factory: pytest.TempPathFactory) -> RabbitServer:
    """The run's RabbitMQ. Do not stop it."""
    return shared(run_folder(tmp_path_factory), "rabbitmq", RabbitServer.create, RabbitServer.attached)


@pytest.fixture
def rabbit_url(rabbit_server: RabbitServer) -> str:
    """The address of an empty virtual host."""
    return rabbit_server.new_url()


@pytest.fixture
def private_rabbit() -> Iterator[RabbitServer]:
    """A RabbitMQ of this test's own, to be paused, killed and restarted."""
    server = RabbitServer.create()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> RedisServer:
    """The run's Redis. Do not stop it."""
    return shared(run_folder(tmp_path_factory), "redis", RedisServer.create, RedisServer.attached)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of an empty database."""
    return redis_server.new_url()


@pytest.fixture
def private_redis() -> Iterator[RedisServer]:
    """A Redis of this test's own, to be paused, killed and restarted."""
    server = RedisServer.create()
    yield server
    server.stop()
