"""The shape of the tree: small files, inward imports, the same names in every layer."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("gateway", "resolvers", "workers", "drivers", "tests")
MOST_LINES = 500
TOO_LONG: frozenset[str] = frozenset({"drivers/api.py"})
"""Files above the limit. This list only shrinks."""
NO_PACKAGES = frozenset({"gateway/migrations/versions", "tests", "tests/clients/python"})
"""Folders of scripts: Alembic's, and a foreign client's."""
TOP = frozenset({"gateway", "resolvers", "workers", "drivers", "tests"})


def _committed(*patterns: str) -> list[Path]:
    told = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / line for line in told.splitlines() if (ROOT / line).is_file()]


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in _committed("*.py", "*.ts", "*.tsx", "*.mjs", "*.sh", "*.go")
        if path.parent.name != "versions" and len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES
    }
    assert long <= TOO_LONG


def test_the_top_level_is_fixed() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in _committed() if len(path.relative_to(ROOT).parts) > 1}
    assert {each for each in folders if not each.startswith(".")} == TOP


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_modules_is_a_package(package: str) -> None:
    folders = {path.parent for path in _committed(f"{package}/*.py")}
    bare = {str(folder.relative_to(ROOT)) for folder in folders if not (folder / "__init__.py").exists()}
    assert bare - NO_PACKAGES == set()


@pytest.mark.parametrize("layer", ["resolvers", "workers"])
def test_a_layer_has_the_folders_of_the_cloud(layer: str) -> None:
    services = {path.parent.name for path in _committed("gateway/*/__init__.py")}
    own = {"kernel", "planner", "schema_care", "transport"} if layer == "resolvers" else set()
    folders = {path.relative_to(ROOT).parts[1] for path in _committed(f"{layer}/*/*.py")}
    assert folders - own <= services


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for package in ("gateway", "resolvers", "workers", "drivers")
        for path in _committed(f"{package}/*.py")
        if path.read_text(encoding="utf-8").strip()
        and ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) is None
    ]
    assert [each for each in silent if "/versions/" not in each] == []


def test_imports_point_inward() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(tool)], cwd=ROOT, check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-4000:]
