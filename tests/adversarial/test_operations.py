"""Generated operations over the whole real schema, as every role: no bug shows, and no word of another tenant's. What
mutations set in motion is carried out between them, and has ended when they have.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from graphql import parse, validate
from hypothesis import strategies as st
from sqlmodel import select

from gateway.jobs.job import LIVE, Job
from gateway.kernel import noun
from tests.adversarial.documents import operations
from tests.adversarial.examples import SCHEMA, Drawn, Root, every_root
from tests.adversarial.neighbours import OURS, THEIRS, Neighbours
from tests.world import Client, World

pytestmark = pytest.mark.timeout(300)
Whose = Callable[[Neighbours, Root, Drawn], None]


def _all_is_worked_off(world: World) -> Counter[tuple[str, str]]:
    """No job is left, none of them ended in a bug, and the cloud does for its operator what it did before. Answers how
    many jobs of each kind ended how.
    """
    world.work()
    world.reconcile()
    with world.db.read() as session:
        found = session.exec(select(Job)).all()
    assert [each.kind for each in found if each.status in LIVE] == []
    bugs = [(each.kind, each.error) for each in found if each.error is not None and each.error["code"] == "INTERNAL"]
    assert bugs == []
    tenant = noun.public(world.tenant())
    world.admin.do("networkCreate", "network { id }", name="as before", tenantId=tenant)
    return Counter((each.kind, each.status.value) for each in found)


def _run(client: Client, document: str, values: dict[str, Any]) -> str:
    """What the operation answers, as text. A field that fails must fail by a refusal."""
    assert validate(SCHEMA, parse(document)) == [], document
    found = client.run(document, **values)
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


def _of_ours(neighbours: Neighbours, root: Root, data: Drawn) -> None:
    """One operation of somebody who must not see a word of the other tenant."""
    role, client = data.draw(st.sampled_from(sorted(neighbours.people.items(), key=lambda each: each[0])))
    own = [*neighbours.ours.ids, *neighbours.common]
    document, values = data.draw(operations(SCHEMA, neighbours.ids, root, own))
    assert THEIRS not in _run(client, document, values), (role, document, values)


def _of_others(neighbours: Neighbours, root: Root, data: Drawn) -> None:
    """One operation of the operator, or of the other tenant's manager."""
    client = data.draw(st.sampled_from([neighbours.world.admin, neighbours.theirs.manager]))
    own = [*neighbours.theirs.ids, *neighbours.common]
    document, values = data.draw(operations(SCHEMA, neighbours.ids, root, own))
    answer = _run(client, document, values)
    assert client.subject.admin or f'"{OURS}"' not in answer, (document, values)


def test_queries(neighbours: Neighbours) -> None:
    every_root("query", 4, partial(_of_ours, neighbours))


def test_queries_of_others(neighbours: Neighbours) -> None:
    every_root("query", 2, partial(_of_others, neighbours))


@pytest.mark.parametrize(("whose", "examples"), [(_of_ours, 5), (_of_others, 3)], ids=["ours", "others"])
def test_mutations_and_the_jobs_they_lead_to(neighbours: Neighbours, whose: Whose, examples: int) -> None:
    def check(root: Root, data: Drawn) -> None:
        whose(neighbours, root, data)
        if data.draw(st.booleans()):
            neighbours.world.work()

    every_root("mutation", examples, check)
    worked = _all_is_worked_off(neighbours.world)
    assert len(worked) > 10, worked
