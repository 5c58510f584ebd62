"""Jobs: servers to ACTIVE, from the GraphQL mutation to the status that a subscriber sees, on the simulated hypervisor.

Whole processes: one gateway on SQLite with its workers inside (as it comes, and with SHARE_CORE off, where it passes
the interpreter from core to core), and a gateway with two workers on PostgreSQL and RabbitMQ. Growth with existing
servers and hosts is measured in this process (growth.py).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import process
from tests.bench.client import PASSWORD_OF_BENCH, USER_OF_BENCH, Caller, Follower, body, sign_in
from tests.bench.process import Measured
from tests.bench.scene import Ground
from tests.bench.table import Report, median, percentile
from tests.servers.daemon import free_port
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitServer

CREATE = """mutation($input: ServerCreateInput!) { serverCreate(input: $input)
  { server { id } job { id } userErrors { message } } }"""
CLIENTS = 8


@dataclass(slots=True)
class Outcome:
    """What a run of many creates gave: servers a second, CPU a server of our processes and of PostgreSQL."""

    rate: float
    cpu_ms: float
    database_ms: float


@dataclass(slots=True)
class Cloud:
    """Running processes and a way to ask them."""

    address: str
    token: str
    follower: Follower
    processes: Sequence[Measured]
    database: int | None = None
    warm: list[str] = field(default_factory=list)

    def create(self, caller: Caller, wish: bytes) -> str:
        """Ask for a server; its id."""
        payload = json.loads(caller.post(wish))["data"]["serverCreate"]
        if payload["userErrors"]:
            raise AssertionError(payload["userErrors"])
        found: str = payload["server"]["id"]
        return found

    def lone(self, wish: bytes, count: int) -> list[float]:
        """Milliseconds from asking to ACTIVE, one after the other."""
        caller = Caller(self.address, self.token)
        found = []
        for _ in range(count):
            began = time.monotonic()
            server = self.create(caller, wish)
            found.append((self.follower.wait(server) - began) * 1000)
        caller.close()
        return found

    def many(self, wish: bytes, count: int) -> Outcome:
        """Ask for so many by several clients at once, and wait until all run."""
        made: list[str] = []
        share = count // CLIENTS

        def ask() -> None:
            caller = Caller(self.address, self.token)
            made.extend(self.create(caller, wish) for _ in range(share))
            caller.close()

        cpu, stored, began = self._cpu(), self._stored(), time.monotonic()
        threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if len(made) != share * CLIENTS:
            raise AssertionError("a client failed")
        last = max(self.follower.wait(each, 120) for each in made)
        total = len(made)
        return Outcome(total / (last - began), (self._cpu() - cpu) / total, (self._stored() - stored) / total)

    def _cpu(self) -> float:
        return sum(each.cpu_ms for each in self.processes)

    def _stored(self) -> float:
        return process.tree_cpu_ms(self.database) if self.database else 0.0


def measure(
    report: Report, folder: Path, postgres: PostgresServer | None, rabbit: RabbitServer | None, *, quick: bool
) -> None:
    """Add the figures of both set-ups."""
    for section, share_core in (
        ("jobs, one process on SQLite", True), ("jobs, one process on SQLite, SHARE_CORE off", False),
    ):  # fmt: skip
        own = folder / f"jobs-embedded-{share_core}"
        own.mkdir()
        with ExitStack() as stack:
            ground = Ground.lay(own)
            stack.callback(ground.db.close)
            ground.hosts(1, "sim", store="memory")
            port = free_port()
            gateway = process.serve(process.settings(ground.settings, port, share_core=share_core), own / "serve.log")
            stack.callback(gateway.stop)
            _tell(report, section, _cloud(stack, port, (gateway,)), ground, quick=quick)
    if postgres is None or rabbit is None:
        return
    own = folder / "jobs-scaled"
    own.mkdir()
    with ExitStack() as stack:
        ground = Ground.lay(own, postgres.over_socket(postgres.create_database()))
        stack.callback(ground.db.close)
        ground.hosts(1, "sim", state=str(own / "sim"))
        port = free_port()
        settings = process.settings(ground.settings, port, broker_url=rabbit.new_url())
        started = [process.serve(settings, own / "serve.log")]
        stack.callback(started[0].stop)
        for number in (1, 2):
            started.append(process.worker(settings, own / f"worker-{number}.log"))
            stack.callback(started[-1].stop)
        cloud = _cloud(stack, port, started)
        cloud.database = postgres.daemon.guard_pid
        _tell(report, "jobs, API + 2 workers on PostgreSQL + RabbitMQ", cloud, ground, quick=quick)


def _cloud(stack: ExitStack, port: int, processes: Sequence[Measured]) -> Cloud:
    address = f"127.0.0.1:{port}"
    token = sign_in(address, USER_OF_BENCH, PASSWORD_OF_BENCH)
    follower = Follower.open(address, token)
    stack.callback(follower.close)
    return Cloud(address, token, follower, processes)


QUOTED = "OpenStack Zed with fake driver, quoted, not measured here"


def _tell(report: Report, section: str, cloud: Cloud, ground: Ground, *, quick: bool) -> None:
    plain = body(CREATE, input=ground.wish(port=False))
    ported = body(CREATE, input=ground.wish(port=True))
    cloud.lone(plain, 3)
    cloud.lone(ported, 3)
    lone, many = (20, 40) if quick else (60, 120)
    for name, wish, p50_quoted, cpu_quoted in (
        ("without network", plain, 738.0, 920.0), ("with a port", ported, 2300.0, 2900.0),
    ):  # fmt: skip
        alone = cloud.lone(wish, lone)
        report.add(
            section, f"a lone server {name}, p50", percentile(alone, 0.5), "ms", baseline=p50_quoted, against=QUOTED,
            target="under 30 ms (issue 5)" if name == "without network" else "",
        )  # fmt: skip
        report.add(section, f"a lone server {name}, p99", percentile(alone, 0.99), "ms", note=f"of {lone}")
        found = [cloud.many(wish, many) for _ in range(1 if quick else 2)]
        report.add(
            section, f"servers {name} to ACTIVE", median([each.rate for each in found]), "servers/s",
            baseline=1.1 if name == "with a port" else None,
            against=QUOTED if name == "with a port" else "", target="100 (issue 5)", note=f"{CLIENTS} clients",
        )  # fmt: skip
        report.add(
            section, f"CPU a server {name}", median([each.cpu_ms for each in found]), "ms", baseline=cpu_quoted,
            against=QUOTED, note="all processes of ours",
        )  # fmt: skip
        if cloud.database:
            report.add(
                section, f"CPU of PostgreSQL a server {name}", median([each.database_ms for each in found]), "ms"
            )
