"""``stratograph flavor list``: the sizes servers come in."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.client.commands import options, talk
from gateway.client.commands.nouns import FLAVOR

app = typer.Typer(help="Flavors: the sizes of servers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Flavors: the sizes of servers."""


@app.command("list")
def list_(
    *,
    min_vcpus: Annotated[int | None, typer.Option(help="With at least so many vCPUs.")] = None,
    min_ram_mib: Annotated[int | None, typer.Option(help="With at least so much RAM.")] = None,
    limit: options.Limit = 100,
    as_json: options.Json = False,
) -> None:
    """List flavors."""
    with talk.cloud(machine=as_json) as cloud:
        cloud.listing(FLAVOR, {"minVcpus": min_vcpus, "minRamMib": min_ram_mib}, limit)
