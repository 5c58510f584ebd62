"""KVM counts only where a micro-guest truly runs under it, and the verdict is remembered as long as it holds.

A machine's KVM cannot be made good or bad by a test, so a script stands in QEMU's place, which starts the real QEMU
under TCG whatever accelerator is asked for, and misbehaves under `-accel kvm` the way broken machines do.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.doctor import acceleration
from gateway.doctor.acceleration import BOOT_SECTOR, QEMU, Trial, accelerator, boot, compared, probe, verdict

SOURCE = Path(acceleration.__file__).with_name("micro_guest.S")


def qemu_with_kvm(folder: Path, behaviour: str) -> str:
    """A QEMU that does that shell command before it runs a guest under KVM; each start is counted."""
    script = folder / "qemu"
    script.write_text(
        f"""#!/bin/bash
echo start >> "{folder}/starts"
arguments=("$@")
for index in "${{!arguments[@]}}"; do
  case ${{arguments[index]}} in
    kvm) {behaviour}; arguments[index]=tcg ;;
    host) arguments[index]=max ;;
  esac
done
exec {shutil.which(QEMU)} "${{arguments[@]}}"
"""
    )
    script.chmod(0o755)
    return str(script)


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text().splitlines())


@pytest.fixture
def kvm(tmp_path: Path) -> Path:
    """A file in the place of /dev/kvm, which this user may open."""
    path = tmp_path / "kvm"
    path.touch()
    return path


def test_the_committed_bytes_are_the_assembled_source(tmp_path: Path) -> None:
    subprocess.run(["as", "-o", "guest.o", str(SOURCE)], cwd=tmp_path, check=True, timeout=60)
    link = ["ld", "-Ttext", "0x7c00", "--oformat", "binary", "-o", "guest.bin", "guest.o"]
    subprocess.run(link, cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "guest.bin").read_bytes() == BOOT_SECTOR


def test_the_micro_guest_runs_emulated() -> None:
    trial = boot("TCG", seconds=60)
    assert trial.reason == ""
    assert trial.worked


def test_kvm_counts_when_the_guest_ran(tmp_path: Path, kvm: Path) -> None:
    assert probe(qemu_with_kvm(tmp_path, ":"), kvm, 60).accelerator == "KVM"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("exec sleep 100", "the micro-guest had not ended after 8 s"),
        ("echo failed to set MSR; exit 134", "QEMU ended with 134: failed to set MSR"),
        ("exit 43", "QEMU ended with 43"),
    ],
    ids=["it hangs", "it dies", "it ends without a word"],
)
def test_tcg_counts_when_kvm_does_not_truly_work(tmp_path: Path, kvm: Path, behaviour: str, reason: str) -> None:
    # TCG's own boot must fit the deadline on a busy machine, so only the hanging one gets a short deadline.
    found = probe(qemu_with_kvm(tmp_path, behaviour), kvm, 8 if "100" in behaviour else 60)
    assert found.accelerator == "TCG"
    assert reason in found.reason


def test_kvm_that_is_slower_than_emulation_does_not_count() -> None:
    # What a machine was seen to do on which Linux guests seem to hang.
    assert compared(Trial(True, 0.5), Trial(True, 14.2)).accelerator == "TCG"
    assert compared(Trial(True, 0.5), Trial(True, 2.4)).accelerator == "KVM"


def test_without_a_device_or_without_qemu(tmp_path: Path) -> None:
    assert probe(kvm=tmp_path / "absent", seconds=60).reason == "there is no /dev/kvm"
    assert probe(str(tmp_path / "no-qemu")).accelerator is None


def test_a_verdict_is_remembered_while_it_holds(tmp_path: Path, kvm: Path) -> None:
    state = tmp_path / "state"
    qemu = qemu_with_kvm(tmp_path, ":")
    first = verdict(state, qemu, kvm)
    assert starts(tmp_path) == 2
    assert verdict(state, qemu, kvm) == first
    assert starts(tmp_path) == 2

    kvm.unlink()
    assert verdict(state, qemu, kvm).reason == "there is no /dev/kvm"
    qemu_with_kvm(tmp_path, "exit 1")
    kvm.touch()
    assert verdict(state, qemu, kvm).accelerator == "TCG"

    (state / "accelerator.json").write_text(json.dumps({"circumstances": {}}))
    before = starts(tmp_path)
    assert verdict(state, qemu, kvm).accelerator == "TCG"
    assert starts(tmp_path) == before + 2
    assert [path.name for path in state.iterdir()] == ["accelerator.json"]


def test_this_machine_has_an_accelerator(tmp_path: Path) -> None:
    assert accelerator(tmp_path) in {"KVM", "TCG"}
