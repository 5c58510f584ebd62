"""How virt-v2v is run, with programs in its place that misbehave: what it is told of the worker, and what people are
told of it. That the real one converts a guest is shown by ``make convert``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.kernel import errors
from tests.migration.scene import MAC, Moving
from tests.world import World
from workers.compute import v2v

COMPLAINS = """#!/bin/sh
env | sed 's/=.*//' >"$TMPDIR/../../told"
cat <<END
[   0.0] Setting up the source: -i libvirtxml guest.xml
virt-v2v: warning: it was never like this
virt-v2v: error: inspection could not detect the source guest (or physical
machine).

Look into $TMPDIR/manual.

If reporting bugs, run virt-v2v with debugging enabled and include the
complete output:

  virt-v2v -v -x [...]
END
exit 1
"""
HANGS = """#!/bin/sh
sleep 600 &
echo $! >"$TMPDIR/../../left"
wait
"""
REASON = (
    "virt-v2v could not convert the guest: inspection could not detect the source guest (or physical\nmachine).\n\n"
)


@pytest.fixture
def moving(world: World) -> Moving:
    return Moving.make(world)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test puts its virt-v2v."""
    _programs(tmp_path, *v2v.NEEDED)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "virt-v2v"


def _programs(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


def moved(moving: Moving, program: Path, text: str) -> str:
    """What a move says that failed; that all is as before it."""
    program.write_text(text)
    program.chmod(0o755)
    moving.world.reconcile("hosts")
    server = moving.adopted(networks=[{"macAddress": MAC, "networkId": moving.scene.network}])
    before, used = moving.centre.snapshot_of_world(), moving.used()
    made = moving.scene.alice.do(
        "serverMigrate", "job { id }", serverId=server, toHypervisor="SIM", conversion="VIRT_V2V"
    )
    moving.world.work()
    job = moving.world.job(made["job"]["id"])
    assert job.status.value == "FAILED"
    assert (moving.centre.snapshot_of_world(), moving.used()) == (before, used)
    assert not list((moving.world.settings.state_dir / "migrations").glob("*"))
    return str((job.error or {})["message"])


def test_its_complaint_is_told_and_the_worker_s_secrets_are_not(
    moving: Moving, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRATOGRAPH_DATABASE_URL", "postgresql://cloud:secret@db/cloud")
    monkeypatch.setenv("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
    message = moved(moving, place, COMPLAINS)
    assert REASON + "Look into manual." in message
    assert "reporting bugs" not in message
    told = set((moving.world.settings.state_dir / "told").read_text().split())
    assert {"LIBGUESTFS_BACKEND", "LIBGUESTFS_BACKEND_SETTINGS", "PATH", "TMPDIR"} <= told
    assert not {name for name in told if name.startswith("STRATOGRAPH_")}


def test_one_that_takes_too_long_is_ended_with_all_it_started(moving: Moving, place: Path) -> None:
    moving.world.runner.settings = moving.world.settings.model_copy(update={"conversion_timeout_s": 5})
    assert "virt-v2v did not end within 5 s (CONVERSION_TIMEOUT_S)" in moved(moving, place, HANGS)
    child = (moving.world.settings.state_dir / "left").read_text().strip()
    status = Path("/proc") / child / "status"
    assert not status.exists() or "State:\tZ" in status.read_text()  # a zombie waits for whoever reaps orphans here


@pytest.mark.parametrize("missing", ["virt-v2v", "nbdkit", "nbdcopy", "qemu-nbd"])
def test_a_worker_without_one_of_the_programs_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    _programs(tmp_path, *(name for name in v2v.NEEDED if name != missing))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert v2v.found() is None
    with pytest.raises(errors.Unsupported, match=f"This worker has no {missing}: install it there"):
        v2v.require()
    _programs(tmp_path, missing)
    assert v2v.require() == str(tmp_path / "virt-v2v")


def test_the_stage_that_it_is_at_is_told() -> None:
    assert v2v.stage(b"") == ""
    words = b"[   0.0] Setting up the source: -i libvirtxml guest.xml\n[  26.9] Inspecting the source\n"
    assert v2v.stage(words[:57]) == ": Setting up the source"
    assert v2v.stage(words) == ": Inspecting the source"
    assert v2v.stage(words + b"virt-v2v: warning: it could\n[ 131.5] Conv") == ": Inspecting the source"
    assert v2v.stage(words + b"[  99.0] \x1b[31mred\n") == ": Inspecting the source"


def test_a_program_that_does_not_say_what_is_wrong_is_heard_to_its_last_words() -> None:
    assert v2v.fault("Killed\n") == "Killed"
    assert v2v.fault("x" * 1000 + "end") == ("x" * 297) + "end"
    assert v2v.fault("virt-v2v: error: no\n") == "no"
