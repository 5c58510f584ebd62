"""Run a Python script on a file system of a few MiB, in a mount namespace of its own that ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MOUNT = 'mount -t tmpfs -o size="$1",mode=700 tmpfs "$2" && shift 2 && exec "$@"'


def run_on_small_disk(script: str, folder: Path, *, size: str) -> str:
    """What ``script`` prints; ``sys.argv[1]`` is a directory in which only ``size`` bytes fit.

    It takes the right to mount: root's, or an unprivileged user namespace's. Without either the test fails: a full
    disk is a case this product claims to handle.
    """
    small = folder / "small"
    small.mkdir()
    command = [*on_small_disk(small, size), sys.executable, "-c", script, str(small)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_small_disk(folder: Path, size: str) -> tuple[str, ...]:
    """What to put before a command that is to see, alone, a file system of ``size`` (`40m`) at ``folder``."""
    return ("unshare", "--mount", "--map-root-user", "sh", "-c", MOUNT, "sh", size, str(folder))
