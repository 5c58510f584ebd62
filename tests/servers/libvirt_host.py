"""A hypervisor host of its own for tests: libvirtd, virtlogd and QEMU in private namespaces of this machine.

Mount, network, PID, UTS and IPC namespaces keep hosts apart from each other and from the machine, so that any number
may run at once; only ``uri`` (a UNIX socket) is reachable from outside. Process 1 inside is ``libvirt_host_init.py``:
it reaps, and ends the host with everything in it when this Python goes away for whatever reason. Needs root,
libvirtd, virtlogd, QEMU and dnsmasq. Starting takes under a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

_INIT = Path(__file__).with_name("libvirt_host_init.py")
_START_SECONDS = 60.0
NEEDED = ("libvirtd", "virtlogd", "qemu-system-x86_64", "dnsmasq", "unshare", "nsenter", "ip", "mount", "virsh")


def missing() -> str | None:
    """Why no host can be started here, None when one can."""
    if os.geteuid() != 0:
        return "starting a libvirt host needs root (namespaces)"
    absent = [each for each in NEEDED if shutil.which(each) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


class LibvirtHost:
    """One running host. Use it as a context manager."""

    def __init__(self, name: str = "host") -> None:
        reason = missing()
        if reason is not None:
            raise RuntimeError(reason)
        # Not pytest's folder: a UNIX socket's path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="sg-host-", dir="/tmp"))
        self.name = f"{name}-{uuid4().hex[:6]}"
        self._prepare()
        command = ("unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child=KILL")
        with (self.folder / "init.log").open("wb") as log:
            self._process = subprocess.Popen(
                (*command, "--propagation", "private", sys.executable, str(_INIT), str(self.folder), self.name),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        try:
            self.pid = self._wait_for_pid()
            self._wait_for_libvirt()
        except BaseException:
            self.stop()
            raise

    @property
    def uri(self) -> str:
        """The libvirt address of this host."""
        return f"qemu+unix:///system?socket={self.folder}/run/libvirt-sock"

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs ``argv`` inside the host."""
        return ["nsenter", "-t", str(self.pid), "-m", "-n", "-u", "-p", "-i", "--", *argv]

    def run(self, argv: Sequence[str], seconds: float = 30.0, *, check: bool = True) -> str:
        """Run a command inside the host and answer with its output. Raises CalledProcessError when it fails."""
        answer = subprocess.run(
            self.command(argv), capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )
        if check and answer.returncode:
            raise subprocess.CalledProcessError(answer.returncode, list(argv), answer.stdout, answer.stderr)
        return answer.stdout

    def pids(self, fragment: str) -> list[int]:
        """The processes of the host (by its own numbers) whose command line has that text."""
        found = self.run(("pgrep", "-f", "--", fragment), check=False)
        return [int(each) for each in found.split()]

    def stop(self) -> None:
        """End the host and all in it and remove its files."""
        if self._process.stdin is not None:
            self._process.stdin.close()  # process 1 ends when this pipe does, and the kernel ends the rest
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> None:
        for each in ("run", "lib", "log/qemu", "cache", "lock"):
            (self.folder / each).mkdir(parents=True)
        for each in ("images", "qemu", "dnsmasq", "swtpm", "network", "boot"):
            (self.folder / "lib" / each).mkdir()
        etc = self.folder / "etc"
        shutil.copytree("/etc/libvirt", etc, ignore=shutil.ignore_patterns("qemu", "storage", "secrets"))
        for each in ("qemu/networks", "storage", "secrets"):
            (etc / each).mkdir(parents=True)
        if Path("/var/cache/libvirt/qemu").is_dir():  # known QEMU capabilities: a faster start
            shutil.copytree("/var/cache/libvirt", self.folder / "cache", dirs_exist_ok=True)
        for each in ("lib/qemu", "cache"):
            shutil.chown(self.folder / each, "libvirt-qemu", "kvm")
        self.folder.chmod(0o755)
        (etc / "libvirtd.conf").write_text(
            f'listen_tls = 0\nlisten_tcp = 0\nhost_uuid = "{uuid4()}"\n'
            'log_outputs = "3:file:/var/log/libvirt/libvirtd.log"\n'
        )
        # Control groups are named machine-wide, and a mount namespace per guest costs time: both are off.
        (etc / "qemu.conf").write_text("cgroup_controllers = []\nnamespaces = []\n")
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")

    def _wait_for_pid(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            if found := children.read_text().split():
                return int(found[0])
            time.sleep(0.01)
        raise RuntimeError(f"the host's namespaces did not start: {self._log()}")

    def _wait_for_libvirt(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            if (self.folder / "run/libvirt-sock").exists():
                answer = subprocess.run(
                    ("virsh", "-q", "-c", self.uri, "list"), capture_output=True, check=False, timeout=_START_SECONDS
                )
                if answer.returncode == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"libvirtd did not start: {self._log()}")

    def _log(self) -> str:
        return (self.folder / "init.log").read_text(errors="replace")[-2000:]
