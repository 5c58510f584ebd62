"""The Relay example: its committed artifacts are what the compiler makes of the committed schema, and what the compiler
made of its documents works against a gateway: pages, refetches by Node, a mutation, a subscription.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.client import Client
from tests.clients.pages import followed
from tests.clients.setting_up import npm_client, worked
from tests.end_to_end.processes import Cloud
from tests.end_to_end.scene import Scene, small_disk


@pytest.fixture(scope="module")
def folder() -> Path:
    """The example's folder, with the compiler installed."""
    return npm_client("relay")


def test_the_page_as_it_stands_compiles_validates_and_checks_types(folder: Path, tmp_path: Path) -> None:
    followed(folder.name, tmp_path)


def test_artifacts_are_what_the_compiler_makes(folder: Path) -> None:
    worked(["node_modules/.bin/relay-compiler", "--validate"], folder)
    made = {each.name for each in folder.glob("src/__generated__/*.ts")}
    assert {"ServersPageQuery.graphql.ts", "ServerRowQuery.graphql.ts", "NodeLabel_node.graphql.ts"} <= made


def test_what_was_compiled_works(folder: Path, running: Cloud, tmp_path: Path) -> None:
    with running.gateways[0].client() as client:
        scene = Scene.make(client, small_disk(tmp_path))
        servers = [scene.make_server(name=f"web-{number}") for number in range(3)]
        _shown(client, folder, scene.tenant, servers)
        _deleted(client, folder, servers)
        scene.dismantle()


def _shown(client: Client, folder: Path, tenant: str, servers: list[str]) -> None:
    page, seen = _text(folder, "ServersPageQuery"), []
    given: dict[str, Any] = {"count": 2, "cursor": None, "filter": {"tenantId": tenant}}
    for _ in range(2):
        answer = client.run(page, given)["servers"]
        assert answer["totalCount"] == 3
        seen += [each["node"]["id"] for each in answer["edges"]]
        given["cursor"] = answer["pageInfo"]["endCursor"]
    assert (seen, answer["pageInfo"]["hasNextPage"]) == (servers[::-1], False)
    assert len(client.run(_text(folder, "ServersQuery"), filter={"tenantId": tenant})["servers"]["edges"]) == 3
    node = client.run(_text(folder, "ServerRowQuery"), id=servers[0])["node"]
    assert (node["__typename"], node["name"], node["status"]) == ("Server", "web-0", "ACTIVE")


def _deleted(client: Client, folder: Path, servers: list[str]) -> None:
    follow = _text(folder, "ServerRowJobSubscription")
    for server in servers:
        payload = client.run(_text(folder, "ServerRowDeleteMutation"), input={"id": server})["serverDelete"]
        assert payload["userErrors"] == []
        pushed = client.subscribe(follow, {"id": payload["server"]["activeJob"]["id"]}, deadline_s=60)
        assert [each["jobChanged"]["status"] for each in pushed][-1] == "SUCCEEDED"


def _text(folder: Path, operation: str) -> str:
    """The document that Relay would send."""
    artifact = (folder / "src/__generated__" / f"{operation}.graphql.ts").read_text()
    found = re.search(r'"text": ("(?:[^"\\]|\\.)*")', artifact)
    assert found is not None
    return str(json.loads(found[1]))
