"""What the documents say is there is there: generated parts, links, paths, commands, settings, GraphQL. The examples of
the front page and the guide are run as they stand against a cloud of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLSchema, build_schema, parse, validate
from typer.main import get_command

from drivers.api import Capability
from gateway import documents
from gateway.commands import app
from gateway.kernel.settings import CONFIG, OF_THE_CLIENT, PREFIX, Settings
from resolvers.schema import sdl
from resolvers.transport.limits import Limits
from tests.architecture.pages import ROOT, Page, pages
from tests.compute.scene import Scene
from tests.end_to_end.processes import PROGRAM, Gateway
from tests.servers.daemon import free_port
from tests.world import World
from workers.main import load_all
from workers.saga import SAGAS

every_page = pytest.mark.parametrize("page", pages(), ids=str)
README = Page(ROOT / "README.md")

OF_A_RUNNING_CLOUD = {".state/", "images/", "scratch/", "stratograph.toml", "src/gql/", "stratograph_client/"}
"""Paths that the documents name and the tree does not hold: in the state directory, or generated beside a client."""


# ---------------------------------------------------------------------------------------------- generated


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_generated_parts_are_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in [each for each in SAGAS if each.startswith("test.")]:  # other tests, in this process, have their own
        monkeypatch.delitem(SAGAS, kind)
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- generated: " in text
    assert documents.filled(text) == text, "run: .venv/bin/python -m gateway.documents"


def test_every_generated_part_stands_somewhere() -> None:
    shown = {part for page in pages() for part in re.findall(r"<!-- generated: (\w+) -->", page.text)}
    assert shown == set(documents.PARTS)


def test_every_capability_is_explained() -> None:
    assert all(f"| `{each}` |" in documents.capabilities() for each in Capability)


# ---------------------------------------------------------------------------------------------- what is named exists


@every_page
def test_links_lead_somewhere(page: Page) -> None:
    for target in page.links:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.path.parent / path).resolve() if path else page.path
        assert found.exists(), target
        if anchor:
            assert anchor in Page(found).anchors, target


@every_page
def test_named_paths_exist(page: Page) -> None:
    named = re.compile(r"(?:[\w.-]+/)*[\w.-]+(?:\.(?:py|md|sh|toml|lock|graphql|S)|/)")
    for span in page.spans:
        if named.fullmatch(span) is None or span in OF_A_RUNNING_CLOUD:
            continue
        places = [ROOT, page.path.parent, *(each for each in page.path.parent.iterdir() if each.is_dir())]
        assert any((place / span).exists() for place in places), span


@every_page
def test_named_commands_exist(page: Page) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in page.everything_said:
        assert set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE)) <= targets, text
        for words in re.findall(r"^stratograph ([a-z -]+)", text, re.MULTILINE):
            assert_command(words.split())
        for module in re.findall(r"python -m (\w+(?:\.\w+)*)", text):
            assert find_spec(module) is not None, text


def assert_command(words: list[str]) -> None:
    """The words begin with the name of a command; what follows its name are its arguments."""
    command: Any = get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            return
        assert word in command.commands, words
        command = command.commands[word]


@pytest.mark.parametrize("page", [each for each in pages() if not str(each).startswith("tests/")], ids=str)
def test_named_settings_exist(page: Page) -> None:
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | {CONFIG} | OF_THE_CLIENT
    named = set(re.findall(rf"{PREFIX}\w*[A-Z]", page.text))
    assert named - {f"{PREFIX}CHROMIUM"} <= known  # of the browser's tests
    for block in page.blocks:
        if block.language == "toml":
            assert set(tomllib.loads(block.text)) <= set(Settings.model_fields)


@pytest.fixture(scope="module")
def graph() -> GraphQLSchema:
    return build_schema(sdl())


@every_page
def test_graphql_examples_fit_the_schema(page: Page, graph: GraphQLSchema) -> None:
    for block in page.blocks:
        if block.language == "graphql":
            assert validate(graph, parse(block.text)) == [], block.text


@pytest.mark.parametrize("name", ["README.md", "resolvers/GUIDE.md", "gateway/OPERATIONS.md"])
def test_named_fields_are_in_the_schema(name: str, graph: GraphQLSchema) -> None:
    known = {"operationName", "documentId", "requestId"}  # of the transport
    for each in graph.type_map.values():
        for field_name, field in getattr(each, "fields", {}).items():
            known |= {field_name, *getattr(field, "args", {})}
    words = {each for span in Page(ROOT / name).spans for each in re.findall(r"(?<![\w.])[a-z]+[A-Z][A-Za-z]*\b", span)}
    assert words <= known


# ---------------------------------------------------------------------------------------------- what is told is so


def test_the_story_of_a_server_is_the_sagas_own(world: World) -> None:
    load_all()
    story = README.text.partition("## 29 steps and ours")[2].partition("\n## ")[0]
    names = [step.name for step in SAGAS["server.create"].steps]
    assert sorted({each for each in re.findall(r"\*\*(\w+)\*\*", story) if each.islower()}) == sorted(names)
    assert [int(each) for each in re.findall(r"^\| (\d+) \|", story, re.MULTILINE)] == list(range(1, 30))
    scene = Scene.make(world)
    made = scene.create(networks=[{"networkId": scene.network}])
    world.work()
    told = [f"| `{step.name}` | {step.message} |" for step in world.job(made["job"]["id"]).told]
    assert re.findall(r"^\| `\w+` \| .*? \|", story, re.MULTILINE) == told


def test_the_limits_are_the_transports_own() -> None:
    limits, table = Limits(), Page(ROOT / "resolvers/GUIDE.md").text.partition("## Limits")[2].partition("\n## ")[0]
    settings = Settings.model_fields
    assert f"| {limits.characters:,} characters, {limits.tokens:,} |" in table
    assert f"| {limits.depth}, {limits.aliases}, {limits.nodes} |" in table
    assert f"{limits.mutation_cost} more a mutation | {limits.cost:,} |" in table
    assert f"| {settings['rate_limit'].default:,} (a setting) |" in table
    assert f"| {settings['operation_timeout_s'].default:.0f} s (a setting) |" in table


def test_the_map_shows_every_folder() -> None:
    shown = README.text.partition("## The map")[2].partition("```\n")[2].partition("```")[0]
    top = {each.name for each in ROOT.iterdir() if (each / "__init__.py").exists()}
    assert set(re.findall(r"^(\w+)/", shown, re.MULTILINE)) == top
    inner = {each.name for each in (ROOT / "gateway").iterdir() if each.is_dir() and each.name != "__pycache__"}
    assert inner <= set(re.findall(r"(\w+)/", shown))


def test_decisions_fit_a_page_and_one_pattern() -> None:
    found = [page for page in pages() if page.path.parent.name == "decisions"]
    numbers = [page.path.name[:4] for page in found]
    assert len(set(numbers)) == len(numbers)
    for page in found:
        assert page.text.startswith(f"# {page.path.name[:4]} "), page
        heads = re.findall(r"^\*\*(\w+)\.\*\*", page.text, re.MULTILINE)
        assert [each for each in heads if each in {"Context", "Decision", "Consequences"}] == [
            "Context", "Decision", "Consequences",
        ], page  # fmt: skip
        assert len(page.text.splitlines()) <= 60, page


# ---------------------------------------------------------------------------------------------- examples run


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A cloud on the sim driver as `make run` serves it, with its state directory where the examples look for it."""
    listen = f"127.0.0.1:{free_port()}"
    given = {"STATE_DIR": str(tmp_path / ".state"), "LISTEN": listen, "DRIVERS": "sim"}
    given["ALLOWED_WEBHOOK_NETWORKS"] = "127.0.0.0/8"  # as the page on webhooks says
    environment = {f"{PREFIX}{name}": value for name, value in given.items()}
    made = Gateway("serve", environment, tmp_path / "log", url=f"http://{listen}")
    made.start()
    try:
        made.ready()
        yield made
        assert made.stop() == 0
    finally:
        made.kill()


def test_the_examples_work_as_they_stand(gateway: Gateway, tmp_path: Path) -> None:
    names = ("resolvers/GUIDE.md", "gateway/dashboard/PLAYGROUND.md", "gateway/integration/WEBHOOKS.md")
    followed = (README, *(Page(ROOT / name) for name in names))
    parts = [block.text for page in followed for block in page.blocks if block.tested]
    assert len(parts) == 18
    # The last part of the front page asks what became of the volume; a reader takes longer than the job.
    parts.insert(1, "until ask '{ volumes { nodes { status } } }' | grep -q AVAILABLE; do sleep 0.1; done\n")
    script = "\n".join(["set -eu", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT", *parts])
    script = script.replace("http://127.0.0.1:8080", gateway.url)
    script = script.replace("9099", str(free_port()))  # where the webhooks' receiver listens
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={"PATH": path, "HOME": str(tmp_path), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    told = ran.stdout + ran.stderr
    assert ran.returncode == 0, told
    assert '"errors"' not in told
    assert '"name":"first","status":"AVAILABLE"' in told
    assert '"possible":true' in told
    assert '"status":"ACTIVE","addresses":["10.20.0.2"]' in told
    ends = re.findall(r'"jobChanged":\{"status":"(SUCCEEDED|FAILED|CANCELLED|STUCK)"', told)
    assert ends == ["SUCCEEDED"] * 4
    assert '"type":"network"' in told
    assert "<title>Playground" in told
    assert re.findall(r"^(?:new|again) network\.created network_", told, re.MULTILINE) == [
        "new network.created network_", "again network.created network_",
    ]  # fmt: skip
    assert [each for each in ("server.create SUCCEEDED", "server.delete SUCCEEDED") if each not in told] == []
    assert set(re.findall(r'"userErrors":\[[^\]]*\]', told)) == {'"userErrors":[]'}
