"""The committed assets are what the committed source gives: a build in a fresh folder ends in the same bytes."""

import gzip
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import gateway.dashboard

_DASHBOARD = Path(gateway.dashboard.__file__).parent
_SOURCE = _DASHBOARD / "playground"
_INSTALL_SECONDS = 240
_BUILD_SECONDS = 120


def _run(arguments: list[str], folder: Path, timeout_seconds: int) -> None:
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(name="workshop", scope="module")
def _workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source somewhere else, with its packages: installed afresh in CI, the developer's own elsewhere."""
    in_ci = bool(os.environ.get("CI"))
    if not in_ci and not (_SOURCE / "node_modules").is_dir():
        pytest.skip("npm ci was not run in gateway/dashboard/playground")
    folder = tmp_path_factory.mktemp("build") / "playground"
    shutil.copytree(_SOURCE, folder, ignore=shutil.ignore_patterns("node_modules"))
    if in_ci:
        npm = shutil.which("npm")
        assert npm, "no npm on this machine"
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder, _INSTALL_SECONDS)
    else:
        (folder / "node_modules").symlink_to(_SOURCE / "node_modules")
    return folder


@pytest.mark.timeout(_INSTALL_SECONDS + _BUILD_SECONDS)
def test_the_source_gives_the_committed_bytes(workshop: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node, "no node on this machine"
    _run([node, "build.mjs", str(tmp_path / "built")], workshop, _BUILD_SECONDS)
    built = {path.name: path.read_bytes() for path in (tmp_path / "built").iterdir()}
    committed = {path.name: path.read_bytes() for path in (_DASHBOARD / "assets").iterdir()}
    assert sorted(built) == sorted(committed)
    assert [name for name in built if built[name] != committed[name]] == []


@pytest.mark.timeout(_INSTALL_SECONDS + _BUILD_SECONDS)
def test_the_types_hold(workshop: Path) -> None:
    _run([str(workshop / "node_modules" / ".bin" / "tsc"), "--noEmit"], workshop, _BUILD_SECONDS)


def test_the_lock_names_no_registry() -> None:
    lock = (_SOURCE / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock
    assert lock.count('"integrity"') > 80


def test_the_bundle_names_no_other_host_to_load_from() -> None:
    """Addresses do stand in the bundle (links, namespaces); the hosts that GraphiQL's set-up uses do not."""
    for path in (_DASHBOARD / "assets").glob("*.gz"):
        text = gzip.decompress(path.read_bytes())
        for host in (b"esm.sh", b"unpkg.com", b"cdn.jsdelivr", b"fonts.googleapis"):
            assert path.name.startswith("third-party-notices") or host not in text, path.name
