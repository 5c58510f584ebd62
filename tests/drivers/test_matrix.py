"""The published matrix of capabilities is what drivers declare, and that is what the contract asks of them.

The contract's test files run it on each kind (test_sim_contract, test_kvm_contract, test_esxi_contract): a capability
that is declared has to work there, one that is not has to be refused. Here it is held that no capability escapes that,
and that the same matrix is told in the graph and in the README.
"""

from __future__ import annotations

import re
from pathlib import Path

from drivers import registry
from drivers.api import VERBS, Capability
from gateway.first_start import FirstStart
from gateway.identity import bootstrap
from tests.world import World

ROOT = Path(__file__).parents[2]
CONTRACT = "".join(path.read_text() for path in sorted((ROOT / "drivers/contracts").glob("*.py")))
RUN_BY = {"KVM": "test_kvm_contract", "ESXI": "test_esxi_contract", "SIM": "test_sim_contract"}


def declared() -> dict[str, set[str]]:
    return {kind: {each.value for each in found.capabilities} for kind, found in registry.all_types().items()}


def test_the_contract_asks_for_every_capability() -> None:
    assert {each.name for each in Capability} == set(re.findall(r"Capability\.([A-Z_]+)", CONTRACT))


def test_every_kind_runs_the_contract() -> None:
    assert set(RUN_BY) == set(registry.all_types())
    for kind, name in RUN_BY.items():
        text = (ROOT / "tests/drivers" / f"{name}.py").read_text()
        assert re.search(r"^class Test\w+\(DriverContract\)", text, re.MULTILINE), kind


def test_what_is_not_declared_is_no_method_and_what_is_declared_is_known() -> None:
    for found in registry.all_types().values():
        assert not found.traits & set(VERBS)
        assert found.verbs <= set(VERBS)


def test_the_graph_and_the_readme_tell_the_same(world: World) -> None:
    admin = bootstrap.ensure_admin(world.db, world.settings.state_dir, None)
    world.services.extras["drivers"] = FirstStart(admin, dict.fromkeys(registry.all_types()), None).known
    asked = "{ cloud { drivers { kind capabilities missing } } }"
    told = {each["kind"]: each for each in world.admin.ok(asked)["cloud"]["drivers"]}
    assert {kind: set(each["capabilities"]) for kind, each in told.items()} == declared()
    every = set().union(*declared().values())
    assert {kind: set(each["missing"]) for kind, each in told.items()} == {
        kind: every - can for kind, can in declared().items()
    }
    assert in_readme() == declared()


def in_readme() -> dict[str, set[str]]:
    """The table of the README, as sets."""
    text = (ROOT / "README.md").read_text()
    part = re.search(r"<!-- generated: capabilities -->\n(.*?)<!-- /generated -->", text, re.DOTALL)
    assert part is not None
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part[1].splitlines()]
    kinds = head[2:]
    named = [(row[0].strip("`"), row[2:]) for row in rows if row[0].startswith("`")]
    return {kind: {name for name, cells in named if cells[at] == "yes"} for at, kind in enumerate(kinds)}
