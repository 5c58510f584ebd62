"""What the demo must find out about the machine it runs on: a free address range, whether guests can be reached."""

from __future__ import annotations

import json
import secrets
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx2

_LOCAL_ENDPOINTS: Final = frozenset({"qemu:///system"})
_TRIES: Final = 200
_DISK_BYTES: Final = 4 << 20
_SECTOR: Final = 512
GUEST_PAGE_S: Final = 5.0


def free_range(taken: Iterable[str]) -> IPv4Network:
    """A /24 of 10.0.0.0/8 that no route of this machine and none of ``taken`` touches. Drawn by lot, so that demos that
    run at once hardly ever draw the same.
    """
    busy = [found for each in taken if isinstance(found := ip_network(each, strict=False), IPv4Network)]
    busy += _routes()
    for _ in range(_TRIES):
        candidate = IPv4Network((f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.0", 24))
        if not any(candidate.overlaps(each) for each in busy):
            return candidate
    raise OSError("no free /24 was found in 10.0.0.0/8")


def _routes() -> list[IPv4Network]:
    """Where this machine already sends packets, but for its default route."""
    ip = shutil.which("ip")
    if ip is None:
        return []  # not Linux: guests are not on this machine then
    answer = subprocess.run(
        (ip, "-json", "-4", "route", "show"), capture_output=True, text=True, timeout=10, check=False
    )
    if answer.returncode:
        return []
    found = (str(each.get("dst", "default")) for each in json.loads(answer.stdout or "[]"))
    return [IPv4Network(each) for each in found if each != "default"]


def is_here(hypervisor: str | None, endpoint: str | None) -> bool:
    """Whether a host with that endpoint is this machine's own KVM, so that its guests can be reached from here."""
    return hypervisor == "KVM" and endpoint in _LOCAL_ENDPOINTS


def page_of(address: str) -> str:
    """What the guest's web server says. Raises OSError when it does not answer."""
    try:
        answer = httpx2.get(f"http://{address}/", timeout=GUEST_PAGE_S, trust_env=False)
    except httpx2.TransportError as error:
        raise OSError(f"http://{address}/ does not answer: {error}") from error
    return f"HTTP {answer.status_code}: {answer.text.strip()[:200]}"


@contextmanager
def small_disk() -> Iterator[Path]:
    """A disk file with a partition table and nothing to boot: enough for a simulated guest."""
    with TemporaryDirectory(prefix="stratograph-demo-") as folder:
        path = Path(folder) / "small.raw"
        entry = struct.pack("<BBBBBBBBII", 0x80, 0, 2, 0, 0x83, 0, 0, 0, 2048, _DISK_BYTES // _SECTOR - 2048)
        with path.open("wb") as file:
            file.write(b"\0" * 446 + entry + b"\0" * 48 + b"\x55\xaa")
            file.truncate(_DISK_BYTES)
        yield path
