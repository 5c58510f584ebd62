"""A peer to measure beside: PostGraphile 5 over the very same PostgreSQL tables, from npm, on request (``--peers``).

It is installed once into the user's cache by the committed lock file; nothing of it is committed. It does less than the
gateway: no authentication, no roles, no limits, and its ids are the tables' own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.bench import process
from tests.bench.process import Measured
from tests.servers.daemon import PackageMissingError, free_port

HERE = Path(__file__).parent
_FIELDS = """uid name status createdAt flavorByFlavorId { name vcpus ramMib } imageByImageId { uid name }
  portsByServerId { nodes { mac portAddressesByPortId { nodes { address } } networkByNetworkId { uid name } } }
  volumesByServerId { nodes { uid name sizeGib device } }"""
_LIST = "query($tenant: BigInt!) {{ allServers(first: {first}, condition: {{tenantId: $tenant}}, orderBy: UID_ASC)"
PAGE = f"{_LIST.format(first=100)} {{ nodes {{ {_FIELDS} }} }} }}"
ONE = f"query($uid: UUID!) {{ serverByUid(uid: $uid) {{ {_FIELDS} }} }}"
MANY = f"{_LIST.format(first=1000)} {{ nodes {{ uid name status }} }} }}"


def installed() -> Path:
    """The folder with the peer, installed now if it was not before. Raises PackageMissingError without npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise PackageMissingError("npm is not installed: apt-get install npm")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "stratograph" / f"bench-peer-{hashlib.sha256(lock).hexdigest()[:12]}"
    stamp = folder / "node_modules" / ".installed"
    if not stamp.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(HERE / name, folder / name)
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, timeout=300, capture_output=True)
        stamp.touch()
    shutil.copyfile(HERE / "server.mjs", folder / "server.mjs")
    return folder


def serve(database_url: str, log: Path) -> tuple[Measured, str]:
    """PostGraphile on a database, and its address."""
    folder = installed()
    brought = sorted(folder.glob("node_modules/node-linux-*/bin/node"))  # it needs a newer one than systems have
    node = str(brought[0]) if brought else "node"
    port = free_port()
    with log.open("ab") as out:
        popen = subprocess.Popen(
            [node, "server.mjs", database_url, str(port)], cwd=folder, stdin=subprocess.DEVNULL, stdout=out,
            stderr=out, env={**os.environ, "NODE_ENV": "production", "GRAPHILE_ENV": "production"},
        )  # fmt: skip
    found = Measured(popen, log)
    process.await_line(found, "PostGraphile listens")
    return found, f"127.0.0.1:{port}"
