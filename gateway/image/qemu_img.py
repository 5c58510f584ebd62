"""qemu-img in a cage: one way to run it, with hard bounds on memory, processor time, file size, descriptors and time.

Invariant: no run outlives its deadline, alone or through a child; every path handed over is absolute, so that none can
be read as ``protocol:address``; nothing is inherited but a bare environment. The bounds are set by util-linux's
``prlimit`` before qemu-img starts, which is safe in a threaded process (``preexec_fn`` is not) and leaves no moment
without them. This module knows no image rules: what qemu-img answers is judged by ``inspection`` and ``conversion``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from gateway.kernel.core import CORE

MAX_OUTPUT_BYTES: Final = 1 << 20
MAX_ERROR_BYTES: Final = 8 << 10
READ_BYTES: Final = 64 << 10


class ToolMissing(Exception):  # noqa: N818 - reads as a statement where it is caught
    """qemu-img or prlimit is not installed. ``tool`` names it."""

    def __init__(self, tool: str) -> None:
        super().__init__(f"{tool} is not installed")
        self.tool = tool


class RunTimedOut(Exception):  # noqa: N818 - reads as a statement where it is caught
    """The process was killed because its time, by the clock or on the processor, was used up."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one run may use. ``file_bytes`` bounds each file it writes; 0 forbids writing."""

    timeout_s: float
    memory_bytes: int
    file_bytes: int = 0
    open_files: int = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: ``exit_status`` is negative for a signal; both texts are cut to a bounded length."""

    exit_status: int
    output: str
    error: str


def run(arguments: Sequence[str], bounds: Bounds, heard: Callable[[bytes], None] | None = None) -> Outcome:
    """Run ``qemu-img`` with ``arguments`` and answer how it ended.

    ``heard`` gets each piece of standard output as it comes; if it raises, the process is killed and the error goes on.

    Raises:
        ToolMissing: qemu-img or prlimit is not on PATH.
        RunTimedOut: the deadline passed, or the processor time was used up.
    """
    deadline = time.monotonic() + bounds.timeout_s
    with _caged(arguments, bounds) as process:
        output, error = _listen(process, deadline, heard)
        try:
            status = process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired as late:
            raise RunTimedOut(f"qemu-img took longer than {bounds.timeout_s:g} s") from late
    if status in {-signal.SIGXCPU, 128 + signal.SIGXCPU}:
        raise RunTimedOut("qemu-img used up its processor time")
    return Outcome(status, output, error)


def absolute(path: Path) -> str:
    """The path as qemu-img has to get it: absolute, without links, so that no part of it is taken for a protocol."""
    return str(path.parent.resolve(strict=True) / path.name)


def _command(arguments: Sequence[str], bounds: Bounds) -> list[str]:
    prlimit, qemu_img = _tool("prlimit"), _tool("qemu-img")
    processor_s = max(
        1, round(bounds.timeout_s * 2)
    )  # two busy threads until the deadline; the clock is the real bound
    return [
        prlimit,
        f"--as={bounds.memory_bytes}",
        f"--cpu={processor_s}",
        f"--fsize={bounds.file_bytes}",
        f"--nofile={bounds.open_files}",
        "--core=0",
        "--",
        qemu_img,
        *arguments,
    ]


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ToolMissing(name)
    return found


@contextlib.contextmanager
def _caged(arguments: Sequence[str], bounds: Bounds) -> Iterator[subprocess.Popen[bytes]]:
    """The process in its own session; on leaving, whatever is left of its group is dead and reaped."""
    with CORE.apart():
        process = subprocess.Popen(
            _command(arguments, bounds),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # One malloc arena: each further one reserves 64 MiB of the address space that is bounded here.
            env={"PATH": os.defpath, "LC_ALL": "C", "MALLOC_ARENA_MAX": "1"},
            cwd="/",
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:  # not yet reaped, so its id, which is its group's id, cannot have been reused
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _listen(
    process: subprocess.Popen[bytes], deadline: float, heard: Callable[[bytes], None] | None
) -> tuple[str, str]:
    """Read both pipes until they close. Output beyond the bound is read and dropped, so the process never blocks."""
    kept = {"output": bytearray(), "error": bytearray()}
    bound = {"output": MAX_OUTPUT_BYTES, "error": MAX_ERROR_BYTES}
    with selectors.DefaultSelector() as selector:
        for name, stream in (("output", process.stdout), ("error", process.stderr)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, name)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready or time.monotonic() >= deadline:
                raise RunTimedOut("qemu-img did not end before its deadline")
            for key, _events in ready:
                piece = _read(key.fileobj)  # type: ignore[arg-type]  # typeshed knows only "file-like or descriptor"
                if not piece:
                    selector.unregister(key.fileobj)
                    continue
                room = bound[key.data] - len(kept[key.data])
                kept[key.data] += piece[: max(0, room)]
                if heard is not None and key.data == "output":
                    heard(piece)
    return kept["output"].decode(errors="replace"), kept["error"].decode(errors="replace")


def _read(stream: IO[bytes]) -> bytes:
    return os.read(stream.fileno(), READ_BYTES)
