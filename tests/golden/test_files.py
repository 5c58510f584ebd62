"""What is generated is committed and compared: policy, steps of jobs, the schema."""

from __future__ import annotations

from graphql import build_schema
from graphql.utilities import find_breaking_changes

from resolvers.schema import FILE as SCHEMA
from resolvers.schema import sdl
from tests.golden.write import POLICY, STEPS, policy, sagas


def test_the_policy_is_as_committed() -> None:
    assert policy() == POLICY.read_text(), "who may do what has changed: read it, then python -m tests.golden.write"


def test_the_steps_of_jobs_are_as_committed() -> None:
    assert sagas() == STEPS.read_text(), "jobs have changed: read it, then python -m tests.golden.write"


def test_steps_are_only_appended() -> None:
    """A job that was begun by an older version is finished by this one: steps keep their names and places."""
    kept = {line.split()[0]: line.replace(">", " ").split()[1:] for line in STEPS.read_text().splitlines()}
    now = {line.split()[0]: line.replace(">", " ").split()[1:] for line in sagas().splitlines()}
    moved = {
        kind for kind, steps in kept.items() if [*map(_bare, now.get(kind, []))][: len(steps)] != [*map(_bare, steps)]
    }
    assert moved == set()


def _bare(step: str) -> str:
    return step.strip("()")


def test_the_schema_is_as_committed() -> None:
    committed, now = SCHEMA.read_text(), sdl()
    if committed == now:
        return
    changes = find_breaking_changes(build_schema(committed), build_schema(now))
    told = "\n".join(f"{each.type.name}: {each.description}" for each in changes)
    raise AssertionError(
        f"the schema has changed; run make schema and commit it. What breaks clients:\n{told or 'nothing'}"
    )
