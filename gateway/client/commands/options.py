"""The options that many commands share, spelt once."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on the standard output and nothing else.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the work until it has ended.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0.1, help="Wait at most so many seconds.", metavar="SECONDS")
]
Tenant = Annotated[str | None, typer.Option("--tenant", help="The tenant's name or id; your only one by default.")]
Limit = Annotated[int, typer.Option("--limit", min=0, help="List at most so many; 0: all.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag; may be repeated.")]
Targets = Annotated[list[str], typer.Argument(help="Names or ids.", metavar="NAME...")]
Target = Annotated[str, typer.Argument(help="Its name or id.", metavar="NAME")]
New = Annotated[str, typer.Argument(help="Its name.", metavar="NAME")]
Description = Annotated[str, typer.Option("--description", help="What it is for.")]
