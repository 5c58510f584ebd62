"""The commands that talk to a cloud: ``stratograph login``, ``server``, ``volume``, ``image``, ... ``gql``.

They speak the public API through :mod:`gateway.client` and know nothing else of this project, so they work against any
cloud from anywhere. Exit codes: 0 done; 1 refused (the typed errors are printed); 2 wrong usage; 3 the cloud does not
answer, or not in time; 4 not signed in; 130 interrupted. What is slow to import (HTTP, rich, GraphQL's parser) is
imported by the command that needs it: ``--help`` and shell completion stay quick.
"""

from __future__ import annotations

import typer

from gateway.client.commands import flavor, image, job, network, server, volume
from gateway.client.commands.gql import gql
from gateway.client.commands.login import login, logout

PANEL = "As a client of a cloud"


def mount(app: typer.Typer) -> None:
    """Add the client's commands to a program."""
    app.command(rich_help_panel=PANEL)(login)
    app.command(rich_help_panel=PANEL)(logout)
    for name, group in (
        ("server", server.app),
        ("volume", volume.app),
        ("image", image.app),
        ("network", network.app),
        ("flavor", flavor.app),
        ("job", job.app),
    ):
        app.add_typer(group, name=name, rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(gql)
