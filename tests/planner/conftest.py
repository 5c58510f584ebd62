"""One odd cloud on each database, read in two ways; laid once for a module, since nothing here changes it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.processors import format_exc_info
from structlog.testing import capture_logs

from gateway.kernel.db import Database
from gateway.reads.reader import reader
from resolvers.planner.planner import Planner
from resolvers.schema import schema
from resolvers.transport.settings import Plan
from tests.planner.two_ways import TwoWays
from tests.servers.postgres import PostgresServer


def plan_of(db: Database) -> Plan:
    """The read planner on a database."""
    return Planner(schema(), reader(db, 30.0), on_sqlite=db.sqlite)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def ways(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoWays]:
    """The cloud, on both databases whatever ``--backend`` says: what they print is what may differ."""
    folder = tmp_path_factory.mktemp("planner")
    server: PostgresServer | None = None
    url = f"sqlite:///{folder / 'odd.db'}"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = server.create_database()
    with capture_logs(processors=[format_exc_info]) as told:
        made = TwoWays.open(url, folder, plan_of)
        yield made
        made.close()
    assert [each["exception"] for each in told if "a read plan failed" in each["event"]] == []
    if server is not None:
        server.drop_database(url)
