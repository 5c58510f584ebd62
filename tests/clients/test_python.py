"""The Python example: generated from the committed schema in its own environment, checked by mypy, run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.clients.pages import followed
from tests.clients.setting_up import HERE, python_client, worked
from tests.end_to_end.processes import Cloud

FOLDER = HERE / "python"


@pytest.fixture(scope="module")
def python() -> Path:
    """The client's own Python, with the client generated."""
    made = python_client("python")
    worked([str(made.with_name("ariadne-codegen"))], FOLDER)
    return made


def test_is_typed(python: Path) -> None:
    mypy = [sys.executable, "-m", "mypy", "--config-file=pyproject.toml", "--cache-dir=.mypy_cache"]
    worked([*mypy, f"--python-executable={python}", "main.py"], FOLDER, 200)


@pytest.mark.usefixtures("python")
def test_the_page_as_it_stands_lives_through_a_server(running: Cloud, tmp_path: Path) -> None:
    printed = followed("python", tmp_path, running.gateways[0].url)
    assert json.loads(printed.splitlines()[-1]) == {"user": "admin", "server": ["BUILDING", "ACTIVE", "GONE"]}
