"""The npm clients graphql-ws and graphql-sse: subscribe, disconnect, resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.transport.calls import wait_until
from tests.transport.conftest import Server


def test_graphql_ws(server: Server, node: Callable[..., Any]) -> None:
    assert node("ws.js", server.websocket_url) == {
        "query": ["alice"],
        "mutation": [1],
        "count": [1, 2, 3],
        "syntax": ["GRAPHQL_PARSE_FAILED"],
        "invalid": ["GRAPHQL_VALIDATION_FAILED"],
        "resumed": [1, 2, 3, 4, 5],
        "reconnected": 0,
        "sockets": 7,
        "expired": 4403,
        "refused": 4401,
    }
    wait_until(lambda: server.room.open_streams == 0)


def test_graphql_sse(server: Server, node: Callable[..., Any]) -> None:
    assert node("sse.js", server.url) == {
        "query": ["alice"],
        "mutation": [1],
        "count": [1, 2, 3],
        "invalid": ["GRAPHQL_VALIDATION_FAILED"],
        "resumed": [1, 2, 3, 4, 5],
        "left": 0,
        "refused": 401,
    }
    wait_until(lambda: server.room.open_streams == 0)
