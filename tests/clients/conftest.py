"""A gateway on simulated hosts, as `make run` would start it, for the clients to talk to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.end_to_end.processes import Cloud, cloud


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One gateway for all clients."""
    with cloud(tmp_path_factory.mktemp("clients")) as made:
        yield made
