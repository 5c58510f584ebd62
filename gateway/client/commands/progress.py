"""How a job's course is shown while it is waited for: a moving bar on a terminal, a line a step elsewhere.

All of it goes to the standard error, so that the standard output holds the result alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gateway.client.commands import output

if TYPE_CHECKING:
    from gateway.client.client import Client

Told = Callable[[dict[str, Any]], None]


def follow(client: Client, job_id: str, timeout_s: float | None, *, quiet: bool = False) -> dict[str, Any]:
    """Wait for a job and show how it goes. Raises JobFailed, Unreachable (TIMEOUT)."""
    with _nothing() if quiet else _moving() if sys.stderr.isatty() else _lines() as told:
        return client.follow(job_id, told, deadline_s=timeout_s)


@contextmanager
def _nothing() -> Iterator[Told]:
    yield lambda _job: None


@contextmanager
def _lines() -> Iterator[Told]:
    seen: set[tuple[str, str]] = set()

    def tell(job: dict[str, Any]) -> None:
        for step in job["steps"]:
            key = (step["name"], step["status"])
            if step["status"] not in {"PENDING", "RUNNING"} and key not in seen:
                seen.add(key)
                output.say(f"{job['kind']} {step['name']} {step['status']} {step['message'] or ''}".rstrip())
        if job["finishedAt"]:
            output.say(f"{job['kind']} {job['status']}")

    yield tell


@contextmanager
def _moving() -> Iterator[Told]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", style="dim", markup=False),
    )
    with Progress(*columns, console=output.to_stderr()) as shown:
        task = shown.add_task("waiting", total=1.0, step="")

        def tell(job: dict[str, Any]) -> None:
            at = next((step for step in job["steps"] if step["status"] == "RUNNING"), None)
            step = f"{at['name']} {at['message'] or ''}".rstrip() if at is not None else job["status"]
            shown.update(task, completed=job["progress"], description=job["kind"], step=step)

        yield tell


@contextmanager
def upload_bar(name: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar in bytes; it is told those sent and all."""
    if quiet or not sys.stderr.isatty():
        yield lambda _sent, _all: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output.to_stderr()) as shown:
        task = shown.add_task(name, total=None)
        yield lambda sent, total: shown.update(task, completed=sent, total=total)
