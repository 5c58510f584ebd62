"""`make run` on this machine: it serves, a second start changes nothing, and SIGTERM ends all of it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.servers.daemon import ROOT, free_port, wait_until
from tests.servers.guard import descendants

pytestmark = pytest.mark.timeout(400)


def answers(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == httpx2.codes.OK
    except httpx2.TransportError:
        return False


@contextmanager
def served(state_dir: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`make run` on the sim driver, until it answers; ended by SIGTERM as a service's stop does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STRATOGRAPH_", "MAKE"))}
    environment |= {
        "STRATOGRAPH_STATE_DIR": str(state_dir),
        "STRATOGRAPH_LISTEN": f"127.0.0.1:{port}",
        "STRATOGRAPH_DRIVERS": "sim",
    }
    with log.open("wb") as output:
        make = subprocess.Popen(
            ["make", "run"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: make.poll() is not None or answers(f"http://127.0.0.1:{port}/readyz"), 200, log.name)
        assert make.poll() is None, log.read_text()
        yield make
    finally:
        if make.poll() is None:
            below = descendants(make.pid)
            make.send_signal(signal.SIGTERM)
            make.wait(60)
            assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []


def test_it_serves_and_ends_on_sigterm_twice(tmp_path: Path) -> None:
    state, port = tmp_path / "state", free_port()
    with served(state, port, tmp_path / "first.log"):
        text = (tmp_path / "first.log").read_text()
        assert "/playground" in text
        secret = state / "admin-password"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        password = secret.read_text()
        assert password.strip() not in text
        assert answers(f"http://127.0.0.1:{port}/healthz")
    assert not answers(f"http://127.0.0.1:{port}/healthz")

    with served(state, port, tmp_path / "second.log"):
        assert secret.read_text() == password
        second = (tmp_path / "second.log").read_text()
        assert "making .venv" not in second
        assert "installing" not in second
