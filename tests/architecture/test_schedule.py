"""The schedule of a run in several workers: what a file shares is started once, and what takes long begins first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.schedule import LONG, TOGETHER, unit

ROOT = Path(__file__).parents[2]
ONE_FOR_ALL = frozenset({"npm", "postgres_server", "program", "rabbit_server", "redis_server"})
"""Fixtures of a whole run that one worker makes and all others find."""
ONE_EACH = frozenset({"postgres_stock", "shared_server", "stages"})
"""Fixtures of a whole run that each worker makes bit by bit, or in no time."""


def test_the_lists_name_what_there_is() -> None:
    for each in (*TOGETHER, *LONG):
        assert (ROOT / each).is_dir() if each.endswith("/") else (ROOT / each).is_file(), each
    assert len(set(TOGETHER)) == len(TOGETHER)


def test_tests_that_share_a_fixture_stay_together(request: pytest.FixtureRequest) -> None:
    """Of all tests that this run collected."""
    shared: dict[tuple[str, str], set[str]] = {}
    for item in request.session.items:
        assert isinstance(item, pytest.Function)
        for name, found in item._fixtureinfo.name2fixturedefs.items():
            scope, place = found[-1].scope, found[-1].baseid
            if scope != "function" and place.startswith("tests") and name not in ONE_FOR_ALL | ONE_EACH:
                where = place if scope == "session" else item.nodeid.split("::")[0]
                shared.setdefault((name, where), set()).add(unit(item.nodeid))
    assert {each: sorted(units) for each, units in shared.items() if len(units) > 1} == {}


TESTS = """
import os, time
from pathlib import Path
import pytest

LOG = Path({log!r})

def note(name):
    with LOG.open("a") as log:
        log.write(os.environ["PYTEST_XDIST_WORKER"] + " " + name + chr(10))

@pytest.mark.parametrize("number", range({tests}))
def test_it(number):
    note({name!r})
    if number == {dies_at}:
        os._exit(1)
    deadline = time.monotonic() + 60
    # Until two workers are at work, or there would be nothing to see.
    while len({{line.split()[0] for line in LOG.read_text().splitlines()}}) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
"""


def test_workers_keep_to_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    named = {TOGETHER[0]: 8, "tests/aaa/test_short.py": 30, "tests/guest/test_long.py": 2}
    dies_at = 5  # a test of those that are together ends its worker
    for name, tests in named.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(TESTS.format(log=str(log), tests=tests, name=name, dies_at=dies_at))
        dies_at = -1
    (tmp_path / "pytest.ini").touch()
    # Not a worker of this run itself.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-ptests.schedule", "-pno:randomly", "-n2", "--dist=loadscope", "tests"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "1 failed, 39 passed" in done.stdout, done.stdout + done.stderr
    assert f"crashed while running '{TOGETHER[0]}::test_it[5]'" in done.stdout
    lines = [line.split() for line in log.read_text().splitlines()]
    together, short, long = (
        [(at, worker) for at, (worker, name) in enumerate(lines) if name == each] for each in named
    )
    assert [len(each) for each in (together, short, long)] == list(named.values())
    assert len({worker for _, worker in together[:6]}) == 1
    assert len({worker for _, worker in together[6:]}) == 1
    assert {worker for _, worker in short} != {together[0][1]}
    assert max(at for at, _ in long) < min(at for at, _ in short)
    assert together[0][0] < min(at for at, _ in short)
