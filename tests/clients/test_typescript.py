"""The TypeScript example: generated from the committed schema, strictly typed, and run against a gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.clients.pages import followed
from tests.clients.setting_up import npm_client, worked
from tests.end_to_end.processes import PASSWORD, Cloud, cloud

NODE_MODULES = Path("node_modules") / ".bin"
MANIFEST = Path("src/gql/persisted-documents.json")


@pytest.fixture(scope="module")
def client() -> Path:
    """The folder of the client, built."""
    folder = npm_client("typescript")
    worked([str(NODE_MODULES / "graphql-codegen"), "--config", "codegen.ts"], folder)
    worked([str(NODE_MODULES / "tsc")], folder)
    return folder


def _lived(client: Path, url: str, **environment: str) -> Any:
    printed = worked(["node", "dist/main.js", url], client, given={"STRATOGRAPH_PASSWORD": PASSWORD, **environment})
    return json.loads(printed.splitlines()[-1])


def test_nothing_in_it_is_untyped(client: Path) -> None:
    sources = list(client.glob("src/*.ts"))
    assert len(sources) == 3
    for source in sources:
        code = re.sub(r"//.*|/\*.*?\*/|`.*?`", "", source.read_text(), flags=re.DOTALL)
        assert not re.search(r"\bany\b|@ts-|\bas unknown\b", code), source.name


def test_the_page_as_it_stands_lives_through_a_server(client: Path, running: Cloud, tmp_path: Path) -> None:
    printed = followed(client.name, tmp_path, running.gateways[0].url)
    outcome = json.loads(printed.splitlines()[-1])
    assert outcome == {"user": "admin", "server": ["BUILDING", "ACTIVE", "GONE"], "foreign": "accepted"}


def test_lives_on_the_manifest_alone(client: Path, tmp_path: Path) -> None:
    with cloud(tmp_path, trusted_documents=str(client / MANIFEST)) as made:
        outcome = _lived(client, made.gateways[0].url, STRATOGRAPH_TRUSTED="1")
    assert outcome == {
        "user": "admin", "server": ["BUILDING", "ACTIVE", "GONE"], "foreign": "TRUSTED_DOCUMENT_REQUIRED",
    }  # fmt: skip
