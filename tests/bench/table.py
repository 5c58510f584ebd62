"""The bench's one table, on the screen and as bench.json: each figure with its unit, its baseline from the same run,
and their ratio. Nothing here measures.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. ``baseline`` is the same quantity of what ``against`` names, measured in this run unless it says that
    it is quoted; ``target`` is what the project aims at.
    """

    section: str
    name: str
    value: float | None
    unit: str
    baseline: float | None = None
    against: str = ""
    target: str = ""
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over baseline."""
        return self.value / self.baseline if self.value is not None and self.baseline else None


@dataclass(slots=True)
class Report:
    """All figures of a run."""

    figures: list[Figure] = field(default_factory=list)
    quick: bool = False

    def add(self, section: str, name: str, value: float | None, unit: str, **more: object) -> None:
        """Add a figure."""
        self.figures.append(Figure(section, name, value, unit, **more))  # type: ignore[arg-type]  # Figure's own fields

    def show(self) -> None:
        """Print the table."""
        table = Table(title="Stratograph bench", title_justify="left")
        for name in ("what", "value", "unit", "baseline", "ratio", "target", "against / note"):
            numeric = name in ("value", "baseline", "ratio")
            table.add_column(name, justify="right" if numeric else "left", no_wrap=name != "against / note")
        section = None
        for each in self.figures:
            if each.section != section:
                section = each.section
                table.add_section()
                table.add_row(f"[bold]{section}[/]")
            told = "; ".join(text for text in (each.against, each.note) if text)
            table.add_row(
                f"  {each.name}",
                _short(each.value),
                each.unit,
                _short(each.baseline),
                _short(each.ratio),
                each.target,
                told,
            )
        console = Console(width=max(170, Console().width))
        console.print(table)
        console.print("Two noisy shared cores: trust ratios and CPU per request, not absolute rates.", style="dim")

    def write(self, path: Path) -> None:
        """Write bench.json."""
        rows = [{**asdict(each), "ratio": each.ratio} for each in self.figures]
        told = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cpus": os.cpu_count(), "kind": platform.machine(), "python": platform.python_version()},
            "quick": self.quick,
            "figures": rows,
        }
        path.write_text(json.dumps(told, indent=1) + "\n")


def _short(value: float | None) -> str:
    if value is None:
        return ""
    if value == int(value) and abs(value) < 100_000:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1)]
