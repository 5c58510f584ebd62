"""``?future``: over every transport the schema without what is deprecated, with the same resolvers."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated, Any

import pytest
import strawberry
from graphql import get_introspection_query, print_schema
from starlette.applications import Starlette
from starlette.testclient import TestClient

from resolvers.schema import schema as real_schema
from resolvers.schema_care.deprecation import future, places
from resolvers.schema_care.future import future_of
from resolvers.transport.app import TransportSettings, routes
from tests.transport.toy import Room
from tests.transport.toy_identity import Desk, contexts

GONE = "Use `name`. Removal on 2999-01-01."


@strawberry.enum
class Colour(enum.Enum):
    RED = "red"
    GREEN = strawberry.enum_value("green", deprecation_reason=GONE)


@strawberry.input
class Wish:
    colour: Colour = Colour.RED
    size: int = strawberry.field(default=1, deprecation_reason=GONE)


@strawberry.interface
class Named:
    name: str
    title: str = strawberry.field(default="a title", deprecation_reason=GONE)


@strawberry.type
class Lamp(Named):
    colour: Colour = Colour.RED


@strawberry.type
class Query:
    @strawberry.field
    def lamp(
        self,
        wish: Wish | None = None,
        label: Annotated[str, strawberry.argument(deprecation_reason=GONE)] = "a lamp",
    ) -> Lamp:
        return Lamp(name=label, colour=wish.colour if wish else Colour.RED)

    @strawberry.field
    def any(self) -> Named:
        return Lamp(name="any", colour=Colour.GREEN)


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def lamps(self) -> AsyncGenerator[Lamp, None]:
        yield Lamp(name="one", colour=Colour.RED)


SCHEMA = strawberry.Schema(query=Query, subscription=Subscription, types=[Lamp])


@pytest.fixture
def client() -> Iterator[TestClient]:
    served = routes(SCHEMA, TransportSettings(), Desk().authenticate, contexts(Room()), future=future_of)
    with TestClient(Starlette(routes=served)) as client:
        yield client


def _ask(client: TestClient, path: str, query: str, **variables: Any) -> Any:
    return client.post(path, json={"query": query, "variables": variables}).json()


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ lamp { title } }", {}),
        ("{ any { ... on Lamp { title } } }", {}),
        ('{ lamp(label: "x") { name } }', {}),
        ("{ lamp(wish: { size: 2 }) { name } }", {}),
        ("{ lamp(wish: { colour: GREEN }) { name } }", {}),
        ("query($w: Wish) { lamp(wish: $w) { name } }", {"w": {"size": 2}}),
        ("query($w: Wish) { lamp(wish: $w) { name } }", {"w": {"colour": "GREEN"}}),
    ],
)
def test_what_is_deprecated_is_no_longer_valid(client: TestClient, query: str, variables: dict[str, Any]) -> None:
    assert "errors" not in _ask(client, "/graphql", query, **variables)
    coming = _ask(client, "/graphql?future", query, **variables)
    assert "data" not in coming
    code = coming["errors"][0]["extensions"]["code"]
    assert code == ("BAD_USER_INPUT" if variables else "GRAPHQL_VALIDATION_FAILED")


@pytest.mark.parametrize("path", ["/graphql?future", "/graphql?future=1", "/graphql?a=b&future&c"])
def test_all_else_works_as_it_does(client: TestClient, path: str) -> None:
    query = "query($w: Wish) { lamp(wish: $w) { __typename name colour } any { __typename name } }"
    assert _ask(client, path, query, w={"colour": "RED"})["data"] == {
        "lamp": {"__typename": "Lamp", "name": "a lamp", "colour": "RED"},
        "any": {"__typename": "Lamp", "name": "any"},
    }


@pytest.mark.parametrize("path", ["/graphql", "/graphql?futures", "/graphql?query=future"])
def test_only_the_word_itself_asks_for_it(client: TestClient, path: str) -> None:
    assert _ask(client, path, "{ lamp { title } }")["data"] == {"lamp": {"title": "a title"}}


def test_introspection_tells_of_nothing_that_goes(client: TestClient) -> None:
    query = get_introspection_query(input_value_deprecation=True)
    present, coming = (str(_ask(client, path, query)["data"]) for path in ("/graphql", "/graphql?future"))
    assert [word in present for word in ("title", "label", "size", "GREEN", GONE)] == [True] * 5
    assert [word in coming for word in ("title", "label", "size", "GREEN", GONE)] == [False] * 5
    assert [word in coming for word in ("'name'", "RED", "Wish", "lamps")] == [True] * 4


def test_streams_and_sockets_meet_it_too(client: TestClient) -> None:
    headers = {"accept": "text/event-stream"}
    for field, told in (("name", '"name":"one"'), ("title", "GRAPHQL_VALIDATION_FAILED")):
        query = f"subscription {{ lamps {{ {field} }} }}"
        assert told in client.post("/graphql?future", json={"query": query}, headers=headers).text
        with client.websocket_connect("/graphql?future", subprotocols=["graphql-transport-ws"]) as socket:
            socket.send_json({"type": "connection_init"})
            socket.send_json({"type": "subscribe", "id": "1", "payload": {"query": query}})
            while (message := socket.receive_json())["type"] in {"connection_ack", "ping"}:
                pass
            assert told in socket_text(message)


def socket_text(message: Any) -> str:
    return str(message).replace("'", '"').replace(": ", ":")


def test_the_schema_that_runs_and_the_printed_one_lack_the_same() -> None:
    core = SCHEMA._schema
    assert places(print_schema(future_of(core))) == places(future(print_schema(core)))
    assert places(print_schema(core)) - places(print_schema(future_of(core))) == {
        "Colour.GREEN", "Lamp.title", "Named.title", "Query.lamp(label)", "Wish.size",
    }  # fmt: skip


def test_without_deprecations_the_future_is_the_present() -> None:
    core = real_schema()._schema
    gone = places(print_schema(core)) - places(future(print_schema(core)))
    assert (future_of(core) is core) == (gone == set())


def test_the_real_schema_loses_exactly_what_is_deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    core = real_schema()._schema
    before = places(print_schema(core))
    server = core.type_map["Server"]
    monkeypatch.setattr(server.fields["statusReason"], "deprecation_reason", GONE)  # type: ignore[attr-defined]  # an object type
    monkeypatch.setattr(server.fields["consoleLog"].args["lastLines"], "deprecation_reason", GONE)  # type: ignore[attr-defined]  # as above
    made = future_of(core)
    assert before - places(print_schema(made)) == {"Server.statusReason", "Server.consoleLog(lastLines)"}
    assert made.type_map["Server"].fields["host"].type is made.type_map["Host"]  # type: ignore[attr-defined]  # as above
    assert places(print_schema(core)) == before
