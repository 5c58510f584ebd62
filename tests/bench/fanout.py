"""Fan-out: one change, and thousands of open subscriptions that hear of it, over real WebSockets on loopback.

A hundred people with fifty sockets each (what one token may have) wait in two processes of listeners. The time is from
asking for the change to the last socket having it, so the mutation's own time is in it; the listeners use the same two
cores as the gateway.
"""

from __future__ import annotations

import json
import resource
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.compute.server import Server
from gateway.identity import keys
from gateway.identity.role import Membership
from gateway.identity.session import Session
from gateway.identity.user import User
from gateway.kernel import noun
from gateway.kernel.access import Role
from tests.bench import process
from tests.bench.client import PASSWORD_OF_BENCH, USER_OF_BENCH, Caller, sign_in
from tests.bench.process import Measured
from tests.bench.scene import Ground, insert
from tests.bench.table import Report, median, percentile
from tests.servers.daemon import ROOT, free_port

EACH = 50
PROCESSES = 2
ALL = 'subscription { events(filter: {nouns: ["server"]}) { cursor kind objectId object { ... on Server { %s } } } }'
FIELDS = "name status version updatedAt"
ONE = "subscription($id: ID!) { serverChanged(id: $id) { %s } }"
CHANGE = """mutation($input: ServerUpdateInput!) { serverUpdate(input: $input) {
  server { version } userErrors { message } } }"""


@dataclass(slots=True)
class Crowd:
    """The listeners' processes."""

    processes: list[subprocess.Popen[bytes]]

    def ready(self) -> None:
        """Wait until all have asked."""
        for each in self.processes:
            if _line(each, 120) != "ready":
                raise AssertionError("a listener was lost")

    def heard(self, version: int, seconds: float) -> list[float] | None:
        """When each listener had that version of the server; None when some have not within so long."""
        times: list[float] = []
        until = time.monotonic() + seconds
        for each in self.processes:
            told = None
            while told is None or told[0] != version:
                told = _line(each, until - time.monotonic())
                if told is None:
                    return None
            times.extend(told[1])
        return times

    def close(self) -> None:
        """End them."""
        for each in self.processes:
            if each.stdin is not None:
                each.stdin.close()
            each.wait(20)


def _line(listeners: subprocess.Popen[bytes], seconds: float) -> Any:
    """The next line of a process; None when there is none within so long."""
    out = listeners.stdout
    if out is None or not select.select([out], [], [], max(seconds, 0))[0]:
        return None
    text = out.readline()
    told = json.loads(text) if text else {"lost": "all"}
    if "lost" in told:
        raise AssertionError(f"listeners were lost: {told}")
    return told


def measure(report: Report, folder: Path, *, quick: bool) -> None:
    """Add the figures of both kinds of subscription."""
    sockets, events = (int(__import__("os").environ.get("SOCKETS", 500)), 5) if quick else (5_000, 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < sockets + 500:
        report.add("fan-out", f"{sockets:,} subscriptions", None, "", note=f"needs as many files; {hard} are allowed")
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    own = folder / "fanout"
    own.mkdir()
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        ground = Ground.lay(own)
        stack.callback(ground.db.close)
        host = ground.hosts(1, "sim", store="memory")[0]
        ground.servers(1, first=10, host=host)
        server = ground.id(Server, 1)
        tokens = sign_in_all(ground, sockets // EACH)
        for name, query, variables in (
            ("events of a tenant", ALL % FIELDS, {}), ("one server", ONE % FIELDS, {"id": server}),
        ):  # fmt: skip
            port = free_port()
            gateway = process.serve(process.settings(ground.settings, port), own / "serve.log")
            try:
                found = Fan(gateway, f"127.0.0.1:{port}", tokens, {"query": query, "variables": variables})
                found.tell(report, name, server, events)
            finally:
                gateway.stop()


def sign_in_all(ground: Ground, count: int) -> list[str]:
    """Tokens of so many people of the tenant, without passwords: hashing those is not what is measured."""
    db = ground.db
    users = insert(db, User(name="", password="!"), ({"name": f"listener-{number}"} for number in range(count)))
    insert(db, Membership(user_id=0, tenant_id=ground.tenant, role=Role.READER), ({"user_id": each} for each in users))
    now = datetime.now(UTC).replace(microsecond=0)
    until = now + timedelta(hours=1)
    row = Session(user_id=0, expires_at=until, last_used_at=now)
    sessions = insert(db, row, ({"user_id": each} for each in users))

    def sign(session: Any) -> list[str]:
        found = keys.of(session)
        return [
            found.sign(noun.public(session.get_one(Session, key)), noun.public(session.get_one(User, user)), now, until)
            for key, user in zip(sessions, users, strict=True)
        ]

    return db.run(sign)


@dataclass(slots=True)
class Fan:
    """One kind of subscription, many times."""

    gateway: Measured
    address: str
    tokens: list[str]
    operation: dict[str, Any]

    def tell(self, report: Report, name: str, server: str, events: int) -> None:
        """Open all, change the server so many times, and add the figures."""
        sockets = len(self.tokens) * EACH
        section = f"fan-out, {sockets:,} subscriptions to {name}"
        token = sign_in(self.address, USER_OF_BENCH, PASSWORD_OF_BENCH)
        self.change(token, server)
        before = self.gateway.rss_mib
        crowd = self.open()
        try:
            crowd.ready()
            self.settle(token, crowd, server)
            idle = self.gateway.cpu_ms
            time.sleep(3)
            idle = (self.gateway.cpu_ms - idle) / 30
            held = (self.gateway.rss_mib - before) / sockets * 1024
            cpu, late = self.gateway.cpu_ms, []
            for _ in range(events):
                began = time.monotonic() * 1000
                heard = crowd.heard(self.change(token, server), 60)
                if heard is None:
                    raise AssertionError("not all listeners heard of a change")
                late.append([at - began for at in heard])
            cpu = (self.gateway.cpu_ms - cpu) / events
        finally:
            crowd.close()
        every = [each for some in late for each in some]
        report.add(
            section, "a change at all of them, p50", median([max(each) for each in late]), "ms", note=f"of {events}"
        )
        report.add(section, "a change at one of them, p50", percentile(every, 0.5), "ms")
        report.add(
            section, "a change at one of them, p99", percentile(every, 0.99), "ms", target="under 1000 ms (issue 5)",
            note=f"{len(self.tokens)} people; listeners share the cores",
        )  # fmt: skip
        report.add(
            section, "CPU of the gateway a change", cpu, "ms", note=f"{cpu / sockets * 1000:.0f} us a subscription"
        )
        report.add(section, "memory a subscription", held, "KiB", note="its socket and token's check among it")
        report.add(section, "CPU when nothing changes", idle, "% of a core", note="pings, revocation within a second")

    def open(self) -> Crowd:
        """Start the listeners."""
        crowd = Crowd([])
        share = -(-len(self.tokens) // PROCESSES)
        for start in range(0, len(self.tokens), share):
            popen = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.listeners"], cwd=ROOT, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, bufsize=0,
            )  # fmt: skip
            wish = {"address": self.address, "tokens": self.tokens[start : start + share], "each": EACH}
            if popen.stdin is not None:
                popen.stdin.write(json.dumps({**wish, "operation": self.operation}).encode() + b"\n")
                popen.stdin.flush()
            crowd.processes.append(popen)
        return crowd

    def settle(self, token: str, crowd: Crowd, server: str) -> None:
        """Change the server until a change reaches all: then every subscription has begun."""
        for _ in range(30):
            if crowd.heard(self.change(token, server), 4) is not None:
                return
        raise AssertionError("not all subscriptions begin")

    def change(self, token: str, server: str) -> int:
        """Change the server; its version after it."""
        caller = Caller(self.address, token)
        try:
            wish = {"id": server, "description": str(time.monotonic())}
            payload = caller.ask(CHANGE, input=wish)["serverUpdate"]
        finally:
            caller.close()
        if payload["userErrors"]:
            raise AssertionError(payload)
        version: int = payload["server"]["version"]
        return version
