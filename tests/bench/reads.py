"""Reading: the dashboard page and one server, by the real gateway process over HTTP, beside the limit server on the
same database in the same interleaved run. Counts of SQL statements are taken in this process, with the real schema.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from gateway.compute.server import Server
from gateway.identity.tenant import Tenant
from gateway.kernel import noun
from gateway.kernel.access import Role, Subject
from resolvers.kernel.context import Context, Services
from resolvers.schema import schema
from tests.bench import process
from tests.bench.client import PASSWORD_OF_BENCH, USER_OF_BENCH, Caller, body, sign_in
from tests.bench.counting import counted
from tests.bench.process import Measured
from tests.bench.scene import Ground
from tests.bench.table import Report, median
from tests.servers.daemon import free_port
from tests.servers.postgres import PostgresServer

FIELDS = """id name status createdAt flavor { name vcpus ramMib } image { id name }
  ports { macAddress ipAddresses network { id name } } volumes { id name sizeGib device }"""
PAGE = f"query($first: Int!) {{ servers(first: $first) {{ nodes {{ {FIELDS} }} }} }}"
ONE = f"query($id: ID!) {{ server(id: $id) {{ {FIELDS} }} }}"
CLIENTS = 4


@dataclass(slots=True)
class Candidate:
    """A process and the request it is asked."""

    name: str
    process: Measured
    post: Callable[[Caller], bytes]
    caller: Callable[[], Caller]
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    database_costs: list[float] = field(default_factory=list)


def measure(report: Report, folder: Path, postgres: PostgresServer | None, *, quick: bool) -> None:
    """Add the figures of both databases."""
    for kind, server in (("SQLite", None), ("PostgreSQL", postgres)):
        if kind == "PostgreSQL" and server is None:
            continue
        own = folder / f"reads-{kind.lower()}"
        own.mkdir()
        ground = Ground.lay(own, server.create_database() if server else None)
        host = ground.hosts(1, "old")[0]
        ground.servers(300, first=100, host=host)
        _by_process(report, ground, kind, server, quick=quick)
        _statements(report, ground, kind)
        ground.db.close()


def _by_process(report: Report, ground: Ground, kind: str, server: PostgresServer | None, *, quick: bool) -> None:
    url = ground.settings.database
    port, bare = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    log = ground.settings.state_dir / "serve.log"
    with ExitStack() as stack:
        gateway = process.serve(process.settings(ground.settings, port, workers=False), log)
        stack.callback(gateway.stop)
        limit = process.start(("-m", "tests.bench.limit", url, str(bare)), {}, log)
        stack.callback(limit.stop)
        process.await_url(limit, f"http://127.0.0.1:{bare}/")
        token = sign_in(address, USER_OF_BENCH, PASSWORD_OF_BENCH)
        with ground.db.read() as session:
            one = noun.public(session.get_one(Server, 150))
            uid = str(session.get_one(Server, 150).uid)
        page, single = body(PAGE, first=100), body(ONE, id=one)
        raw_page, raw_single = f"{ground.tenant} 100".encode(), uid.encode()

        def ours() -> Caller:
            return Caller(address, token)

        def theirs() -> Caller:
            return Caller(f"127.0.0.1:{bare}")

        pairs = {
            "dashboard page of 100 servers": (
                Candidate("gateway", gateway, lambda c: c.post(page), ours),
                Candidate("limit", limit, lambda c: c.post(raw_page, "/page"), theirs),
            ),
            "one server by id": (
                Candidate("gateway", gateway, lambda c: c.post(single), ours),
                Candidate("limit", limit, lambda c: c.post(raw_single, "/one"), theirs),
            ),
        }
        database = server.daemon.guard_pid if server else None
        rounds, seconds = (3, 0.6) if quick else (5, 1.0)
        for number in range(rounds + 1):
            for pair in pairs.values():
                for each in pair:
                    _round(each, seconds if number else 0.2, database, keep=bool(number))
    for name, (ours_, theirs_) in pairs.items():
        _tell(report, f"reads, {kind}", name, ours_, theirs_)


def _round(candidate: Candidate, seconds: float, database: int | None, *, keep: bool) -> None:
    """Ask for so long with several clients."""
    counts: list[int] = []

    def ask() -> None:
        caller = candidate.caller()
        done = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            candidate.post(caller)
            done += 1
        caller.close()
        counts.append(done)

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    cpu, began = candidate.process.cpu_ms, time.monotonic()
    stored = process.tree_cpu_ms(database) if database else 0.0
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    took, used = time.monotonic() - began, candidate.process.cpu_ms - cpu
    total = sum(counts)
    if keep and total and len(counts) == CLIENTS:
        candidate.rates.append(total / took)
        candidate.costs.append(used / total)
        if database:
            candidate.database_costs.append((process.tree_cpu_ms(database) - stored) / total)


def _tell(report: Report, section: str, name: str, ours: Candidate, limit: Candidate) -> None:
    target = "at most 1.5 (issue 5)" if "page" in name else "at most 2 (issue 5)"
    report.add(
        section, f"{name}: CPU a request", median(ours.costs), "ms", baseline=median(limit.costs),
        against="limit: one raw SQL statement, bare ASGI", target=target,
    )  # fmt: skip
    report.add(
        section, f"{name}: {CLIENTS} clients", median(ours.rates), "requests/s", baseline=median(limit.rates),
        against="limit",
    )  # fmt: skip
    if ours.database_costs:
        report.add(
            section, f"{name}: CPU of PostgreSQL a request", median(ours.database_costs), "ms",
            baseline=median(limit.database_costs), against="limit",
        )  # fmt: skip


def _statements(report: Report, ground: Ground, kind: str) -> None:
    """How many SQL statements a page takes, by its size."""
    with ground.db.read() as session:
        one = noun.public(session.get_one(Server, 150))
        uid = session.get_one(Tenant, ground.tenant).uid
    subject = Subject(user_id=ground.user, user_uid=uid, user_name="bench", roles={ground.tenant: Role.MANAGER})
    services = Services(db=ground.db, feed=None, settings=ground.settings)

    def ask(query: str, **variables: object) -> int:
        async def run() -> object:
            context = Context(subject=subject, services=services)
            return await schema().execute(query, variable_values=dict(variables), context_value=context)

        with counted(ground.db) as count:
            found = asyncio.run(run())
        if getattr(found, "errors", None):
            raise AssertionError(found)
        return count.statements

    sizes = {first: ask(PAGE, first=first) for first in (1, 20, 100)}
    told = ", ".join(f"{count} for {first}" for first, count in sizes.items())
    report.add(
        f"reads, {kind}", "dashboard page: SQL statements", sizes[100], "", baseline=sizes[1],
        against="a page of 1", target="1.00", note=told,
    )  # fmt: skip
    report.add(f"reads, {kind}", "one server: SQL statements", ask(ONE, id=one), "")
