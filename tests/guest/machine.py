"""A guest that a test boots in QEMU directly, without libvirt and under plain emulation (TCG).

`Machine` starts QEMU with its serial console in a file, waits for the guest's markers there, and speaks QMP to it.
User-mode networking only: nothing of the host's network is touched, and the guest's port 80 is reached through a
loopback port. All waiting has a deadline; `close` ends QEMU by its pid.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import pycdlib

from tests.servers.daemon import free_port

BOOT_SECONDS = 120.0  # 4 s on an idle machine; test machines are not idle


def seed(path: Path, files: dict[str, str]) -> Path:
    """Write a NoCloud drive (an ISO with the label `cidata`) with those files."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    for number, (name, text) in enumerate(files.items()):
        data = text.encode()
        iso.add_fp(BytesIO(data), len(data), f"/F{number}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()
    return path


class Machine:
    """One QEMU process. Use it in a `with`."""

    def __init__(
        self, folder: Path, disk: Path, options: Sequence[str] = (), *, ram_mib: int = 128, guest_ip: str = ""
    ) -> None:
        self.console = folder / "console.log"
        self.console.write_bytes(b"")
        self.http_port = free_port()
        self._qmp_path = folder / "qmp"
        forward = f"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{self.http_port}-{guest_ip}:80"
        self._process = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,tb-size=32", "-m", str(ram_mib), "-nodefaults",
             "-display", "none", "-no-user-config", "-device", "pcie-root-port,id=spare,chassis=9",
             "-serial", f"file:{self.console}", "-qmp", f"unix:{self._qmp_path},server=on,wait=off",
             "-drive", f"file={disk},format=qcow2,if=virtio",
             "-netdev", forward, "-device", "virtio-net-pci,netdev=net0,mac=52:54:00:00:00:11", *options],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self._qmp: socket.socket | None = None

    def __enter__(self) -> Self:
        """This machine; it boots already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End QEMU."""
        if self._qmp is not None:
            self._qmp.close()
        self._process.kill()
        self._process.wait()

    @property
    def text(self) -> str:
        """The serial console so far."""
        return self.console.read_text(errors="replace").replace("\r", "")

    def wait_for(self, pattern: str, seconds: float = BOOT_SECONDS) -> re.Match[str]:
        """The first match of that regular expression on a whole line of the console, as soon as it is there."""
        deadline = time.monotonic() + seconds
        line = re.compile(rf"^{pattern}$", re.MULTILINE)
        while True:
            # A line counts when its end has been written.
            if found := line.search(self.text.rpartition("\n")[0]):
                return found
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                why = "QEMU ended" if ended else f"{seconds} s passed"
                raise AssertionError(f"{why} without {pattern!r}; the console:\n{self.text[-3000:]}")
            time.sleep(0.05)

    def qmp(self, command: str, **arguments: object) -> Any:
        """Run a QMP command and return its result."""
        if self._qmp is None:
            self._qmp = socket.socket(socket.AF_UNIX)
            self._qmp.settimeout(20)
            self._qmp.connect(str(self._qmp_path))
            self._replies = self._qmp.makefile("r")
            self._replies.readline()  # the greeting
            self.qmp("qmp_capabilities")
        self._qmp.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            reply = json.loads(self._replies.readline())
            if "error" in reply:
                raise AssertionError(f"{command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]

    def run(self, script: str) -> str:
        """What that shell script prints in the guest, and its return code in the last line."""
        return httpx2.post(f"http://127.0.0.1:{self.http_port}/cgi-bin/run", content=script, timeout=30).text

    def wait_for_end(self, seconds: float = BOOT_SECONDS) -> None:
        """Return when the guest has powered itself off."""
        self._process.wait(seconds)
