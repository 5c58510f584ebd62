"""npm graphql-ws and graphql-sse against the real gateway: cut a thousand times, resumed each time, nothing is missed
and nothing comes twice; and connections, ten thousand of them, leave nothing behind.

STRATOGRAPH_TEST_CONNECTS says how many connections the second makes: 250 by default.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gateway.client import Client
from gateway.jobs.event import Cursor
from tests.clients.setting_up import npm_client
from tests.end_to_end.processes import Gateway, cloud, wait_for

pytestmark = pytest.mark.timeout(600)
TENANTS, CHANGES = 10, 50
CUTS = {"websocket": 1_000, "sse": 1_000}
CONNECTS = int(os.environ.get("STRATOGRAPH_TEST_CONNECTS", "250"))
AT_ONCE = 20
RAM_GROWTH_MAX_MIB = 32
THREADS_OF_A_POOL = 8
"""Pools grow to their bound when they are first needed; what leaked would grow with the connections."""
EVENT = 'subscription($after: String) { events(after: $after, filter: { nouns: ["tenant"] }) { cursor } }'


@pytest.fixture(scope="module")
def folder() -> Path:
    """The npm clients, installed."""
    return npm_client("streams")


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_resumes_without_a_gap(transport: str, folder: Path, tmp_path: Path) -> None:
    with cloud(tmp_path) as made:
        gateway = made.gateways[0]
        with gateway.client() as client:
            tenants = [_tenant(client) for _ in range(TENANTS)]
            started = Cursor(0, 0).encode()
            wanted = TENANTS * (CHANGES + 1) + 1  # the first start made a tenant, too
            given = {"token": client.token, "after": started, "filter": {"nouns": ["tenant"]}}
            seed = uuid4().int % 2**31
            changing = threading.Thread(target=_change, args=(gateway, tenants))
            changing.start()
            arguments = ["resume.js", transport, f"{gateway.url}/graphql", str(seed), str(CUTS[transport]), str(wanted)]
            found = _node(folder, arguments, given)
            changing.join()
    assert found["connects"] >= CUTS[transport]
    versions = defaultdict(list)
    for each in found["seen"]:
        versions[each["objectId"]].append((each["kind"], each["version"]))
    whole = [("tenant.created", 1), *(("tenant.changed", number) for number in range(2, CHANGES + 2))]
    for tenant in tenants:
        assert versions[tenant] == whole, f"seed {seed}"
    cursors = [each["cursor"] for each in found["seen"]]
    assert len(cursors) == len(set(cursors))


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_connections_leave_nothing_behind(
    transport: str, folder: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with cloud(tmp_path) as made, made.gateways[0].client() as client:
        gateway = made.gateways[0]
        _tenant(client)
        given = {"token": client.token, "after": Cursor(0, 0).encode()}
        arguments = ["connect.js", transport, f"{gateway.url}/graphql"]
        assert _node(folder, [*arguments, "100", str(AT_ONCE)], given) == {"answered": 100}  # what is made once is made
        before = _settled(gateway)
        assert _node(folder, [*arguments, str(CONNECTS), str(AT_ONCE)], given) == {"answered": CONNECTS}
        wait_for("the end of all sockets", lambda: _held(gateway).sockets <= before.sockets, 30)
        after = _held(gateway)
        record_property("held", f"{CONNECTS} connects: {before} -> {after}")  # for a report (--junit-xml)
        assert after.files <= before.files
        assert after.threads <= before.threads + THREADS_OF_A_POOL
        assert after.ram_mib - before.ram_mib < RAM_GROWTH_MAX_MIB


def _tenant(client: Client) -> str:
    tenant: str = client.do("tenantCreate", "tenant { id }", name=f"s-{uuid4().hex[:12]}")["tenant"]["id"]
    return tenant


def _change(gateway: Gateway, tenants: list[str]) -> None:
    with gateway.client() as client:
        for number in range(CHANGES):
            for tenant in tenants:
                client.do("tenantUpdate", "tenant { version }", id=tenant, description=f"change {number}")


def _node(folder: Path, arguments: list[str], given: dict[str, Any]) -> Any:
    done = subprocess.run(
        ["node", *arguments],
        cwd=folder,
        input=json.dumps(given),
        timeout=500,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr[:2000]} ... {done.stderr[-2000:]}"
    return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Held:
    """What a process holds of the machine. ``files`` are all but those of databases, which have pools."""

    sockets: int
    files: int
    threads: int
    ram_mib: int


def _held(gateway: Gateway) -> Held:
    folder = Path(f"/proc/{gateway.pid}")
    names = [_target(each) for each in (folder / "fd").iterdir()]
    said = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    sockets = sum(1 for name in names if name.startswith("socket:"))
    files = sum(1 for name in names if not re.match(r"socket:|.*\.(?:db|sqlite3)\b", name))
    return Held(sockets, files, int(said["Threads"]), int(said["VmRSS"].split()[0]) // 1024)


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""


def _settled(gateway: Gateway) -> Held:
    """What is held once the connections of the last clients are closed: the listener, the event loop's own, ours."""
    last = _held(gateway)

    def quiet() -> bool:
        nonlocal last
        now = _held(gateway)
        same, last = now.sockets == last.sockets, now
        return same and now.sockets < AT_ONCE

    wait_for("a quiet gateway", quiet, 30, every_s=0.5)
    return last
