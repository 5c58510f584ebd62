"""A client's page followed to the letter: its commands, as they stand, in a fresh clone beside a running gateway.

What the page installs (`npm ci`, a virtual environment) is there already, of the same lock file: made once for all
tests (`tests/clients/setting_up.py`) and lent to the clone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.architecture.pages import ROOT, Page
from tests.end_to_end.processes import PASSWORD

INSTALLING = re.compile(r"^(?:npm ci|python3 -m venv|\.venv/bin/pip install)\b.*\n", re.MULTILINE)


def cloned(name: str, folder: Path) -> Path:
    """The top of a clone: the client's committed files, the schema, and a state directory with the password."""
    listed = ["git", "ls-files", f"tests/clients/{name}", "resolvers/schema.graphql"]
    told = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout
    clone = folder / "clone"
    for each in told.splitlines():
        (clone / each).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / each, clone / each)
    for installed in ("node_modules", ".venv"):
        source = ROOT / "tests" / "clients" / name / installed
        if source.exists():
            (clone / "tests" / "clients" / name / installed).symlink_to(source)
    (clone / ".state").mkdir()
    (clone / ".state" / "admin-password").write_text(PASSWORD)
    return clone


def followed(name: str, folder: Path, url: str = "http://127.0.0.1:9", seconds: float = 240) -> str:
    """What the commands of a client's page print, run in a clone under ``folder``; they must end well."""
    page = Page(ROOT / "tests" / "clients" / name / "README.md")
    parts = [block.text for block in page.blocks if block.tested]
    script, installs = INSTALLING.subn("", "\n".join(["set -eu", *parts]))
    assert installs, f"{page} installs nothing"
    kept = {each: value for each, value in os.environ.items() if not each.startswith(("STRATOGRAPH_", "VIRTUAL_ENV"))}
    done = subprocess.run(
        ["bash", "-c", script], cwd=cloned(name, folder), env={**kept, "STRATOGRAPH_URL": url},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
