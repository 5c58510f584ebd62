"""A cloud that runs nothing but trusted documents: the command works there as everywhere, except for `gql`; and so do
the playground's own documents.
"""

from __future__ import annotations

import json
from pathlib import Path

import httpx2

from gateway.dashboard.asset import Assets
from tests.client.conftest import Terminal
from tests.end_to_end.processes import cloud
from tests.end_to_end.scene import small_disk

WAIT = ("--wait", "--timeout", "60", "--json")


def test_a_servers_life_where_only_trusted_documents_run(terminal: Terminal, tmp_path: Path) -> None:
    manifest = tmp_path / "persisted-documents.json"
    manifest.write_text("{}")
    with cloud(tmp_path / "cloud", trusted_documents=str(manifest)) as made:
        terminal.login(made.gateways[0].url)
        terminal.ok("network", "create", "net", "--cidr", "10.4.0.0/24", *WAIT)
        terminal.ok("image", "upload", small_disk(tmp_path), "--name", "disk", *WAIT)
        wanted = ("server", "create", "web", "--flavor", "tiny", "--image", "disk", "--network", "net")
        assert terminal.ok(*wanted, "--plan", "--json").json["possible"] is True
        [server] = terminal.ok(*wanted, *WAIT).json["servers"]
        assert (server["status"], server["addresses"]) == ("ACTIVE", ["10.4.0.2"])
        assert terminal.ok("server", "list", "--json").json[0]["id"] == server["id"]
        assert "[simulated]" in terminal.ok("server", "console-log", "web").out
        terminal.ok("server", "delete", "web", *WAIT)
        foreign = terminal.run("gql", "{ cloud { version } }")
        assert (foreign.code, json.loads(foreign.out)["errors"][0]["extensions"]["code"]) == (
            1, "TRUSTED_DOCUMENT_REQUIRED",
        )  # fmt: skip
        terminal.ok("logout")
        for text in Assets().documents.values():  # the playground's own: whatever they need, they may run
            answer = httpx2.post(f"{made.gateways[0].url}/graphql", json={"query": text}).json()
            codes = [each["extensions"]["code"] for each in answer.get("errors", ())]
            assert "TRUSTED_DOCUMENT_REQUIRED" not in codes
