"""Finds out whether KVM truly works here, by booting a guest of 512 bytes under it.

Some machines offer /dev/kvm on which QEMU dies, a guest hangs, or it crawls (an emulated processor under the
hypervisor of a cloud, say). So the micro-guest (micro_guest.S) boots under TCG first and under KVM then; KVM counts
when the guest ended by itself with its marker written, within the deadline, and not much slower than emulated. The
verdict is kept in the state directory and holds for the same kernel, boot, QEMU and access to /dev/kvm, so that later
starts cost one short read.

It does not judge other architectures' guests, nested virtualisation, or a particular CPU model.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from gateway.doctor.program import located, run

Accelerator = Literal["KVM", "TCG"]

QEMU = "qemu-system-x86_64"
KVM = Path("/dev/kvm")
NO_KVM = "there is no /dev/kvm"
FORBIDDEN_KVM = "this user may not open /dev/kvm"
DEADLINE_S = 10.0
MARKER = "stratograph micro-guest"
EXIT_CODE = 43
# micro_guest.S assembled; the rest of the sector is zero but for its signature.
CODE = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007c6631edfc66bf001000000f22df6631c066b90010000066f3abc70600100320c706002003"
    "30bf003066b883000000b10866890566050000200083c708e2f2c7060042fe7c66c70602420800008eb011e620b020e6"
    "21b004e621b001e621b0fee621b0ffe6a1b034e643b09ce640b02ee64066b8200000000f22e066b9800000c00f32660d"
    "000100000f300f20c0660d010000800f22c0660f0116407deaad7c0800b8100000008ed88ec08ed00f011c25467d0000"
    "bb08000000bf00004000b9000010004889d8f348abffcb75ecfbf483fd0872fafabe087d0000baf8030000ac84c07403"
    "eeebf8ba01050000b015eef4ebfdffc550b020e6205848cf73747261746f6772617068206d6963726f2d67756573740a"
    "000f1f8000000000000000000000000000000000009a200000000000009200001700287d0000ff0f0040"
)
BOOT_SECTOR = CODE.ljust(510, b"\0") + b"\x55\xaa"


@dataclass(frozen=True)
class Verdict:
    """Which accelerator works (None: no QEMU, or not even TCG) and why not KVM."""

    accelerator: Accelerator | None
    reason: str
    tcg_seconds: float = 0.0
    kvm_seconds: float = 0.0


@dataclass(frozen=True)
class Trial:
    """One boot of the micro-guest."""

    worked: bool
    seconds: float
    reason: str = ""


def boot(accelerator: Accelerator, qemu: str = QEMU, seconds: float = DEADLINE_S) -> Trial:
    """Boot the micro-guest once under that accelerator."""
    # The guest of a cloud gets the host's processor under KVM, so that is what must work.
    processor = {"KVM": "host", "TCG": "qemu64"}[accelerator]
    with tempfile.TemporaryDirectory(prefix="stratograph-micro-guest-") as folder:
        disk = Path(folder) / "sector.img"
        disk.write_bytes(BOOT_SECTOR)
        began = time.monotonic()
        ran = run(
            [qemu, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-m", "16",
             "-accel", accelerator.lower(), "-cpu", processor, "-serial", "stdio",
             "-drive", f"file={disk},format=raw,if=ide,snapshot=on",
             "-device", "isa-debug-exit,iobase=0x501,iosize=1"],
            seconds,
        )  # fmt: skip
        took = time.monotonic() - began
    if ran.hung:
        return Trial(False, took, f"the micro-guest had not ended after {seconds:g} s")
    if ran.code == EXIT_CODE and MARKER in ran.output:
        return Trial(True, took)
    return Trial(False, took, f"QEMU ended with {ran.code}: {ran.first_line[:200]}")


def probe(qemu: str = QEMU, kvm: Path = KVM, seconds: float = DEADLINE_S) -> Verdict:
    """Boot the micro-guest under TCG and KVM now, whatever is remembered."""
    if located(qemu) is None:
        return Verdict(None, f"{qemu} is not installed")
    emulated = boot("TCG", qemu, seconds)
    if not emulated.worked:
        return Verdict(None, f"not even an emulated guest works: {emulated.reason}")
    if not kvm.exists():
        return Verdict("TCG", NO_KVM, emulated.seconds)
    if not os.access(kvm, os.R_OK | os.W_OK):
        return Verdict("TCG", FORBIDDEN_KVM, emulated.seconds)
    return compared(emulated, boot("KVM", qemu, seconds))


def compared(emulated: Trial, accelerated: Trial) -> Verdict:
    """KVM, if the guest worked under it and did not crawl: both boots ran just now, under the same load."""
    times = emulated.seconds, accelerated.seconds
    if not accelerated.worked:
        return Verdict("TCG", f"/dev/kvm is there, but {accelerated.reason}", *times)
    if accelerated.seconds > 3 * emulated.seconds + 1:
        crawl = f"{accelerated.seconds:.1f} s against {emulated.seconds:.1f} s emulated"
        return Verdict("TCG", f"/dev/kvm is there, but a guest crawls under it: {crawl}", *times)
    return Verdict("KVM", "a micro-guest ran under it", *times)


def circumstances(qemu: str = QEMU, kvm: Path = KVM) -> Mapping[str, str]:
    """All that a verdict depends on: when any of it changes, the micro-guest boots again."""
    path = located(qemu)
    stat = Path(path).stat() if path else None
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    return {
        "kernel": platform.release(),
        "boot": boot_id.read_text().strip() if boot_id.exists() else "",
        # A new QEMU version is a new file; asking the program for its version would cost 50 ms at each start.
        "qemu": f"{path} {stat.st_size} {stat.st_mtime_ns}" if stat else "",
        "kvm": f"{kvm.exists()} {os.access(kvm, os.R_OK | os.W_OK)}",
        "micro-guest": hashlib.sha256(CODE).hexdigest(),
    }


def verdict(state_dir: Path, qemu: str = QEMU, kvm: Path = KVM) -> Verdict:
    """The remembered verdict if it still holds, else a new one, which is then remembered."""
    path = state_dir / "accelerator.json"
    now = dict(circumstances(qemu, kvm))
    try:
        kept = json.loads(path.read_text())
        if kept["circumstances"] == now:
            return Verdict(**kept["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing remembered, or not by this version
    found = probe(qemu, kvm)
    state_dir.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps({"circumstances": now, "verdict": asdict(found)}, indent=1))
    fresh.replace(path)
    return found


def accelerator(state_dir: Path) -> Accelerator | None:
    """KVM where it truly works, else TCG, or None without a working QEMU. Costs at most some 12 s once per boot."""
    return verdict(state_dir).accelerator
