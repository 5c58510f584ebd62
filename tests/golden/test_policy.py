"""Every root field is really called by everybody: who may not call it is told so, and nothing has changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    Undefined,
    build_schema,
)
from sqlmodel import SQLModel

from gateway.kernel.access import Need, Role
from resolvers.kernel.roots import ROOTS, Root
from resolvers.schema import schema, sdl
from tests.world import Client, World

schema()
FIELDS = sorted((each.operation, each.name) for each in ROOTS.values() if each.operation != "Subscription")
RANK = {Need.READER: 1, Need.MEMBER: 2, Need.MANAGER: 3, Need.ADMIN: 4}
DENIED = {"UNAUTHENTICATED", "FORBIDDEN"}
TEXTS = {"ID": "server_00000000000000000000000000", "String": "text", "DateTime": "2026-01-01T00:00:00Z"}
PLAIN = {**TEXTS, "Int": 1, "Float": 1.0, "Boolean": True, "BigInt": 1, "CIDR": "10.0.0.0/24", "IPAddress": "10.0.0.2"}


@dataclass(slots=True)
class Folk:
    """One of each: by how much each may do."""

    world: World
    graph: GraphQLSchema
    people: dict[str, tuple[Client, int]]


@pytest.fixture(scope="module")
def folk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folk]:
    folder = tmp_path_factory.mktemp("policy")
    world = World.open(f"sqlite:///{folder / 'world.db'}", folder)
    tenant = world.tenant()
    people: dict[str, tuple[Client, int]] = {"nobody": (world.nobody, -1)}
    people["without-tenant"] = (Client(world, world._subject(world._user("alone"))), 0)
    for rank, role in enumerate((Role.READER, Role.MEMBER, Role.MANAGER), start=1):
        people[role.value.lower()] = (world.member(tenant, role), rank)
    yield Folk(world, build_schema(sdl()), people)
    world.close()


@pytest.mark.parametrize(("operation", "name"), FIELDS)
def test_who_may_not_call_a_field_is_refused_and_changes_nothing(folk: Folk, operation: str, name: str) -> None:
    root = ROOTS[operation, name]
    document, variables = _call(folk.graph, root)
    for who, (client, rank) in folk.people.items():
        if root.need is Need.PUBLIC or _allowed(root.need, rank):
            continue
        before = _content(folk.world)
        result = client.run(document, **variables)
        codes = [code.rpartition(".")[2] for code in result.codes]
        if operation == "Mutation" and result.data and result.data[name]:
            codes += [each["code"] for each in result.data[name]["userErrors"]]
        assert codes, f"{who} was let in to {name}"
        assert set(codes) <= DENIED, (who, name, codes)
        assert ("UNAUTHENTICATED" in codes) == (rank < 0), (who, name, codes)
        after = _content(folk.world)
        records = after.pop("audit_record") - before.pop("audit_record")
        assert records == (1 if operation == "Mutation" else 0), (who, name)
        assert after == before, (who, name)


def test_a_subscription_asks_for_somebody() -> None:
    assert {root.need for root in ROOTS.values() if root.operation == "Subscription"} == {Need.SIGNED_IN}


def _allowed(need: Need, rank: int) -> bool:
    return rank >= 0 if need is Need.SIGNED_IN else rank >= RANK[need]


def _content(world: World) -> dict[str, Any]:
    """Every table, row by row; of the trail of what was asked only how long it is."""
    with world.db.engine.connect() as connection:
        found: dict[str, Any] = {
            name: sorted(repr(tuple(row)) for row in connection.execute(table.select()))
            for name, table in SQLModel.metadata.tables.items()
        }
        connection.rollback()
    found["audit_record"] = len(found["audit_record"])
    return {name: rows for name, rows in found.items() if not name.startswith("audit_") or name == "audit_record"}


# ------------------------------------------------------------------------------------------------ a call of anything


def _call(graph: GraphQLSchema, root: Root) -> tuple[str, dict[str, Any]]:
    """The least document that calls a field, with variables of the right shape."""
    parent = graph.query_type if root.operation == "Query" else graph.mutation_type
    assert parent is not None
    field = parent.fields[root.name]
    needed = {
        key: arg for key, arg in field.args.items() if isinstance(arg.type, GraphQLNonNull) and not _has_default(arg)
    }
    declared = ", ".join(f"${key}: {arg.type}" for key, arg in needed.items())
    given = ", ".join(f"{key}: ${key}" for key in needed)
    kind = _bare(field.type)
    selection = ""
    if root.operation == "Mutation":
        selection = "{ userErrors { code } }"
    elif isinstance(kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType):
        selection = "{ __typename }"
    head = f"({declared})" if declared else ""
    document = f"{root.operation.lower()}{head} {{ {root.name}{f'({given})' if given else ''} {selection} }}"
    return document, {key: _value(arg.type) for key, arg in needed.items()}


def _has_default(arg: Any) -> bool:
    return arg.default_value is not Undefined


def _bare(kind: Any) -> Any:
    while isinstance(kind, GraphQLNonNull | GraphQLList):
        kind = kind.of_type
    return kind


def _value(kind: GraphQLInputType) -> Any:
    if isinstance(kind, GraphQLNonNull):
        return _value(kind.of_type)
    if isinstance(kind, GraphQLList):
        return [_value(kind.of_type)]
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values))
    if isinstance(kind, GraphQLInputObjectType):
        needed = {
            key: field
            for key, field in kind.fields.items()
            if isinstance(field.type, GraphQLNonNull) and not _has_default(field)
        }
        if kind.is_one_of:
            needed = dict([next(iter(kind.fields.items()))])  # exactly one of them
        return {key: _value(field.type) for key, field in needed.items()}
    return PLAIN.get(str(kind), "text")
