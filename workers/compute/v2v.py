"""virt-v2v: putting virtio drivers into a guest that comes from elsewhere. An optional program of the worker.

It is asked for by name and never used otherwise; where it is missing the job refuses. It reads a description of the
machine in libvirt's XML with the disks as files beside it, and writes one qcow2 for each. What it does takes minutes
(it boots an appliance), and the disks' content is changed by design: both checksums are recorded, and differ.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID
from xml.sax.saxutils import quoteattr

from drivers.api import DiskFile, DiskFormat, Refused
from gateway.compute.machine_model import Firmware
from gateway.compute.migration import VIRT_V2V
from gateway.compute.server import Server
from gateway.image import inspection
from gateway.image.formats import ImageFormat, ImageRefused, InspectionLimits
from gateway.image.upload import file_sha256
from gateway.kernel import errors
from gateway.kernel.core import CORE
from workers.compute import carry
from workers.compute.carry import Way
from workers.compute.disks import Teller

PROGRAM = "virt-v2v"
NEEDED = (PROGRAM, "nbdkit", "nbdcopy", "qemu-nbd")
"""It reads disks through nbdkit or qemu-nbd, and writes them by nbdcopy. Debian's package asks for none of the three,
and without nbdcopy a conversion fails at its very end.
"""
NAME = "guest"
LOOK_S = 0.5
WORDS = 300
HANDED_ON = ("PATH", "HOME", "LIBGUESTFS_", "SUPERMIN_", "VIRTIO_WIN", "VIRT_TOOLS_DATA_DIR")
"""What of the worker's environment concerns it. The rest, with the database's password in it, stays here."""
_STAGE = re.compile(rb"^\[ *[0-9.]+\] ([ !-9;-~]{1,120})(?::.*)?\n", re.MULTILINE)
_FAULT = re.compile(r"virt-v2v: error: (.+?)(?:\n\s*If reporting bugs,.*)?$", re.DOTALL)


def found() -> str | None:
    """The program's path, None when this worker lacks it or what it needs."""
    return None if absent() else shutil.which(PROGRAM)


def absent() -> list[str]:
    """The programs that this worker lacks for it."""
    return [name for name in NEEDED if shutil.which(name) is None]


def require() -> str:
    """The program's path. Raises Unsupported when this worker has none."""
    there = found()
    if there is None:
        raise errors.Unsupported(
            f"This worker has no {', '.join(absent())}: install it there, or move the server without a conversion.",
            capability=VIRT_V2V, hypervisor=None,
        )  # fmt: skip
    return there


def carry_all(way: Way, server: Server, disks: Sequence[tuple[UUID, str]]) -> list[dict[str, Any]]:
    """Bring all disks over, converted together. Raises the driver's errors, Refused when the guest is beyond it."""
    program = require()
    left, before = [], []
    for number, (uid, _device) in enumerate(disks):
        file, digest = carry.fetch(way, uid, f"left-{number}")
        left.append(file)
        before.append(digest)
    description = way.folder / f"{NAME}.xml"
    description.write_text(describe(server, left))
    made = way.folder / "made"
    made.mkdir(mode=0o700)
    _run(
        [program, "-i", "libvirtxml", str(description), "-o", "local", "-os", str(made), "-of", "qcow2", "-on", NAME],
        way,
    )
    told = []
    for number, (uid, device) in enumerate(disks):
        file = _made(made / f"{NAME}-sd{chr(ord('a') + number)}")
        after = carry.bring(way, uid, file)
        told.append(
            {
                "uid": str(uid),
                "device": device,
                "size_bytes": file.virtual_size_bytes,
                "copied_bytes": left[number].size_bytes,
                "sha256_before": before[number],
                "sha256_after": after,
            }
        )
    return told


def describe(server: Server, files: Sequence[DiskFile]) -> str:
    """The machine as libvirt's XML, as far as virt-v2v reads it."""
    loader = "<os firmware='efi'><type arch='x86_64'>hvm</type></os>"
    if server.firmware is Firmware.BIOS:
        loader = "<os><type arch='x86_64'>hvm</type></os>"
    disks = "".join(
        f"<disk type='file' device='disk'><driver name='qemu' type={quoteattr(file.format.value.lower())}/>"
        f"<source file={quoteattr(str(file.path))}/><target dev='sd{chr(ord('a') + number)}' bus='scsi'/></disk>"
        for number, file in enumerate(files)
    )
    return (
        f"<domain type='vmware'><name>{NAME}</name><memory unit='MiB'>{server.ram_mib}</memory>"
        f"<vcpu>{server.vcpus}</vcpu>{loader}<features><acpi/></features><devices>{disks}</devices></domain>"
    )


def _run(command: Sequence[str], way: Way) -> None:
    told = Teller(way.run, "virt-v2v is at work")
    words = way.folder / "words"
    most_s = way.run.settings.conversion_timeout_s
    with words.open("wb") as out:
        with CORE.apart():
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment(way.folder),
                start_new_session=True,
            )  # fmt: skip
        try:
            ends = time.monotonic() + most_s
            while process.poll() is None:
                if time.monotonic() > ends:
                    raise Refused(f"virt-v2v did not end within {most_s} s (CONVERSION_TIMEOUT_S)")
                told.what = f"virt-v2v is at work{stage(words.read_bytes())}"
                told(0, None)
                time.sleep(LOOK_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the appliance and the readers that it started
            process.wait()
    if process.returncode:
        said = words.read_text(errors="replace").replace(f"{way.folder}/", "")
        raise Refused(f"virt-v2v could not convert the guest: {fault(said)}")


def environment(folder: Path) -> dict[str, str]:
    """What virt-v2v finds in its environment; whatever it writes beside the result, it writes into ``folder``."""
    mine = {name: value for name, value in os.environ.items() if name.startswith(HANDED_ON)}
    # Straight to QEMU: the appliance is no machine of a libvirt that this worker may or may not reach.
    return {"LIBGUESTFS_BACKEND": "direct", **mine, "LC_ALL": "C.UTF-8", "TMPDIR": str(folder)}


def stage(words: bytes) -> str:
    """The newest of the stages that it told, without its paths; nothing before the first."""
    told = _STAGE.findall(words)
    return f": {told[-1].decode()}" if told else ""


def fault(words: str) -> str:
    """What it complained of, without how to report bugs of virt-v2v; the end of its words when it did not say."""
    found = _FAULT.search(words.strip())
    return found.group(1).strip()[:WORDS] if found else words.strip()[-WORDS:]


def _made(path: Path) -> DiskFile:
    """What virt-v2v wrote, looked at like anything that came from outside."""
    try:
        found = inspection.inspect(path, declared=ImageFormat.QCOW2, limits=InspectionLimits())
        with path.open("rb") as file:
            digest = file_sha256(file.fileno())
    except (ImageRefused, OSError) as error:
        raise Refused(f"virt-v2v did not write a disk that can be used: {error}") from error
    return DiskFile(path, DiskFormat.QCOW2, found.size_bytes, found.virtual_size_bytes, digest)
