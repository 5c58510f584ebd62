"""The rules of the schema's shape that clients build upon, over the printed schema: nodes, scalars, enums, units."""

from __future__ import annotations

import re

from graphql import (
    GraphQLEnumType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLUnionType,
    build_schema,
    get_named_type,
    is_introspection_type,
    is_specified_scalar_type,
)

from gateway.kernel import noun
from resolvers.kernel.scalars import OPEN
from resolvers.schema import sdl
from tests.world import World

GRAPH = build_schema(sdl())
OWN = [each for each in GRAPH.type_map.values() if not is_introspection_type(each)]
COUNTED = {"diskReads", "diskWrites", "diskRatio", "ramRatio"}
"""Numbers with such a word in their name that count or compare, and have no unit."""


def test_whatever_has_an_id_is_a_node() -> None:
    payloads = {each.name for each in OWN if each.name.endswith("Payload")}
    with_id = {each for each in OWN if isinstance(each, GraphQLObjectType) and "id" in each.fields}
    nodes = {each for each in with_id if "Node" in {one.name for one in each.interfaces}}
    assert {each.name for each in with_id - nodes} <= payloads
    assert len(nodes) > 20


def test_node_finds_by_the_frozen_prefix_and_nodes_takes_a_hundred(world: World) -> None:
    prefixes = sorted(noun.BY_PREFIX)
    assert [each for each in prefixes if not re.fullmatch(r"[a-z]+(?:_[a-z]+)*", each)] == []
    absent = "server_00000000000000000000000000"
    ask = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    assert world.admin.ok(ask, ids=[absent] * 100)["nodes"] == [None] * 100
    assert world.admin.run(ask, ids=[absent] * 101).codes == ["INVALID"]


def test_no_answer_is_a_union() -> None:
    assert [each.name for each in OWN if isinstance(each, GraphQLUnionType)] == []


def test_every_scalar_says_where_it_is_specified() -> None:
    scalars = [each for each in OWN if isinstance(each, GraphQLScalarType) and not is_specified_scalar_type(each)]
    assert [each.name for each in scalars if not each.specified_by_url] == []
    assert {"BigInt", "CIDR", "DateTime", "Decimal", "IPAddress", "MacAddress"} <= {each.name for each in scalars}


def test_every_enum_is_open_and_says_so() -> None:
    enums = [each for each in OWN if isinstance(each, GraphQLEnumType)]
    assert [each.name for each in enums if OPEN not in (each.description or "")] == []


def test_sizes_and_times_carry_their_unit() -> None:
    bare = []
    for each in OWN:
        for name, field in getattr(each, "fields", {}).items():
            number = str(get_named_type(field.type)) in {"Int", "Float", "BigInt"}
            sized = re.search(r"ram|disk|size|memory|bytes|timeout|seconds|duration", name, re.IGNORECASE)
            unit = re.search(r"(?:Mib|Gib|Bytes|Seconds|Ns|S)(?:Max|Mean|$)", name)
            if number and sized and not unit and name not in COUNTED:
                bare.append(f"{each.name}.{name}")
    assert bare == []


def test_changes_are_pushed_from_a_cursor_on() -> None:
    subscription = GRAPH.subscription_type
    assert subscription is not None
    assert {"events", "jobChanged", "serverChanged"} <= set(subscription.fields)
    assert "after" in subscription.fields["events"].args
