"""The published matrix of capabilities is what drivers declare, and every kind's contract run is compared with it.

That it is also what they do is held by the runs themselves (matrix.py), when the last test of the contract on each kind
has run (test_sim_contract, test_kvm_contract, test_esxi_contract). Here it is held that no capability escapes that.
"""

from __future__ import annotations

import re
from pathlib import Path

from drivers import registry
from drivers.api import VERBS, Capability
from tests.drivers.matrix import in_graph, in_readme
from tests.world import World

ROOT = Path(__file__).parents[2]
CONTRACT = "".join(path.read_text() for path in sorted((ROOT / "drivers/contracts").glob("*.py")))
RUN_BY = {"KVM": "test_kvm_contract", "ESXI": "test_esxi_contract", "SIM": "test_sim_contract"}


def test_the_contract_shows_every_capability_to_work() -> None:
    shown = set(re.findall(r"rig\.works\(Capability\.([A-Z_]+)\)", CONTRACT))
    by_case = set(re.findall(r"\(PowerAction\.\w+, Power\.\w+, Capability\.([A-Z_]+)\)", CONTRACT))
    assert shown | by_case == {each.name for each in Capability}


def test_every_kind_runs_the_contract_and_is_compared() -> None:
    assert set(RUN_BY) == set(registry.all_types())
    for kind, name in RUN_BY.items():
        text = (ROOT / "tests/drivers" / f"{name}.py").read_text()
        assert re.search(r"^class Test\w+\(Published, DriverContract\)", text, re.MULTILINE), kind


def test_what_is_not_declared_is_no_method_and_what_is_declared_is_known() -> None:
    for found in registry.all_types().values():
        assert not found.traits & set(VERBS)
        assert found.verbs <= set(VERBS)


def test_the_graph_and_the_readme_tell_what_is_declared(world: World) -> None:
    declared = {kind: set(found.capabilities) for kind, found in registry.all_types().items()}
    told = in_graph(world)
    assert {kind: can for kind, (can, _) in told.items()} == declared
    every = set().union(*declared.values())
    assert {kind: missing for kind, (_, missing) in told.items()} == {
        kind: every - can for kind, can in declared.items()
    }
    assert in_readme() == declared
