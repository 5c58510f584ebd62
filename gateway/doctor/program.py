"""Runs the programs that the doctor asks: argument lists only, no standard input, always under a deadline.

Nothing here raises because a program is absent, fails or hangs: that is what a doctor is there to find out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

# libvirtd, dnsmasq, nft: not on every user's PATH.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Ran:
    """How a program ended: its exit code, or None when it is absent or its deadline passed."""

    code: int | None
    output: str
    hung: bool = False

    @property
    def first_line(self) -> str:
        """The first line it printed that says anything."""
        return next((line.strip() for line in self.output.splitlines() if line.strip()), "")

    @property
    def version(self) -> str:
        """The first thing in its output that looks like a version."""
        found = re.search(r"\d+\.\d+(\.\d+)*", self.output)
        return found.group() if found else self.first_line


def located(name: str) -> str | None:
    """The path of a program, also where only root looks for it."""
    return shutil.which(name, path=SEARCH_PATH)


def run(command: Sequence[str], seconds: float = 10.0) -> Ran:
    """Run that command to its end or to its deadline, whichever comes first."""
    path = located(command[0])
    if path is None:
        return Ran(None, "")
    environment = {**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [path, *command[1:]],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            env=environment,
        )
    except subprocess.TimeoutExpired as expired:
        return Ran(None, (expired.stdout or b"").decode(errors="replace"), hung=True)
    except OSError as error:
        return Ran(None, str(error))
    return Ran(done.returncode, done.stdout.decode(errors="replace"))
