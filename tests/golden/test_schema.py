"""The schema keeps the house's rules: everything is described and named alike."""

from __future__ import annotations

import re
from functools import cache

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    specified_scalar_types,
)

from resolvers.kernel.roots import ROOTS
from resolvers.schema import sdl

NO_KEY = frozenset({"sessionCreate", "sessionRevoke"})
"""Mutations without an idempotency key: a session's token is never kept for a second answer. The list only shrinks."""

NO_NOUN = frozenset({"bulkExport"})
"""Mutations that do not begin with a noun of the schema. The list only shrinks."""


@cache
def built() -> GraphQLSchema:
    return build_schema(sdl())


def own() -> list[object]:
    return [
        kind
        for name, kind in built().type_map.items()
        if not name.startswith("__") and name not in specified_scalar_types
    ]


def test_everything_is_described() -> None:
    bare: list[str] = []
    for kind in own():
        name = str(kind)
        if not getattr(kind, "description", None):
            bare.append(name)
        if isinstance(kind, GraphQLEnumType):
            bare += [f"{name}.{value}" for value, each in kind.values.items() if not each.description]
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field, each in kind.fields.items():
                bare += [] if each.description else [f"{name}.{field}"]
                bare += [f"{name}.{field}({key})" for key, arg in each.args.items() if not arg.description]
        if isinstance(kind, GraphQLInputObjectType):
            bare += [f"{name}.{field}" for field, each in kind.fields.items() if not each.description]
    assert bare == []


def test_names_are_spelt_alike() -> None:
    odd: list[str] = []
    for kind in own():
        name = str(kind)
        odd += [] if re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) else [name]
        if isinstance(kind, GraphQLEnumType):
            odd += [f"{name}.{value}" for value in kind.values if not re.fullmatch(r"[A-Z][A-Z0-9_]*", value)]
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            odd += [f"{name}.{field}" for field in kind.fields if not re.fullmatch(r"[a-z][A-Za-z0-9]*", field)]
        if isinstance(kind, GraphQLInputObjectType):
            odd += [] if name.endswith(("Input", "Filter", "Order")) else [name]
    assert odd == []


def test_a_mutation_takes_its_input_and_answers_its_payload() -> None:
    mutations = built().mutation_type
    assert mutations is not None
    for name, field in mutations.fields.items():
        called = name[0].upper() + name[1:]
        assert list(field.args) == ["input"], name
        assert str(field.args["input"].type) == f"{called}Input!", name
        kind = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
        assert str(kind) == f"{called}Payload", name
        assert isinstance(kind, GraphQLObjectType)
        assert str(kind.fields["userErrors"].type) == "[UserError!]!", name


def test_a_mutation_begins_with_its_noun() -> None:
    nouns = {name for (operation, name) in ROOTS if operation == "Query"} | {"session", "apiKey", "member", "quota"}
    mutations = built().mutation_type
    assert mutations is not None
    odd = {name for name in mutations.fields if not any(re.match(f"{noun}(?![a-z])", name) for noun in nouns)}
    assert odd == NO_NOUN


def test_every_mutation_can_be_sent_again() -> None:
    mutations = built().mutation_type
    assert mutations is not None
    without = {
        name
        for name, field in mutations.fields.items()
        if "idempotencyKey" not in built().type_map[str(field.args["input"].type).rstrip("!")].fields  # type: ignore[attr-defined]  # an input type
    }
    assert without == NO_KEY


@pytest.mark.parametrize("name", sorted(n for n in build_schema(sdl()).type_map if n.endswith("Connection")))
def test_a_connection_is_whole(name: str) -> None:
    kind = built().type_map[name]
    assert isinstance(kind, GraphQLObjectType)
    assert {"edges", "nodes", "pageInfo", "totalCount"} <= kind.fields.keys()
    edge = built().type_map[name.removesuffix("Connection") + "Edge"]
    assert isinstance(edge, GraphQLObjectType)
    assert {"node", "cursor"} <= edge.fields.keys()
