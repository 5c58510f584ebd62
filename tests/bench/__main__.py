"""``python -m tests.bench``: measure speed, print one table, write bench.json.

``--quick`` takes some 40 s and leaves PostgreSQL, RabbitMQ and large sizes out; ``--only reads jobs`` measures parts.
Whatever a part needs and cannot have is said in the table and the other parts go on. All figures of one table are from
one run on one machine; those of OpenStack are quoted.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import structlog
from rich.console import Console

from tests.bench import boot, esxi, fanout, growth, idle, jobs, placement, reads
from tests.bench.table import Report
from tests.servers.daemon import PackageMissingError
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitServer

PARTS = ("reads", "jobs", "placement", "fanout", "growth", "boot", "esxi", "idle")


def main() -> int:
    """Run the parts that were asked for; 1 when one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure speed.")
    parser.add_argument("--quick", action="store_true", help="some 40 seconds: SQLite only, small sizes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="only these parts")
    parser.add_argument("--peers", action="store_true", help="reads: PostGraphile 5 too, from npm on first use")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the figures go")
    parser.add_argument("--minutes", type=float, default=10.0, help="no further part is begun after so long")
    asked = parser.parse_args()
    end = time.monotonic() + asked.minutes * 60
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is then stopped on the way out
    report = Report(quick=asked.quick)
    told = Console(stderr=True)
    failed = False
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="stratograph-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres, rabbit = (None, None) if asked.quick else _servers(stack, told)
        parts: dict[str, Callable[[], None]] = {
            "reads": lambda: reads.measure(report, folder, postgres, quick=asked.quick, peers=asked.peers),
            "jobs": lambda: jobs.measure(report, folder, postgres, rabbit, quick=asked.quick),
            "placement": lambda: placement.measure(report, folder, postgres, quick=asked.quick),
            "fanout": lambda: fanout.measure(report, folder, quick=asked.quick),
            "growth": lambda: growth.measure(report, folder, postgres, quick=asked.quick),
            "boot": lambda: boot.measure(report, folder, quick=asked.quick),
            "esxi": lambda: esxi.measure(report, folder, quick=asked.quick),
            "idle": lambda: idle.measure(report, folder, postgres, rabbit, quick=asked.quick),
        }
        for name in asked.only:
            began = time.monotonic()
            if began > end:
                report.add(name, f"{name}: not begun, {asked.minutes:g} minutes were over", None, "", note="--minutes")
                continue
            told.print(f"measuring {name} ...", style="dim")
            try:
                parts[name]()
            except Exception:  # noqa: BLE001 - one part that fails must not cost the others' figures
                failed = True
                told.print(traceback.format_exc()[-2500:], style="red", markup=False)
                report.add(name, f"{name} could not be measured", None, "", note="the log above says why")
            told.print(f"measured {name} in {time.monotonic() - began:.0f} s", style="dim")
    report.show()
    report.write(asked.json)
    return int(failed)


def _servers(stack: ExitStack, told: Console) -> tuple[PostgresServer | None, RabbitServer | None]:
    """PostgreSQL and RabbitMQ of this run, where they are installed."""
    try:
        postgres = PostgresServer.create()
        stack.callback(postgres.stop)
        rabbit = RabbitServer.create()
        stack.callback(rabbit.stop)
    except PackageMissingError as error:
        told.print(f"without PostgreSQL and RabbitMQ: {error}", style="yellow")
        return None, None
    return postgres, rabbit


if __name__ == "__main__":
    sys.exit(main())
