"""What the demo shows: a title, numbered steps with their times, jobs step by step, tables.

On a terminal it moves (spinners, bars, a table that fills); elsewhere it prints plain lines once things have happened.
Nothing here knows what a cloud is, except for the shape of a job.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rich.box import ROUNDED, SIMPLE
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH: Final = 118
_STATES: Final = {
    "PENDING": ("·", "dim"),
    "RUNNING": ("▸", "cyan"),
    "DONE": ("✓", "green"),
    "FAILED": ("✗", "red"),
    "UNDONE": ("↶", "yellow"),
    "STUCK": ("!", "red"),
}


@dataclass(slots=True)
class Act:
    """One step under way; ``note`` is printed behind it when it has ended."""

    note: str = ""


@dataclass(slots=True)
class Stage:
    """Where the demo is shown."""

    console: Console
    acts: int = 0
    _since: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls) -> Stage:
        """On the standard output."""
        console = Console(highlight=False)
        return cls(console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH))

    @property
    def seconds(self) -> float:
        """Since the stage was opened."""
        return time.monotonic() - self._since

    def title(self, head: str, lines: Sequence[str]) -> None:
        """The opening panel."""
        body = Text("\n".join(lines))
        self.console.print()
        self.console.print(
            Panel(body, title=f"[bold]{escape(head)}[/]", title_align="left", box=ROUNDED, padding=(1, 2))
        )

    def chapter(self, text: str) -> None:
        """A heading."""
        self.console.print()
        self.console.print(f"[bold cyan]{escape(text)}[/]")

    def say(self, text: str, style: str = "") -> None:
        """A line beside the steps."""
        self.console.print(Padding(Text(text, style=style), (0, 0, 0, 4), expand=False))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
        """A small table."""
        table = Table(*columns, title=title, title_justify="left", title_style="bold", box=SIMPLE, header_style="dim")
        for row in rows:
            table.add_row(*(escape(each) for each in row))
        self.console.print(Padding(table, (0, 0, 0, 3), expand=False))

    @contextmanager
    def act(self, text: str) -> Iterator[Act]:
        """One step: a spinner while it goes on, a line with its time at its end."""
        self.acts += 1
        begun, act = time.monotonic(), Act()
        try:
            if self.console.is_terminal:
                with self.console.status(f"{escape(text)} …", spinner="dots"):
                    yield act
            else:
                yield act
        except BaseException:
            self._line("✗", "red", text, act.note, time.monotonic() - begun)
            raise
        self._line("✓", "green", text, act.note, time.monotonic() - begun)

    def job(self, text: str, follow: Callable[[Callable[[dict[str, Any]], object]], dict[str, Any]]) -> dict[str, Any]:
        """Show a job's steps while ``follow(on_change)`` waits for its end; its answer."""
        self.acts += 1
        begun = time.monotonic()
        view = _JobView(self.console)
        try:
            if self.console.is_terminal:
                with Live(view.table({}), console=self.console, refresh_per_second=12) as live:
                    job = follow(lambda each: live.update(view.table(each)))
            else:
                job = follow(view.lines)
        except BaseException:
            self._line("✗", "red", text, "", time.monotonic() - begun)
            raise
        self._line("✓", "green", text, "", time.monotonic() - begun)
        return job

    @contextmanager
    def bar(self, text: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar in bytes; the value is told (done, all)."""
        begun = time.monotonic()
        self.acts += 1
        told = [0, 0]
        columns = (TextColumn("    {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as progress:
            task = progress.add_task(escape(text), total=None)

            def tell(done: int, total: int) -> None:
                told[:] = [done, total]
                progress.update(task, completed=done, total=total)

            try:
                yield tell
            except BaseException:
                self._line("✗", "red", text, f"{megabytes(told[0])} of {megabytes(told[1])}", time.monotonic() - begun)
                raise
        self._line("✓", "green", text, megabytes(told[1]), time.monotonic() - begun)

    def _line(self, mark: str, style: str, text: str, note: str, seconds: float) -> None:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=3, justify="right")
        grid.add_column(width=38)
        grid.add_column(width=9, justify="right", style="dim")
        grid.add_column(style="dim", overflow="fold")
        grid.add_row(Text(mark, style=style), Text(text), f"{seconds:.2f} s", Text(note))
        self.console.print(grid)


class _JobView:
    """A job's steps: a table for terminals, a line each for all else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: set[tuple[str, str]] = set()

    def table(self, job: dict[str, Any]) -> Table:
        grid = _step_grid()
        for step in job.get("steps", ()):
            grid.add_row(*_cells(step))
        return grid

    def lines(self, job: dict[str, Any]) -> None:
        for step in job["steps"]:
            key = (step["name"], step["status"])
            if step["status"] not in {"PENDING", "RUNNING"} and key not in self._told:
                self._told.add(key)
                grid = _step_grid()
                grid.add_row(*_cells(step))
                self._console.print(grid)


def _step_grid() -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=7, justify="right")
    grid.add_column(width=34)
    grid.add_column(width=9, justify="right", style="dim")
    grid.add_column(style="dim", overflow="fold")
    return grid


def _cells(step: dict[str, Any]) -> tuple[Text, Text, str, Text]:
    mark, style = _STATES.get(step["status"], ("?", ""))
    again = f" (begun {step['attempt']} times)" if step["attempt"] > 1 else ""
    return Text(mark, style=style), Text(step["name"] + again), _took(step), Text(step["message"] or "")


def _took(step: dict[str, Any]) -> str:
    if not step["startedAt"] or not step["finishedAt"]:
        return ""
    took = datetime.fromisoformat(step["finishedAt"]) - datetime.fromisoformat(step["startedAt"])
    return f"{took.total_seconds():.2f} s"


def megabytes(size_bytes: int) -> str:
    """A size for people."""
    return f"{size_bytes / 1e6:.1f} MB"
