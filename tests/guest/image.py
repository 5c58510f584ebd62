"""The tiny guest image as the tests see it: `guest_image()` gives its path, building it at most once per machine.

The image is cached by content (see image.sh), locked against other xdist workers, and read-only by agreement: a test
that boots it takes an overlay or `snapshot=on`, or uploads it. In CI and elsewhere alike a machine that cannot build
it fails.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

SCRIPT = Path(__file__).parent / "image.sh"


@cache
def guest_image() -> Path:
    """The path of guest.qcow2; vmlinuz, initrd, cmdline lie beside it. Raises RuntimeError with the script's words."""
    done = subprocess.run([SCRIPT], check=False, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise RuntimeError(f"the guest image cannot be built: {done.stderr[-2000:]}")
    return Path(done.stdout.strip())
