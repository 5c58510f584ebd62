"""What the commands print: tables for people, JSON for programs, problems on the standard error, and the exit codes.

With ``--json`` the standard output is JSON and nothing else, in the API's own names, sorted and indented: it is made to
be parsed and compared. Everything that is said by the way (progress, hints, problems) goes to the standard error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.client.problem import Problem

REFUSED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
NOT_SIGNED_IN: Final = 4
_STYLES: Final = {
    "ACTIVE": "green", "AVAILABLE": "green", "SUCCEEDED": "green", "IN_USE": "cyan", "RUNNING": "cyan",
    "ERROR": "red", "FAILED": "red", "STUCK": "red", "CRASHED": "red", "STOPPED": "dim", "CANCELLED": "yellow",
}  # fmt: skip


def to_stdout() -> Console:
    """The standard output as it is now (tests exchange it)."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def to_stderr() -> Console:
    """The standard error as it is now."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False)


def as_json(value: Any, *, compact: bool = False) -> None:
    """Print a value as JSON; compact: on one line, at once."""
    if compact:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    else:
        text = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: as wide as the terminal, or as its content where nobody looks."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = to_stdout()
    made = Table(*columns, box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for row in rows:
        made.add_row(*(_cell(each) for each in row))
    if not console.is_terminal:
        console.width = max(console.measure(made).maximum, 1)
    console.print(made)


def sheet(fields: Mapping[str, object]) -> None:
    """Print one thing: a line for each field."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in fields.items():
        made.add_row(name, _cell(value))
    console = to_stdout()
    if not console.is_terminal:
        console.width = max(console.measure(made).maximum, 1)
    console.print(made)


def _cell(value: object) -> Any:
    from rich.text import Text

    if value is None or value in ([], ""):
        return Text("-", style="dim")
    if isinstance(value, list | tuple):
        return Text("\n".join(map(str, value)))
    return Text(_plain(str(value)), style=_STYLES.get(str(value), ""))


def _plain(text: str) -> str:
    """Names of others must not drive the reader's terminal."""
    return "".join(each if each.isprintable() else "�" for each in text)


def text(content: str) -> None:
    """Print text that a guest wrote: as it is to a file, without control characters to a terminal."""
    if sys.stdout.isatty():
        content = "".join(each if each.isprintable() or each in "\n\t" else "" for each in content)
    sys.stdout.write(content if content.endswith("\n") else f"{content}\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """A remark on the standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def exit_code(problem: Problem) -> int:
    """The exit code that a problem stands for."""
    from gateway.client.problem import Unreachable

    if isinstance(problem, Unreachable):
        return UNREACHABLE
    return NOT_SIGNED_IN if problem.code == "UNAUTHENTICATED" else REFUSED


def tell(problem: Problem, *, machine: bool) -> None:
    """Print a problem and those beside it on the standard error, with the data that goes with their codes."""
    every = [problem, *problem.others]
    if machine:
        sys.stderr.write(
            json.dumps({"errors": [_as_data(each) for each in every]}, ensure_ascii=False, indent=2) + "\n"
        )
        return
    for each in every:
        say(_plain(str(each)))
        for name, value in _details(each).items():
            say(f"  {name}: {_plain(json.dumps(value, ensure_ascii=False))}")
    if problem.request_id:
        say(f"  request: {problem.request_id}")
    if problem.code == "UNAUTHENTICATED":
        say("Sign in with: stratograph login")


def _details(problem: Problem) -> dict[str, Any]:
    told = {"code", "message", "path", "__typename", "requestId"}
    return {name: value for name, value in problem.data.items() if name not in told and value not in (None, [])}


def _as_data(problem: Problem) -> dict[str, Any]:
    return {
        "code": problem.code, "message": problem.message, "path": problem.path, "data": _details(problem),
        "requestId": problem.request_id,
    }  # fmt: skip
