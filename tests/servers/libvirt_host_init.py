"""Process 1 of a test host (see ``libvirt_host.py``): mounts, daemons, reaping; standard library only.

libvirt's destroy waits until a dead QEMU was reaped, so orphans must be reaped at once. The host's life is the pipe
on standard input: when its other end goes, process 1 exits and the kernel ends everything in the namespace.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_BINDS = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
    "lock": "/run/lock",
    "hosts": "/etc/hosts",
}


def main(folder: str, name: str) -> None:
    """Set the host up and keep it until standard input ends."""
    for source, target in _BINDS.items():
        if not Path(target).exists():
            Path(target).mkdir(parents=True)
        _run("mount", "--bind", f"{folder}/{source}", target)
    _run("mount", "-t", "proc", "proc", "/proc")
    _run("mount", "-t", "sysfs", "sysfs", "/sys")  # libvirt sets bridges up through /sys/class/net of this namespace
    if Path("/dev/kvm").exists():
        # Guests hang under KVM on some machines that offer it, and libvirt's probing of it costs ten seconds. A node
        # that QEMU's user may not open makes libvirt see a host without KVM.
        mask = Path(folder) / "no-kvm"
        mask.touch(mode=0o000)
        _run("mount", "--bind", str(mask), "/dev/kvm")
    _run("hostname", name)
    _run("ip", "link", "set", "lo", "up")
    # IPv6 may be switched off for new network namespaces; libvirt switches it off on each bridge that has none.
    for each in ("all", "default"):
        switch = Path(f"/proc/sys/net/ipv6/conf/{each}/disable_ipv6")
        if switch.exists():
            switch.write_text("0")
    _run("virtlogd", "-d", "-p", "/run/libvirt/virtlogd.pid")
    _run("libvirtd", "-d", "-p", "/run/libvirt/libvirtd.pid")
    _reap_until_end_of_input()
    os.kill(-1, signal.SIGKILL)  # all of this namespace but process 1
    shutil.rmtree(folder, ignore_errors=True)  # whoever asked for the host may be gone


def _reap_until_end_of_input() -> None:
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
        if 0 in ready and not os.read(0, 4096):
            return


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    main(*sys.argv[1:])
