"""Everything ``stratograph`` can be told, as its command line is read. Each subcommand is a thin call; what it does
lives elsewhere. The two that run processes stand in :mod:`gateway.processes`, begun without loading any of this.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway import processes
from gateway.client import commands

app = typer.Typer(help="A whole cloud behind one GraphQL schema.", no_args_is_help=True, pretty_exceptions_enable=False)
commands.mount(app)
app.command()(processes.serve)
app.command()(processes.worker)


@app.command()
def migrate() -> None:
    """Bring the database to this version's structure."""
    from gateway import migrations
    from gateway.kernel.db import Database

    settings = processes.load_settings()
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = Database(settings.database)
    changed = migrations.upgrade(db)
    db.close()
    typer.echo("The database was brought up to date." if changed else "The database is up to date.", err=True)


@app.command()
def doctor() -> None:
    """Report what is there and what is missing, with the remedy."""
    from drivers import registry
    from gateway import doctor as checks

    settings = processes.load_settings()
    allowed = {name.upper() for name in settings.drivers}
    report = checks.examine(
        settings.state_dir,
        listen=settings.listen,
        database_url=settings.database_url,
        broker_url=settings.broker_url,
        drivers={kind: found.missing() for kind, found in registry.all_types().items() if kind in allowed},
    )
    checks.show(report)
    raise typer.Exit(0 if report.usable else 1)


@app.command("settings")
def list_settings() -> None:
    """List every setting with its default and meaning."""
    from rich.console import Console
    from rich.table import Table

    from gateway.kernel.settings import PREFIX, Settings

    table = Table("setting", "default", "meaning")
    for name, field in Settings.model_fields.items():
        table.add_row(f"{PREFIX}{name.upper()}", str(field.default), field.description)
    Console().print(table)


@app.command()
def demo(
    image: Annotated[Path | None, typer.Option(help="The guest image; `make guest` builds a tiny one.")] = None,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything standing at the end.")] = False,
) -> None:
    """Do the main job against the running gateway, by its public API only, and take everything away again."""
    from gateway.demo.run import run

    raise typer.Exit(run(processes.load_settings(), image, keep=keep))


@app.command()
def conformance(
    driver: Annotated[str, typer.Option(help="kvm, esxi or sim.")],
    endpoint: Annotated[str, typer.Option(help="The host's address, as for hostRegister.")],
    *,
    username: Annotated[str | None, typer.Option(help="Who to sign in as.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="A file with the password.", exists=True)] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Authorities to trust, in PEM.", exists=True)] = None,
    fingerprint: Annotated[str | None, typer.Option(help="SHA-256 of the host's own certificate, to pin it.")] = None,
    option: Annotated[list[str] | None, typer.Option(help="An option of the driver, NAME=VALUE; repeat it.")] = None,
    image: Annotated[Path | None, typer.Option(help="A bootable image (RAW, qcow2 or VMDK).", exists=True)] = None,
    ready: Annotated[str | None, typer.Option(help="What its guest writes on the serial port when it is up.")] = None,
    only: Annotated[str | None, typer.Option(help="Only checks with this text in the name, or of this area.")] = None,
    seconds: Annotated[float, typer.Option(help="How long one verb may take.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Try a host by the driver contract: makes things of its own there, and takes all of them away again."""
    from rich.console import Console

    from gateway.conformance import probe, table

    pairs = dict(each.partition("=")[::2] for each in option or [])
    if ca_file is not None:
        pairs["ca_file"] = str(ca_file)
    secret = password_file.read_text().strip() if password_file is not None else None
    wish = probe.Wish(
        driver, endpoint, pairs, username, secret, fingerprint, image, ready, only, seconds,
        state=processes.load_settings().state_dir,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is then taken away on the way out
    errors = Console(stderr=True)
    with errors.status("probing") as status:
        try:
            told = probe.probe(wish, lambda each: status.update(f"{each.result.value}: {each.check}"))
        except probe.NotProbed as error:
            errors.print(f"[red]Not probed:[/] {error}", highlight=False)
            raise typer.Exit(2) from None
    if as_json:
        typer.echo(table.text(told))
    else:
        table.show(told, Console())
    raise typer.Exit(0 if told.good else 1)
