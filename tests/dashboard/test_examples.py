"""Every operation that the playground holds, its own and its examples, is one that the schema answers."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
from graphql import GraphQLSchema, OperationDefinitionNode, build_schema, parse, validate
from graphql.execution.values import get_variable_values

import gateway.dashboard
import resolvers

_PLAYGROUND = Path(gateway.dashboard.__file__).parent / "playground"
_DOCUMENTS = sorted([*_PLAYGROUND.glob("examples/*.graphql"), *_PLAYGROUND.glob("src/operations/*.graphql")])


@cache
def _schema() -> GraphQLSchema:
    return build_schema((Path(resolvers.__file__).parent / "schema.graphql").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", _DOCUMENTS, ids=lambda path: path.stem)
def test_the_schema_answers_it(path: Path) -> None:
    document = parse(path.read_text(encoding="utf-8"))
    assert [error.message for error in validate(_schema(), document)] == []
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    assert operation.name is not None
    assert operation.name.value == path.stem


@pytest.mark.parametrize("path", sorted(_PLAYGROUND.glob("examples/*.json")), ids=lambda path: path.stem)
def test_its_variables_are_of_the_right_shape(path: Path) -> None:
    (operation,) = parse(path.with_suffix(".graphql").read_text(encoding="utf-8")).definitions
    assert isinstance(operation, OperationDefinitionNode)
    given = json.loads(path.read_text(encoding="utf-8"))
    values = get_variable_values(_schema(), operation.variable_definitions or (), given)
    assert not isinstance(values, list), [error.message for error in values]
    assert sorted(given) == sorted(
        definition.variable.name.value for definition in operation.variable_definitions or ()
    )


def test_every_example_is_offered() -> None:
    listed = re.findall(r'"\.\./(examples/[^"]+)"', (_PLAYGROUND / "src" / "examples.ts").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.relative_to(_PLAYGROUND).as_posix() for path in _PLAYGROUND.glob("examples/*"))
