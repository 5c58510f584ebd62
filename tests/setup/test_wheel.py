"""The wheel: whoever installs it needs neither Node nor a clone. Everything that is read at run time is in it, and the
playground, the schema and the migrations work from it alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.servers.daemon import ROOT

READ = (".sql", ".html", ".gz", ".graphql", ".json", ".mako", ".toml", ".typed")
TRY = """
import json, re, sys
sys.path.insert(0, sys.argv[1])
from starlette.applications import Starlette
from starlette.testclient import TestClient
import gateway
from gateway.dashboard.routes import routes
from gateway.kernel.db import Database
from gateway import migrations
from resolvers.schema import committed, sdl
client = TestClient(Starlette(routes=routes(sdl=committed())))
page = client.get("/playground").text
named = re.findall(r'(?:src|href|data-logo)="([^"]+)"', page)
database = Database("sqlite:///" + sys.argv[2])
migrations.upgrade(database)
print(json.dumps({
    "from": gateway.__file__,
    "assets": {name: client.get(name).status_code for name in named},
    "schema": committed() == sdl(),
}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    [made] = folder.glob("*.whl")
    return made


def test_what_is_read_at_run_time_is_in_it(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "gateway", "resolvers", "workers", "drivers"],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=60,
    ).stdout.split()  # fmt: skip
    needed = {name for name in listed if name.endswith((".py", *READ))}
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    assert needed - names == set()
    assert {name for name in names if "node_modules" in name or name.startswith("tests/")} == set()
    assert sum(name.startswith("gateway/dashboard/assets/") for name in names) > 25


def test_it_serves_the_playground_without_node_or_a_clone(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(installed)
    command = [sys.executable, "-c", TRY, str(installed), str(tmp_path / "new.db")]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert Path(told["from"]).is_relative_to(installed)
    assert len(told["assets"]) == 4
    assert set(told["assets"].values()) == {200}
    assert told["schema"] is True
