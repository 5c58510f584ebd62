"""A process keeps its threads on one core, goes to a freer one, and leaves long work and other programs alone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway.kernel.core import Core, freer
from gateway.kernel.settings import load
from tests.bench import process
from tests.servers.daemon import free_port

GIVEN = frozenset(os.sched_getaffinity(0))
ELSEWHERE = """
import json, os, subprocess, sys, threading
from gateway.kernel.core import Core

def cores(thread=0):
    return sorted(os.sched_getaffinity(thread))

def seen(ask):
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join()
    return found[0]

def child():
    done = subprocess.run([sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)

given = cores()
gone = threading.Event()
early = threading.Thread(target=gone.wait)
early.start()
core = Core()
with core.apart():
    assert cores() == given
core.begin()
first = core.bound
if len(given) == 1:
    assert first is None
    gone.set()
    print("held")
    sys.exit()
assert first in given
assert cores() == [first] == cores(early.native_id) == seen(cores)
with core.apart():
    with core.apart():
        assert cores() == given == child()
    assert cores() == given, "still apart"
    assert cores(early.native_id) == [first]
    core.look({each: 1.0 if each == first else 0.0 for each in given}, 0.1)
    second = core.bound
    assert second != first
    assert cores() == given, "what is apart stays so"
    assert cores(early.native_id) == [second]
assert cores() == [second] == child()
gone.set()
print("held")
"""


@pytest.mark.parametrize(
    ("busy", "own", "expected"),
    [
        ({0: 1.0, 1: 0.1}, 0.9, 0),
        ({0: 1.0, 1: 0.1}, 0.6, 1),
        ({0: 1.0, 1: 0.5}, 0.6, 0),
        ({0: 0.2, 1: 0.0}, 0.0, 0),
        ({0: 1.0, 1: 0.4, 2: 0.1}, 0.1, 2),
        ({1: 0.0}, 0.1, 1),
        ({}, 0.0, 0),
    ],
    ids=["own use", "taken by others", "not freer", "hardly used", "the freest", "taken offline", "nothing known"],
)
def test_a_core_is_left_for_a_freer_one_when_others_use_it(busy: dict[int, float], own: float, expected: int) -> None:
    assert freer(0, busy, own) == expected


def test_all_threads_are_on_one_core_but_for_those_apart() -> None:
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=False, timeout=60)

    assert (done.stdout.splitlines()[-1:], done.returncode) == (["held"], 0), done.stderr


def test_a_process_with_one_core_is_not_bound() -> None:
    found: list[int | None] = []

    def alone() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of this thread only
        core = Core()
        core.begin()
        found.append(core.bound)

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()

    assert found == [None]


@pytest.mark.parametrize(
    ("start", "share_core"), [(process.serve, True), (process.serve, False), (process.worker, True)],
    ids=["gateway", "gateway told not to", "worker"],
)  # fmt: skip
def test_a_process_does_so_unless_told_otherwise(
    tmp_path: Path, start: Callable[[Mapping[str, str], Path], process.Measured], *, share_core: bool
) -> None:
    settings = load(state_dir=tmp_path, drivers=["sim"], admin_password="of this test only")
    given = process.settings(settings, free_port(), share_core=share_core)
    if start is process.worker:
        process.serve(given, tmp_path / "made").stop()  # which makes the database
    running = start(given, tmp_path / "log")
    try:
        tasks = [int(each.name) for each in Path(f"/proc/{running.popen.pid}/task").iterdir()]
        cores = {frozenset(os.sched_getaffinity(each)) for each in tasks}
    finally:
        running.stop()

    if share_core and len(GIVEN) > 1:
        assert [len(each) for each in cores] == [1]
    else:
        assert cores == {GIVEN}
