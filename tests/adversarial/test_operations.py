"""Generated operations over the whole real schema, as every role: no bug shows, and no word of another tenant's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import build_schema, parse, validate
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from resolvers.schema import sdl
from tests.adversarial.documents import operations
from tests.adversarial.neighbours import OURS, THEIRS, Neighbours
from tests.world import Client, World

pytestmark = pytest.mark.timeout(300)
SCHEMA = build_schema(sdl())
EXAMPLES = int(os.environ.get("STRATOGRAPH_TEST_EXAMPLES", "240"))
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
MANY = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=CHECKS)
SOME = settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=CHECKS)
Drawn = st.DataObject


@pytest.fixture
def neighbours(tmp_path: Path) -> Iterator[Neighbours]:
    """Two tenants in a world of their own."""
    world = World.open(f"sqlite:///{tmp_path / 'world.db'}", tmp_path)
    try:
        yield Neighbours.make(world)
    finally:
        world.close()


def _run(client: Client, document: str, values: dict[str, Any]) -> str:
    """What the operation answers, as text. A field that fails must fail by a refusal."""
    assert validate(SCHEMA, parse(document)) == [], document
    found = client.run(document, **values)
    event(f"{client.subject.user_name or 'nobody'}: {'data' if found.data else 'no data'}")
    for each in found.errors:
        cause = each.original_error
        if each.path is not None and cause is not None and not hasattr(cause, "code"):
            raise AssertionError(f"{document}\n{json.dumps(values)}\n{cause!r}") from cause
    return json.dumps([found.data, [each.message for each in found.errors]], default=str)


def test_the_word_is_there_to_be_found(neighbours: Neighbours) -> None:
    """What the other tests look for would show: its owner sees it in every kind of object that can hold it."""
    named = ("networks", "subnets", "ports", "tenants", "securityGroups", "images", "keypairs", "webhooks", "volumes")
    asked = "{ " + " ".join(f"{each} {{ nodes {{ name }} }}" for each in (*named, "snapshots", "servers")) + " }"
    found = neighbours.theirs.manager.ok(asked)
    assert [name for name, each in found.items() if THEIRS not in json.dumps(each)] == []
    assert THEIRS not in json.dumps(neighbours.ours.manager.ok(asked))


@MANY
@given(data=st.data())
def test_queries(neighbours: Neighbours, data: Drawn) -> None:
    role, client = data.draw(st.sampled_from(sorted(neighbours.people.items(), key=lambda each: each[0])))
    document, values = data.draw(operations(SCHEMA, neighbours.ids, kind="query"))
    assert THEIRS not in _run(client, document, values), (role, document, values)


@SOME
@given(data=st.data())
def test_queries_of_others(neighbours: Neighbours, data: Drawn) -> None:
    client = data.draw(st.sampled_from([neighbours.world.admin, neighbours.theirs.manager]))
    document, values = data.draw(operations(SCHEMA, neighbours.ids, kind="query"))
    answer = _run(client, document, values)
    assert client.subject.admin or f'"{OURS}"' not in answer, (document, values)


@MANY
@given(data=st.data())
def test_mutations(neighbours: Neighbours, data: Drawn) -> None:
    role, client = data.draw(st.sampled_from(sorted(neighbours.people.items(), key=lambda each: each[0])))
    document, values = data.draw(operations(SCHEMA, neighbours.ids, kind="mutation"))
    assert THEIRS not in _run(client, document, values), (role, document, values)


@SOME
@given(data=st.data())
def test_mutations_of_others(neighbours: Neighbours, data: Drawn) -> None:
    client = data.draw(st.sampled_from([neighbours.world.admin, neighbours.theirs.manager]))
    document, values = data.draw(operations(SCHEMA, neighbours.ids, kind="mutation"))
    _run(client, document, values)
