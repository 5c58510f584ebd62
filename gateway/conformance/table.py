"""The verdicts for people, and for programs."""

from __future__ import annotations

import json
from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.conformance.probe import Told
from gateway.conformance.run import Result

COLOURS = {Result.PASSED: "green", Result.FAILED: "bold red", Result.UNSUPPORTED: "yellow"}


def show(told: Told, console: Console) -> None:
    """Print the table and a line that counts."""
    table = Table("area", "check", "result", "seconds", "reason", title=escape(told.host))
    for each in told.verdicts:
        result = f"[{COLOURS[each.result]}]{each.result.value}[/]"
        table.add_row(each.area, escape(each.check), result, f"{each.seconds:.2f}", escape(each.reason or ""))
    console.print(table)
    counts = Counter(each.result.value for each in told.verdicts)
    console.print(", ".join(f"{counts[each.value]} {each.value}" for each in Result))


def text(told: Told) -> str:
    """The same as JSON."""
    counts = Counter(each.result.value for each in told.verdicts)
    body = {"host": told.host, "counts": counts, "checks": [each.to_json() for each in told.verdicts]}
    return json.dumps(body, indent=1)
