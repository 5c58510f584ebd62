"""The published matrix of capabilities, from the graph and from the README, and what a run of the contract found.

:class:`Published` is mixed into the contract's test classes that try a kind of driver whole. Its test comes last in its
class (conftest.py), when the others have said what they saw: each capability worked, or was refused by its name and
changed nothing, or its verbs are not there. That has to be the matrix, without remainder.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from drivers import registry
from drivers.api import Capability
from drivers.contracts.rig import Rig
from gateway.first_start import FirstStart
from gateway.identity import bootstrap
from tests.world import World

ROOT = Path(__file__).parents[2]
ASKED = "{ cloud { drivers { kind capabilities missing } } }"


class Published:
    """The last test of a class that runs the contract on one kind of driver."""

    def test_the_run_found_the_published_matrix(self, rig: Rig, world: World, request: pytest.FixtureRequest) -> None:
        can, missing = in_graph(world)[rig.type.kind]
        assert can == in_readme()[rig.type.kind]
        assert can | missing == set(Capability)
        found = rig.found
        assert found.contradictions(can - rig.lacks) == []
        if is_whole(request):
            assert found.open == set()
            assert found.works == can - rig.lacks
            assert found.lacks == missing | rig.lacks


def is_whole(request: pytest.FixtureRequest) -> bool:
    """Whether all tests of the class were asked for, so that nothing may be left open."""
    own = request.node.parent
    asked = {each.originalname for each in request.session.items if each.parent is own}  # type: ignore[attr-defined]  # functions have one
    return {name for name in dir(request.cls) if name.startswith("test_")} <= asked


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
