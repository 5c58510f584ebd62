"""Tokens, depth, aliases, nodes, duplicates and cost: the figures, and that they are found in linear time."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import DocumentNode, GraphQLSchema, OperationDefinitionNode, get_introspection_query, parse

from resolvers.transport import limits as module
from resolvers.transport.errors import ErrorCode, RequestRefused
from resolvers.transport.limits import Limits
from resolvers.transport.operations import DocumentCache
from tests.transport.calls import code, post, query
from tests.transport.conftest import Serve, Server
from tests.transport.toy import toy_schema


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return toy_schema()._schema


def cost(schema: GraphQLSchema, text: str, limits: Limits | None = None, **variables: Any) -> int:
    return DocumentCache(schema, limits or Limits()).get(text).select(None).cost.of(variables)


def refused(schema: GraphQLSchema, text: str, limits: Limits | None = None) -> tuple[ErrorCode, dict[str, Any]]:
    with pytest.raises(RequestRefused) as raised:
        DocumentCache(schema, limits or Limits()).get(text)
    extensions = dict(raised.value.errors[0].extensions or {})
    return extensions.pop("code"), extensions


@pytest.mark.parametrize(
    ("text", "limits", "expected", "figures"),
    [
        ("{ hello hello }", Limits(characters=9), "TOO_MANY_CHARACTERS", {"limit": 9, "requested": 15}),
        ("{ hello hello }", Limits(tokens=3), "TOO_MANY_TOKENS", {"limit": 3}),
        ("#\n#\n#\n#\n{ hello }", Limits(tokens=3), "TOO_MANY_TOKENS", {"limit": 3}),
        ("{ server { peer { name } } }", Limits(depth=2), "TOO_DEEP", {"limit": 2, "requested": 3}),
        ("{ server { ...P } } fragment P on Server { peer { name } }", Limits(depth=2), "TOO_DEEP",
         {"limit": 2, "requested": 3}),
        ("{ a: hello b: hello ...Q } fragment Q on Query { c: hello }", Limits(aliases=2), "TOO_MANY_ALIASES",
         {"limit": 2, "requested": 3}),
        ("{ server { name ...S ... { peer { name } } } } fragment S on Server { name }", Limits(nodes=4),
         "TOO_MANY_NODES", {"limit": 4, "requested": 5}),
        ("query A { hello } query B { hello }", Limits(nodes=1), "TOO_MANY_NODES", {"limit": 1, "requested": 2}),
        ("{ hello ... { hello } ...Q } fragment Q on Query { hello }", Limits(duplicates=2), "TOO_MANY_DUPLICATES",
         {"limit": 2, "requested": 3}),
        ("{" + "server {" * 250, Limits(), "TOO_DEEP", {"limit": 16}),
    ],
)  # fmt: skip
def test_each_limit_has_its_code_and_figures(
    schema: GraphQLSchema, text: str, limits: Limits, expected: str, figures: dict[str, int]
) -> None:
    assert refused(schema, text, limits) == (ErrorCode[expected], figures)


@pytest.mark.parametrize(
    ("text", "variables", "units"),
    [
        ("{ hello }", {}, 0),
        ("{ server { name } }", {}, 1),
        ("{ servers { totalCount } }", {}, 1),
        ("{ servers { pageInfo { hasNextPage } nodes { name } } }", {}, 1 + 1 + 20),
        ("{ servers(first: 7) { nodes { name } } }", {}, 1 + 7),
        ("{ servers(last: 7) { nodes { name } } }", {}, 1 + 7),
        ("{ servers(first: 7, last: 9) { nodes { name } } }", {}, 1 + 9),
        ("{ servers(first: 100000) { nodes { name } } }", {}, 1 + 100),
        ("{ servers(first: 99999999999999999999999) { nodes { name } } }", {}, None),
        ("{ servers(first: -5) { nodes { name } } }", {}, 1),
        ("{ servers(first: 7) { nodes { ports { number } } } }", {}, 1 + 7 * (1 + 10)),
        ("{ servers(first: 7) { nodes { pagedPorts(first: 3) { nodes { server { name } } } } } }", {},
         1 + 7 * (1 + 1 + 3 * (1 + 1))),
        ("{ servers(first: 7) { ...C } } fragment C on ServerConnection { nodes { peer { name } } }", {}, 1 + 7 * 2),
        ("{ servers(first: 7) { ... on ServerConnection { nodes { ... { peer { name } } } } } }", {}, 1 + 7 * 2),
        ("query ($n: Int) { servers(first: $n) { nodes { name } } }", {"n": 30}, 1 + 30),
        ("query ($n: Int) { servers(first: $n) { nodes { name } } }", {}, 1 + 20),
        ("query ($n: Int) { servers(first: $n) { nodes { name } } }", {"n": None}, 1 + 20),
        ("query ($n: Int = 5) { servers(first: $n) { nodes { name } } }", {}, 1 + 5),
        ("query ($n: Int = 5) { servers(first: $n) { nodes { name } } }", {"n": 8}, 1 + 8),
        ("query ($n: Int) { servers(first: $n) { nodes { name } } }", {"n": "many"}, 1 + 20),
        ("query ($n: Int) { servers(first: $n) { nodes { name } } }", {"n": True}, 1 + 20),
        ('{ byIds(ids: ["a", "b", "c"]) { name } }', {}, 3),
        ("query ($i: [ID!]!) { byIds(ids: $i) { peer { name } } }", {"i": ["a"] * 4}, 4 * 2),
        ("query ($i: [ID!]!) { byIds(ids: $i) { name } }", {"i": ["a"] * 400}, 100),
        ('mutation { note(text: "x") }', {}, 10),
        ("{ __schema { types { name fields { name } } } }", {}, 100),
        ("{ __typename }", {}, 0),
        ("subscription { serials { peer { name } } }", {}, 2),
    ],
)  # fmt: skip
def test_the_cost_comes_from_page_sizes(
    schema: GraphQLSchema, text: str, variables: dict[str, Any], units: int | None
) -> None:
    if units is None:  # an Int literal beyond 32 bits does not validate at all
        assert refused(schema, text)[0] is ErrorCode.GRAPHQL_VALIDATION_FAILED
    else:
        assert cost(schema, text, **variables) == units


def test_costs_are_kept_by_page_sizes_and_never_mixed_up(schema: GraphQLSchema) -> None:
    text = (
        "query ($a: Int, $b: Int = 2) { servers(first: $a) { nodes { pagedPorts(first: $b) { nodes { number } } } } }"
    )
    model = DocumentCache(schema, Limits()).get(text).select(None).cost
    for a in (*range(101), 500, None, "x"):
        size = min(a, 100) if isinstance(a, int) else 20
        for b in (1, 50):
            assert model.of({"a": a, "b": b, "other": object()}) == 1 + size * (1 + 1 + b)
        assert model.of({"a": a}) == 1 + size * (1 + 1 + 2)


def test_a_costly_query_is_refused_with_its_figures_and_nothing_runs(server: Server) -> None:
    inner = "server { pagedPorts(first: 100) { nodes { number } } }"
    ports = f"pagedPorts(first: $n) {{ nodes {{ {inner} }} }}"
    text = f"query ($n: Int!) {{ servers(first: 100) {{ nodes {{ {ports} }} }} }}"
    refused = post(server, {"query": text, "variables": {"n": 100}})
    extensions = refused.json()["errors"][0]["extensions"]
    assert (refused.status_code, extensions["code"]) == (400, "TOO_COSTLY")
    assert (extensions["limit"], extensions["requested"]) == (50_000, 1_030_201)
    assert refused.json()["extensions"] == {"cost": {"limit": 50_000, "requested": 1_030_201}}
    assert server.room.contexts == 0
    assert query(server, text, {"n": 1})["extensions"]["cost"]["requested"] == 10_501


def bombs() -> dict[str, str]:
    """Documents that grow exponentially or quadratically when they are walked naively."""
    levels = range(150)
    spreads = "".join(f"fragment F{n} on Server {{ ...F{n + 1} ...F{n + 1} }}" for n in levels)
    fields = "".join(
        f"fragment F{n} on Server {{ a: peer {{ ...F{n + 1} }} b: peer {{ ...F{n + 1} }} }}" for n in levels
    )
    end = "fragment F150 on Server { name }"
    many = " ".join(f"...F{n}" for n in range(400))
    return {
        "spreads": "{ server { ...F0 } }" + spreads + end,
        "fields": "{ server { ...F0 } }" + fields + end,
        "unused spreads": "{ hello }" + spreads + end,
        "same field": "{" + " hello" * 2_000 + "}",
        "same field with arguments": "{" + ' hello(name: "a")' * 700 + "}",
        "same object": "{" + " server { name }" * 900 + "}",
        "many fragments in one place": "{ server {" + many + "} }"
        + "".join(f"fragment F{n} on Server {{ name }}" for n in range(400)),
        "unused fragments": "{ hello }" + "".join(f"fragment F{n} on Server {{ {'name ' * 45} }}" for n in range(95)),
    }  # fmt: skip


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_is_refused(schema: GraphQLSchema, name: str) -> None:
    """In 5 to 45 ms when measured; the naive walk of the first takes for ever, and meets the suite's own timeout."""
    assert refused(schema, bombs()[name])[0].startswith("TOO_MANY_")


def levels_of(count: int) -> DocumentNode:
    """Fragments that spread the next one twice: expanded, 2 to the power of ``count`` fields."""
    spreads = "".join(f"fragment F{n} on Server {{ ...F{n + 1} ...F{n + 1} }}" for n in range(count))
    return parse("query Q { server { ...F0 } }" + spreads + f"fragment F{count} on Server {{ peer {{ name }} }}")


@pytest.mark.parametrize("levels", [40, 80, 150])
def test_each_fragment_is_measured_once(levels: int) -> None:
    """However often it is spread: twice the levels are twice the steps."""

    class Counting(module._Shapes):
        calls = 0

        def of(self, *arguments: Any) -> module.Shape:
            Counting.calls += 1
            return super().of(*arguments)

    measure = Counting(Limits(nodes=10**10, duplicates=10**60))
    for fragment in module.fragments_in_order(levels_of(levels)):
        measure.add_fragment(fragment)
    assert Counting.calls == levels + 2  # one selection each, and the inner one of the last


@pytest.mark.parametrize("levels", [40, 80, 150])
def test_each_fragment_is_priced_once(schema: GraphQLSchema, levels: int) -> None:
    class Counting(module._Walk):
        calls = 0

        def _selections(self, *arguments: Any) -> module._Cost:
            Counting.calls += 1
            return super()._selections(*arguments)

    document = levels_of(levels)
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    model = module.CostModel(schema, Limits(), document, operation)
    assert Counting(model, {}, {}).total() == min(1 + 2**levels, module.SATURATED)
    assert Counting.calls == levels + 4  # and the operation's two


def test_a_cycle_of_fragments_ends_and_is_refused(schema: GraphQLSchema) -> None:
    text = "{ server { ...A } } fragment A on Server { ...B } fragment B on Server { name ...A }"
    assert refused(schema, text)[0] is ErrorCode.GRAPHQL_VALIDATION_FAILED


def test_limits_are_settings_and_hold_over_http(serve: Serve) -> None:
    server = serve(limits=Limits(depth=2))
    answer = post(server, {"query": "{ server { peer { name } } }"})
    assert (answer.status_code, code(answer)) == (400, "TOO_DEEP")
    assert query(server, "{ server { name } }")["data"] == {"server": {"name": "one"}}


def test_the_introspection_query_of_tools_fits(server: Server) -> None:
    text = get_introspection_query(specified_by_url=True, directive_is_repeatable=True, input_value_deprecation=True)
    assert query(server, text)["data"]["__schema"]["queryType"] == {"name": "Query", "kind": "OBJECT"}


def test_the_cache_is_bounded_in_entries_and_characters(schema: GraphQLSchema) -> None:
    cache = DocumentCache(schema, Limits(), entries_max=3, chars_max=100)
    first = cache.get("{ hello }")
    assert cache.get("{ hello }") is first
    for number in range(3):
        cache.get(f"query Q{number} {{ hello }}")
    assert cache.get("{ hello }") is not first
    cache.get("{ hello } #" + "x" * 95)
    assert len(cache._documents) == 0
    assert cache._chars == 0


def test_refused_documents_are_not_kept(schema: GraphQLSchema) -> None:
    cache = DocumentCache(schema, Limits())
    for text in ("{", "{ nope }", "query { hello } fragment F on Query { hello }"):
        with pytest.raises(RequestRefused):
            cache.get(text)
    assert len(cache._documents) == 0
