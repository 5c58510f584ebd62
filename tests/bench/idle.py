"""Idle: memory, start-up and background CPU of `stratograph serve` (one process on SQLite, simulated) and of
`stratograph worker` (PostgreSQL and RabbitMQ).
"""

from __future__ import annotations

import time
from pathlib import Path

from gateway.kernel.settings import Settings
from tests.bench import process
from tests.bench.process import Measured
from tests.bench.table import Report, median
from tests.servers.daemon import free_port
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitServer

QUOTED = "OpenStack's set, quoted, not measured here"


def measure(
    report: Report, folder: Path, postgres: PostgresServer | None, rabbit: RabbitServer | None, *, quick: bool
) -> None:
    """Add the figures."""
    own = folder / "idle"
    own.mkdir()
    given = Settings(state_dir=own)
    seconds = 2.0 if quick else 5.0
    before = process.serve(process.settings(Settings(state_dir=folder / "idle-before"), free_port()), own / "serve.log")
    before.stop()  # an installation has compiled modules: this one has now
    starts, cpu = [], []
    for number in range(2 if quick else 4):
        found = process.serve(process.settings(given, free_port()), own / "serve.log")
        if number == 0:
            report.add("idle", "serve: very first start, database made", found.started_s, "s")
        else:
            starts.append(found.started_s)
            cpu.append(found.start_cpu_ms / 1000)
        if number + 1 < (2 if quick else 4):
            found.stop()
    report.add(
        "idle", "serve: exec to /readyz", median(starts), "s", baseline=35.0, against=f"{QUOTED} (35-69 s)",
        target="under 2 s (issue 5)", note=f"CPU until then {median(cpu):.2f} s",
    )  # fmt: skip
    _rest(report, "serve", found, seconds, target="under 150 MiB (issue 5)", quoted=2355.0)
    found.stop()
    if postgres is None or rabbit is None:
        return
    log = own / "worker.log"
    scaled = Settings(state_dir=own, database_url=postgres.create_database())
    found = process.worker(process.settings(scaled, free_port(), broker_url=rabbit.new_url()), log)
    found.stop()
    log.write_text("")
    found = process.worker(process.settings(scaled, free_port(), broker_url=rabbit.new_url()), log)
    report.add(
        "idle", "worker: exec to ready", found.started_s, "s", note=f"CPU until then {found.start_cpu_ms / 1000:.2f} s"
    )
    _rest(report, "worker", found, seconds, target="under 120 MiB (issue 5)", quoted=None)
    found.stop()


def _rest(report: Report, name: str, found: Measured, seconds: float, *, target: str, quoted: float | None) -> None:
    before = found.cpu_ms
    time.sleep(seconds)  # a period to measure over, not a hope
    used = (found.cpu_ms - before) / seconds
    report.add(
        "idle", f"{name}: memory (Pss)", found.pss_mib, "MiB", baseline=quoted, against=QUOTED if quoted else "",
        target=target, note=f"VmRSS {found.rss_mib:.0f}",
    )  # fmt: skip
    report.add("idle", f"{name}: CPU while nothing happens", used, "ms/s")
