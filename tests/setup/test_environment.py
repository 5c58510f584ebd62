"""The set-up scripts on a small project: hashes are checked, a second run changes nothing, a change is seen.

The small project takes a few packages from the real requirements.lock, so that no test needs a minute of installing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers.daemon import ROOT

PACKAGES = ["hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers", "iniconfig"]
PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "small"
version = "1"
[project.scripts]
small = "small:main"
[tool.hatch.build]
dev-mode-dirs = ["."]
"""


def locked(name: str) -> str:
    """A package's part of the real lock."""
    found = re.search(rf"^{name}==.*\n(?:[ #].*\n)*", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found, name
    return found.group()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project with our set-up scripts."""
    shutil.copytree(ROOT / "gateway" / "setup", tmp_path / "gateway" / "setup")
    (tmp_path / "requirements.lock").write_text("".join(locked(name) for name in PACKAGES))
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "small.py").write_text("def main() -> None:\n    print('it runs')\n")
    return tmp_path


def script(project: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([environment.pop("PREPEND", ""), os.environ["PATH"]]).strip(os.pathsep)
    return subprocess.run(
        [project / "gateway" / "setup" / name],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": path, **environment},
    )


@pytest.mark.timeout(300)
def test_an_environment_is_made_once_and_again_when_something_changed(project: Path) -> None:
    made = script(project, "environment.sh")
    assert made.returncode == 0, made.stderr
    assert "making .venv with Python 3." in made.stderr
    assert (
        subprocess.run([project / ".venv/bin/small"], check=True, capture_output=True, text=True).stdout == "it runs\n"
    )

    before = {path: path.lstat().st_mtime_ns for path in (project / ".venv").rglob("*")}
    again = script(project, "environment.sh")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert {path: path.lstat().st_mtime_ns for path in (project / ".venv").rglob("*")} == before

    changed = PROJECT.replace('small = "small:main"', 'small = "small:main"\nlittle = "small:main"')
    (project / "pyproject.toml").write_text(changed)
    assert script(project, "environment.sh").returncode == 0
    assert (
        subprocess.run([project / ".venv/bin/little"], check=True, capture_output=True, text=True).stdout == "it runs\n"
    )


def test_a_package_with_another_hash_is_refused(project: Path) -> None:
    lock = project / "requirements.lock"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, lock.read_text()))
    refused = script(project, "environment.sh")
    assert refused.returncode != 0
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    assert not (project / ".venv" / ".stamp").exists()
    assert not (project / ".venv" / "bin" / "small").exists()


def test_the_lock_has_a_hash_for_everything_and_names_no_registry() -> None:
    text = (ROOT / "requirements.lock").read_text()
    names = re.findall(r"^([a-z0-9._-]+)==", text, re.MULTILINE)
    assert len(names) > 80
    assert all("--hash=sha256:" in locked(name) for name in names)
    assert "://" not in text
    assert "--index-url" not in text


def test_a_python_that_is_too_old_is_passed_over(project: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    shim = old / "python3"
    shim.write_text("#!/bin/sh\nexit 1\n")
    shim.chmod(0o755)
    for name in ("python3.11", "python3.12", "python3.13", "python3.14"):
        assert not (old / name).exists()
    found = script(project, "python.sh", PREPEND=str(old))
    assert found.returncode == 0, found.stderr
    version = subprocess.run([found.stdout.strip(), "-V"], check=True, capture_output=True, text=True).stdout
    assert int(version.split(".")[1]) >= 11

    refused = script(project, "python.sh", PYTHON=str(shim))
    assert refused.returncode == 1
    assert "Python 3.11 or newer" in refused.stderr


def test_help_has_a_line_for_each_target() -> None:
    text = subprocess.run(["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert [line.split()[1] for line in text.splitlines()] == targets.group(1).split()
    assert all(len(line.split()) > 3 for line in text.splitlines())


def test_ci_runs_lint_and_tests_and_reads_no_input() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert "set -euo pipefail" in lines
    assert [line.removesuffix(" || {") for line in lines if line.startswith("make ")] == ["make lint", "make test"]
    assert "exec </dev/null" in lines
