"""Holds one real server process for the tests, and never outlives them.

``python -m tests.servers.guard --watch PID [--user NAME] [--signal N] --status FILE --folder DIR -- COMMAND ...``
starts the command as its child, writes the child's pid to the status file and waits. It is a subreaper: daemons that
the server forks (RabbitMQ's epmd) become its children too. When the server ends, when the guard gets SIGTERM, or when
the watched process (the test run) is gone, everything below the guard is ended: first a signal to the server, after a
deadline SIGKILL to whatever is left. Only when the watched process is gone does it delete the folder, since nobody
else will.

It knows nothing of any server's protocol, and it never touches a process that is not its descendant.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 10.0


def parents() -> dict[int, int]:
    """The parent of each process of this machine, by pid."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The command's name stands in parentheses and may hold spaces; state and parent follow it.
                found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def descendants(pid: int) -> list[int]:
    """Every process below that one, parents before children."""
    above = parents()
    found = [pid]
    for each in found:
        found.extend(child for child, parent in above.items() if parent == each)
    return found[1:]


def reap() -> None:
    """Collect every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def alive(pid: int) -> bool:
    """Whether that child still runs (reaps it otherwise)."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def end_all(server_pid: int, stop_signal: int) -> None:
    """Ask the server to end, then end everything below this process, and return when nothing is left."""
    deadline = time.monotonic() + GRACE_S
    for each in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGCONT)  # a paused process would not see the next signal
    if alive(server_pid):
        os.kill(server_pid, stop_signal)
        while alive(server_pid) and time.monotonic() < deadline:
            time.sleep(0.02)
    while left := descendants(os.getpid()):
        for each in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        reap()
        time.sleep(0.01)


def main() -> None:
    """Start, watch, end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--watch", type=int, required=True)
    parser.add_argument("--user")
    parser.add_argument("--signal", type=int, default=signal.SIGTERM)
    parser.add_argument("--status", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    watched = os.pidfd_open(options.watch)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the test run, and with it this process
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("this kernel offers no subreaper")

    server = subprocess.Popen(
        options.command,
        cwd=options.folder,
        stdin=subprocess.DEVNULL,
        user=options.user,
        group=options.user,
        extra_groups=[] if options.user else None,
    )
    options.status.write_text(str(server.pid))

    orphaned = False
    while alive(server.pid):
        ready, _, _ = select.select([watched, woken], [], [])
        if watched in ready:
            orphaned = True
            break
        if signal.SIGTERM in os.read(woken, 512):
            break
        reap_others(server.pid)
    end_all(server.pid, options.signal)
    if orphaned:
        shutil.rmtree(options.folder, ignore_errors=True)


def reap_others(server_pid: int) -> None:
    """Collect adopted children that have ended, and leave the server's own end for `alive` to see."""
    above = parents()
    for each in [pid for pid, parent in above.items() if parent == os.getpid() and pid != server_pid]:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(each, os.WNOHANG)


if __name__ == "__main__":
    main()
