"""How the cost of one server grows with what is there: servers of the same tenant on the same network, and hosts.

In this process, over the real schema, database and job runner, without a broker, reconcilers or HTTP: CPU time is then
the job path's own, and statements and commits can be counted. One server has one port. "One server" is everything
from the mutation's text to the row that is ACTIVE.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.identity.tenant import Tenant
from gateway.jobs.job import Bell, Job, Status
from gateway.kernel.access import Role, Subject
from gateway.network.membership import COVER_FROM
from resolvers.kernel.context import Context, Services
from resolvers.schema import schema
from tests.bench.counting import Count, counted
from tests.bench.jobs import CREATE
from tests.bench.scene import Ground
from tests.bench.table import Report, median
from tests.servers.postgres import PostgresServer
from workers.hypervisor import Hosts
from workers.main import load_all
from workers.runner import Runner


class Queue(Bell):
    """Keeps what was rung for."""

    def __init__(self) -> None:
        self.rung: deque[int] = deque()

    def ring(self, job_id: int) -> None:
        """Keep the key."""
        self.rung.append(job_id)


@dataclass(slots=True)
class Line:
    """The job path in this process."""

    ground: Ground
    queue: Queue
    runner: Runner
    context: Callable[[], Context]

    @classmethod
    def lay(cls, folder: Path, database_url: str | None = None) -> Line:
        """On a new database, with no host."""
        load_all()
        ground = Ground.lay(folder, database_url)
        queue = Queue()
        ground.db.provide("bell", queue)
        runner = Runner(ground.db, Hosts(folder / "scratch"), "bench", settings=ground.settings)
        with ground.db.read() as session:
            uid = session.get_one(Tenant, ground.tenant).uid
        subject = Subject(user_id=ground.user, user_uid=uid, user_name="bench", roles={ground.tenant: Role.MEMBER})
        services = Services(db=ground.db, feed=None, settings=ground.settings)
        return cls(ground, queue, runner, lambda: Context(subject=subject, services=services))

    def ask(self, wish: dict[str, Any]) -> None:
        """Send the mutation."""

        async def run() -> Any:
            return await schema().execute(CREATE, variable_values={"input": wish}, context_value=self.context())

        found = asyncio.run(run())
        if found.errors or found.data["serverCreate"]["userErrors"]:
            raise AssertionError(found)

    def work(self) -> None:
        """Carry out what was rung for."""
        while self.queue.rung:
            job_id = self.queue.rung.popleft()
            self.runner.run(job_id)
            with self.ground.db.read() as session:
                job = session.get_one(Job, job_id)
                if job.status is not Status.SUCCEEDED:
                    raise AssertionError((job.status, job.error))

    def cost_ms(self, wish: dict[str, Any], count: int) -> float:
        """CPU of this process for one server: the median over so many."""
        found = []
        for _ in range(count):
            began = time.process_time()
            self.ask(wish)
            self.work()
            found.append((time.process_time() - began) * 1000)
        return median(found)

    def counts(self, wish: dict[str, Any]) -> tuple[Count, Count]:
        """What the mutation, and what the job, send to the database."""
        with counted(self.ground.db) as asked:
            self.ask(wish)
        with counted(self.ground.db) as worked:
            self.work()
        return asked, worked

    def close(self) -> None:
        """Let go of everything."""
        self.runner.hosts.close()
        self.ground.db.close()


def measure(report: Report, folder: Path, postgres: PostgresServer | None, *, quick: bool) -> None:
    """Add the growth with servers and hosts."""
    for kind, server in (("SQLite", None), ("PostgreSQL", postgres)):
        if kind == "PostgreSQL" and server is None:
            continue
        # PostgreSQL's growth is measured with servers only: placement reads hosts by the same statements.
        for what, grow in (("servers", _servers), ("hosts", _hosts))[: 1 if server else 2]:
            own = folder / f"growth-{kind.lower()}-{what}"
            own.mkdir()
            line = Line.lay(own, server.create_database() if server else None)
            line.ground.hosts(1, "first", store="memory")
            first = [line.counts(line.ground.wish(port=True)) for _ in range(COVER_FROM + 4)]
            if what == "servers":
                most = max(asked.statements + worked.statements for asked, worked in first[1:])
                report.add(
                    f"job path, {kind}", "a server with a port, first in its group: SQL statements, at most", most, "",
                    note=f"the first {COVER_FROM} members of a security group have each other's rules applied anew",
                )  # fmt: skip
                _statements(report, kind, line)
            grow(report, kind, line, quick=quick)
            line.close()


def _statements(report: Report, kind: str, line: Line) -> None:
    for port, name, quoted in ((False, "without network", 355), (True, "with a port", 830)):
        asked, worked = line.counts(line.ground.wish(port=port))
        report.add(
            f"job path, {kind}", f"a server {name}: SQL statements", asked.statements + worked.statements, "",
            baseline=quoted, against="OpenStack Zed, quoted (least), not measured here",
            note=f"mutation {asked.statements}, job {worked.statements}",
        )  # fmt: skip
        report.add(
            f"job path, {kind}", f"a server {name}: commits", asked.commits + worked.commits, "",
            note=f"mutation {asked.commits}, job {worked.commits}; read sessions {asked.reads} + {worked.reads}",
        )  # fmt: skip


def _servers(report: Report, kind: str, line: Line, *, quick: bool) -> None:
    wish, count = line.ground.wish(port=True), 10 if quick else 25
    host = line.ground.hosts(1, "elsewhere", store="memory")[0]
    empty = line.cost_ms(wish, count)
    report.add(
        f"job path, {kind}", "CPU a server, none there", empty, "ms", note="with a port; in one process, no HTTP"
    )
    here = 0
    for total in (1_000,) if quick else (1_000, 10_000, 100_000):
        line.ground.servers(total - here, first=here + 10, host=host)
        line.ground.analysed()
        here = total
        report.add(
            f"job path, {kind}", f"CPU a server, {total:,} servers there", line.cost_ms(wish, count), "ms",
            baseline=empty, against="none there", target="1.00 (flat)",
        )  # fmt: skip


def _hosts(report: Report, kind: str, line: Line, *, quick: bool) -> None:
    wish, count = line.ground.wish(port=True), 10 if quick else 25
    lone = line.cost_ms(wish, count)
    report.add(f"job path, {kind}", "CPU a server, 1 host", lone, "ms", note="with a port; in one process, no HTTP")
    here = 1
    for total in (100,) if quick else (100, 10_000):
        line.ground.hosts(total - here, f"more-{total}", store="memory")
        here = total
        line.cost_ms(wish, 3)
        report.add(
            f"job path, {kind}", f"CPU a server, {total:,} hosts", line.cost_ms(wish, count), "ms", baseline=lone,
            against="1 host", target="1.00 (flat)",
        )  # fmt: skip
