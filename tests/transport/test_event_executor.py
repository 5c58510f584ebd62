"""Events of a subscription are executed as graphql-core executes them, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from graphql import ExecutionResult, build_schema, parse
from graphql.execution import Executor, execute_subscription_event
from graphql.execution.collect_fields import FieldDetails

from resolvers.transport.event_executor import EventExecutor

SCHEMA = build_schema("""
  type Query { none: Int }
  interface Node { id: ID! }
  type Server implements Node { id: ID! name: String! host: Host hosts: [Host!] }
  type Host implements Node { id: ID! name: String }
  type Event { number: Int! object: Node later: Int! }
  type Subscription { event(of: ID): Event  other: Int }
""")


async def soon(event: Any, _info: Any) -> Any:
    await asyncio.sleep(0)
    return event["number"] if event["number"] is None or event["number"] >= 0 else None


SCHEMA.type_map["Event"].fields["later"].resolve = soon  # type: ignore[attr-defined]  # it is an object type

OPERATIONS = [
    "subscription { event { number later } }",
    "subscription { event { number object { id ... on Server { name host { id name } hosts { name } } } } }",
    """subscription($wide: Boolean!) { a: event(of: "1") { ...Seen @include(if: $wide) number @skip(if: $wide) } }
       fragment Seen on Event { later object { __typename ...More } } fragment More on Server { n: name }""",
]
HOST = {"__typename": "Host", "id": "h", "name": None}
SERVER = {"__typename": "Server", "id": "s", "name": "web", "host": HOST, "hosts": [HOST, HOST]}
EVENTS = [
    {"number": 1, "object": SERVER},
    {"number": 2, "object": HOST},
    {"number": 3, "object": {**SERVER, "name": None}},  # a null where none may be
    {"number": -1, "object": None},
    {"number": None, "object": SERVER},
]


def built(text: str, *, wide: bool) -> Executor[Any]:
    made = Executor.build(SCHEMA, parse(text), raw_variable_values={"wide": wide})
    assert isinstance(made, Executor)
    return made


async def expected(executor: Executor[Any], event: Any) -> ExecutionResult:
    each = executor.build_per_event_executor(event)
    found: Any = execute_subscription_event(each)
    return found if isinstance(found, ExecutionResult) else await found


@pytest.mark.parametrize("text", OPERATIONS)
@pytest.mark.parametrize("wide", [False, True])
def test_each_event_is_answered_as_graphql_core_answers_it(text: str, *, wide: bool) -> None:
    async def compare() -> int:
        ours, failed = EventExecutor(built(text, wide=wide)), 0
        for _ in range(2):
            for event in EVENTS:
                item = {"event": event, "a": event}
                theirs = await expected(built(text, wide=wide), item)
                found = await ours.executed(item, None)
                assert found.data == theirs.data
                assert list(map(str, found.errors or [])) == list(map(str, theirs.errors or []))
                failed += bool(found.errors)
        return failed

    assert asyncio.run(compare()) > 0, "no event showed how errors are answered"


def test_a_subscription_keeps_nothing_of_its_events() -> None:
    async def kept() -> tuple[int, int]:
        ours = EventExecutor(built(OPERATIONS[1], wide=True))
        counts = []
        for _ in range(2):
            for _ in range(100):
                await ours.executed({"event": EVENTS[0]}, None)
            gc.collect()
            counts.append(sum(type(each) is FieldDetails for each in gc.get_objects()))
        return counts[0], counts[1]

    first, second = asyncio.run(kept())
    assert first == second
