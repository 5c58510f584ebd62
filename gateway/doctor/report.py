"""What the doctor says: findings with a status and a remedy each, and how they are shown to a person.

A finding that is not OK always carries a remedy. A report is usable when everything the gateway itself cannot do
without is there; what only one driver or a scaled-out cloud needs may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Status(StrEnum):
    """OK: there and working. MISSING: not there. BROKEN: there and not working."""

    OK = "OK"
    MISSING = "MISSING"
    BROKEN = "BROKEN"


COLOURS = {Status.OK: "green", Status.MISSING: "yellow", Status.BROKEN: "red"}


@dataclass(frozen=True)
class Finding:
    """One examined thing. `required` marks what the gateway cannot run without."""

    name: str
    status: Status
    detail: str
    remedy: str = ""
    required: bool = False


def ok(name: str, detail: str, *, required: bool = False) -> Finding:
    """A thing that is there and works."""
    return Finding(name, Status.OK, detail, "", required)


def missing(name: str, detail: str, remedy: str, *, required: bool = False) -> Finding:
    """A thing that is not there, and how to get it."""
    return Finding(name, Status.MISSING, detail, remedy, required)


def broken(name: str, detail: str, remedy: str, *, required: bool = False) -> Finding:
    """A thing that is there and does not work, and how to mend it."""
    return Finding(name, Status.BROKEN, detail, remedy, required)


@dataclass(frozen=True)
class Report:
    """Everything found, in the order of examination. `accelerator` is KVM, TCG, or None without QEMU."""

    findings: tuple[Finding, ...]
    accelerator: str | None

    @property
    def usable(self) -> bool:
        """Whether the gateway can run on this machine (perhaps with the sim driver only)."""
        return all(each.status is Status.OK for each in self.findings if each.required)

    def status(self, name: str) -> Status:
        """The status of the finding of that name. Raises KeyError when nothing of that name was examined."""
        for each in self.findings:
            if each.name == name:
                return each.status
        raise KeyError(name)


def show(report: Report, console: Console | None = None) -> None:
    """Print the report as a table, with the remedies below it."""
    console = console or Console()
    table = Table(title="stratograph doctor", title_justify="left", header_style="bold")
    for column in ("what", "status", "found"):
        table.add_column(column, no_wrap=column == "status")
    for each in report.findings:
        colour = COLOURS[each.status]
        table.add_row(escape(each.name), f"[{colour}]{each.status}[/]", escape(each.detail))
    console.print(table)
    for each in report.findings:
        if each.status is not Status.OK:
            console.print(f"[{COLOURS[each.status]}]{escape(each.name)}[/]: {escape(each.remedy)}", highlight=False)
    verdict = "This machine can run Stratograph" if report.usable else "Stratograph cannot run here yet"
    console.print(f"{verdict}; virtual machines run under {report.accelerator or 'nothing: there is no QEMU'}.")
