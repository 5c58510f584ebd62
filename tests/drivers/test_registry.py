"""Drivers are found by entry point, by kind, and import no SDK until they connect."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from drivers import registry
from drivers.api import VERBS, DriverType


def test_every_entry_point_is_a_driver_type_under_its_kind() -> None:
    found = registry.all_types()
    assert set(found) >= {"SIM", "ESXI", "KVM"}
    assert list(found) == sorted(found)
    assert registry.failures() == {}
    for kind, driver in found.items():
        assert isinstance(driver, DriverType)
        assert driver.kind == kind
        assert driver.verbs <= set(VERBS)
        assert not driver.traits & set(VERBS)
        assert driver.description


def test_get_answers_by_kind_and_knows_no_other() -> None:
    assert registry.get("SIM") is registry.all_types()["SIM"]
    with pytest.raises(KeyError):
        registry.get("sim")


@pytest.mark.parametrize("name", sorted(point.name for point in entry_points(group=registry.GROUP)))
def test_loading_a_driver_imports_no_sdk(name: str) -> None:
    code = (
        "import sys\n"
        "from importlib.metadata import entry_points\n"
        f"[point] = entry_points(group={registry.GROUP!r}, name={name!r})\n"
        "point.load()\n"
        "print(sorted({'libvirt', 'pyVmomi', 'pyVim', 'sqlalchemy', 'strawberry', 'dramatiq'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
