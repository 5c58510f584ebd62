"""The 61 audits of npm graphql-http against a live server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.transport.conftest import Server


def test_every_graphql_over_http_audit_passes(server: Server, node: Callable[..., Any]) -> None:
    results = node("audit.js", server.url)
    assert [each for each in results if each["status"] != "ok"] == []
    assert len(results) == 61
