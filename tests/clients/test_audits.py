"""The 61 audits of npm graphql-http against a whole gateway, as `make run` would start it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.end_to_end.processes import Cloud
from tests.transport.conftest import node, npm

__all__ = ["node", "npm"]


def test_every_audit_passes_on_the_real_gateway(running: Cloud, node: Callable[..., Any]) -> None:
    results = node("audit.js", f"{running.gateways[0].url}/graphql")
    assert [each for each in results if each["status"] != "ok"] == []
    assert len(results) == 61
