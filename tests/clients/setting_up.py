"""The clients' own packages: installed from committed lock files, by npm and uv, beside each example and outside git.

An install is kept until its lock file changes, and is made once even when several test processes want it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
INSTALL_S = 280
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def npm_client(name: str) -> Path:
    """The folder of an npm client, with what its lock file names in ``node_modules``."""
    return _npm(HERE / name)


def python_client(name: str) -> Path:
    """The Python of a client's own virtual environment, made from its ``requirements.lock``."""
    folder = HERE / name
    environment = folder / ".venv"
    python = environment / "bin" / "python"
    lock = folder / "requirements.lock"

    def install() -> None:
        uv = Path(sys.executable).with_name("uv")
        _done([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)], folder)
        _done([str(uv), "pip", "sync", "--quiet", "--python", str(python), str(lock)], folder)

    _once(folder, lock, environment / ".installed", install)
    return python


def run(
    command: list[str], folder: Path, seconds: float = 120, *, given: Mapping[str, str] = NOTHING
) -> subprocess.CompletedProcess[str]:
    """Run a client's command in its folder; its environment is this one's without our settings, and ``given``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STRATOGRAPH_", "VIRTUAL_ENV"))}
    return subprocess.run(
        command, cwd=folder, env={**kept, **given}, timeout=seconds, capture_output=True, text=True, check=False
    )


def worked(command: list[str], folder: Path, seconds: float = 120, *, given: Mapping[str, str] = NOTHING) -> str:
    """What a client's command printed; it must have ended well."""
    done = run(command, folder, seconds, given=given)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _npm(folder: Path) -> Path:
    tool = shutil.which("npm")
    if tool is None:
        pytest.fail("npm is missing: apt-get install npm (or Node 20)")

    def install() -> None:
        _done([tool, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], folder)

    _once(folder, folder / "package-lock.json", folder / "node_modules" / ".installed", install)
    return folder


def _once(folder: Path, lock: Path, stamp: Path, install: Callable[[], None]) -> None:
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    with closing((folder / ".lock").open("w")) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            install()
            stamp.write_text(wanted)


def _done(command: list[str], folder: Path) -> None:
    done = run(command, folder, INSTALL_S)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}"
