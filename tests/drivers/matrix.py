"""The published matrix of capabilities, from the graph and from the README, and what a run of the contract found.

:class:`Published` is mixed into the contract's test classes that try a kind of driver whole. Each test says what it
saw: a capability worked, or was refused by its name and changed nothing, or its verbs are not there. When the last
one has run, on whatever worker, all that together has to be the matrix, without remainder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers import registry
from drivers.api import Capability
from drivers.contract import Rig
from gateway.first_start import FirstStart
from gateway.identity import bootstrap
from tests.servers.counter import locked
from tests.servers.shared import run_folder
from tests.world import World

ROOT = Path(__file__).parents[2]
ASKED = "{ cloud { drivers { kind capabilities missing } } }"


class Published:
    """A class that runs the contract on one kind of driver, and what it found in the end."""

    @pytest.fixture(scope="class", autouse=True)
    def summed(
        self, rig: Rig, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[set[str]]:
        """Adds what was found to what the class's tests on other workers found; the last one compares."""
        ran: set[str] = set()
        yield ran
        whole = asked(request) if is_whole(request) else {"never"}
        note = run_folder(tmp_path_factory) / f"findings-{request.cls.__name__}.json"
        with locked(note.with_suffix(".lock")):
            told = json.loads(note.read_text()) if note.exists() else {"ran": [], "works": [], "lacks": []}
            for name, seen in (("ran", ran), ("works", rig.found.works), ("lacks", rig.found.lacks)):
                told[name] = sorted({*told[name], *seen})
            note.write_text(json.dumps(told))
        rig.found.works, rig.found.lacks = ({Capability(each) for each in told[name]} for name in ("works", "lacks"))
        can = in_readme()[rig.type.kind]
        assert rig.found.contradictions(can - rig.lacks) == []
        if whole <= set(told["ran"]):
            assert rig.found.open == set()
            assert rig.found.works == can - rig.lacks

    @pytest.fixture(autouse=True)
    def noted(self, summed: set[str], request: pytest.FixtureRequest) -> Iterator[None]:
        """Remember that the test ran."""
        yield
        summed.add(request.node.nodeid)

    def test_the_matrix_is_told_alike_in_the_graph_and_in_the_readme(self, rig: Rig, world: World) -> None:
        can, missing = in_graph(world)[rig.type.kind]
        assert can == in_readme()[rig.type.kind]
        assert can | missing == set(Capability)


def asked(request: pytest.FixtureRequest) -> set[str]:
    """The tests of the class that are to be run, on all workers."""
    items = request.session.items
    return {each.nodeid for each in items if each.parent is not None and each.parent.nodeid == request.node.nodeid}


def is_whole(request: pytest.FixtureRequest) -> bool:
    """Whether all tests of the class were asked for, so that nothing may be left open."""
    names = {each.rpartition("::")[2].partition("[")[0] for each in asked(request)}
    return {name for name in dir(request.cls) if name.startswith("test_")} <= names


def in_graph(world: World) -> dict[str, tuple[set[Capability], set[Capability]]]:
    """What each kind can do and what it lacks, as the graph tells it."""
    admin = bootstrap.ensure_admin(world.db, world.settings.state_dir, None)
    world.services.extras["drivers"] = FirstStart(admin, dict.fromkeys(registry.all_types()), None).known
    told = world.admin.ok(ASKED)["cloud"]["drivers"]
    return {
        each["kind"]: (
            {Capability(name) for name in each["capabilities"]},
            {Capability(name) for name in each["missing"]},
        )
        for each in told
    }


def in_readme() -> dict[str, set[Capability]]:
    """The table of the README, as sets."""
    text = (ROOT / "README.md").read_text()
    part = re.search(r"<!-- generated: capabilities -->\n(.*?)<!-- /generated -->", text, re.DOTALL)
    assert part is not None
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part[1].splitlines()]
    kinds = head[2:]
    named = [(Capability(row[0].strip("`")), row[2:]) for row in rows if row[0].startswith("`")]
    return {kind: {name for name, cells in named if cells[at] == "yes"} for at, kind in enumerate(kinds)}
