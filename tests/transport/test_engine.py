"""The seams: the schema's own extensions, the read planner, and what the engine will not serve."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig

from resolvers.transport.app import TransportSettings, routes
from resolvers.transport.operations import Operation
from tests.transport.calls import query, socket
from tests.transport.conftest import Serve
from tests.transport.toy import Room, toy_schema
from tests.transport.toy_identity import Desk, contexts

SEEN: list[str] = []


class Tracing(SchemaExtension):
    """An extension with every hook that takes part."""

    async def on_operation(self) -> AsyncIterator[None]:
        SEEN.append(f"operation {self.execution_context.operation_name}")
        yield
        SEEN.append("operation done")

    def on_execute(self) -> Any:
        SEEN.append("execute")
        yield

    def resolve(self, _next: Any, root: Any, info: Any, *args: Any, **kwargs: Any) -> Any:
        if info.field_name in {"hello", "count"}:
            SEEN.append(f"resolve {info.field_name}")
        return _next(root, info, *args, **kwargs)

    def get_results(self) -> dict[str, Any]:
        return {"traced": True}


def test_extensions_of_the_schema_take_part(serve: Serve) -> None:
    server = serve(schema_options={"extensions": [Tracing]})
    SEEN.clear()
    answer = query(server, "query Q { hello }")
    assert answer["data"] == {"hello": "hello world"}
    assert answer["extensions"] == {"traced": True, "cost": {"requested": 0, "limit": 50_000}}
    assert SEEN == ["operation Q", "execute", "resolve hello", "operation done"]
    SEEN.clear()
    with socket(server) as opened:
        opened.subscribe("subscription { count(to: 1) }")
        assert opened.receive()["payload"]["extensions"]["traced"] is True
        opened.receive()
    assert SEEN == ["operation None", "execute", "resolve count", "operation done"]


def test_a_planner_answers_validated_queries_or_leaves_them(serve: Serve) -> None:
    asked: list[tuple[str | None, dict[str, Any], str]] = []

    async def plan(operation: Operation, variables: Mapping[str, Any], context: Any) -> bytes | None:
        asked.append((operation.name, dict(variables), context.identity.key))
        operation.memo["uses"] = operation.memo.get("uses", 0) + 1
        return b'{"hello":"planned %d"}' % operation.memo["uses"] if operation.name == "Planned" else None

    server = serve(plan=plan)
    text = "query Planned($n: String) { hello(name: $n) }"
    for uses in (1, 2):
        assert query(server, text, {"n": "x"}, authorization="Bearer alice") == {
            "data": {"hello": f"planned {uses}"},
            "extensions": {"cost": {"requested": 0, "limit": 50_000}},
        }
    assert query(server, "query Other { hello }")["data"] == {"hello": "hello world"}
    assert query(server, 'mutation Planned { note(text: "x") }')["data"] == {"note": 1}
    assert query(server, "query Planned { nope }")["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    with socket(server) as opened:
        opened.subscribe("query Planned { hello }")
        assert opened.receive()["payload"]["data"] == {"hello": "planned 1"}
    assert [name for name, _, _ in asked] == ["Planned", "Planned", "Other", "Planned"]
    assert asked[0] == ("Planned", {"n": "x"}, "alice")


def test_a_schema_with_incremental_delivery_is_not_served() -> None:
    schema = toy_schema(config=StrawberryConfig(enable_experimental_incremental_execution=True))
    with pytest.raises(ValueError, match="@defer and @stream are off"):
        routes(schema, TransportSettings(), Desk().authenticate, contexts(Room()))
