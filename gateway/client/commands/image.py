"""``stratograph image``: list, show, upload and delete. A file goes to its upload link, resumed where it broke off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.client.commands import documents, finding, options, progress, talk
from gateway.client.commands.nouns import IMAGE

app = typer.Typer(help="Images.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    status: Annotated[list[str] | None, typer.Option(help="In this state; may be repeated.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    tenant: options.Tenant = None,
    limit: options.Limit = 100,
    as_json: options.Json = False,
) -> None:
    """List images."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.listing(IMAGE, {"status": [each.upper() for each in status] if status else None, "tag": tag}, limit)


@app.command()
def show(image: options.Target, *, tenant: options.Tenant = None, as_json: options.Json = False) -> None:
    """Show an image."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.show(IMAGE, cloud.find(IMAGE, image))


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="The image's file.", exists=True, dir_okay=False, readable=True)],
    *,
    name: Annotated[str | None, typer.Option(help="Its name; the file's by default.")] = None,
    image_format: Annotated[
        str | None, typer.Option("--format", help="QCOW2, RAW, VMDK, ...; found out by default.")
    ] = None,
    visibility: Annotated[str | None, typer.Option(help="PRIVATE, SHARED or PUBLIC.")] = None,
    sha256: Annotated[str | None, typer.Option(help="The checksum that the file must have.")] = None,
    tag: options.Tags = None,
    description: options.Description = "",
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Make an image of a file. With --wait until it was inspected and is ACTIVE."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        wanted: dict[str, Any] = {
            "name": name or file.name,
            "tenantId": cloud.tenant,
            "format": None if image_format is None else image_format.upper(),
            "visibility": None if visibility is None else visibility.upper(),
            "sha256": sha256,
            "sizeBytes": file.stat().st_size,
            "tags": tag or [],
            "description": description,
        }
        made = cloud.do("imageCreate", wanted)["image"]
        with progress.upload_bar(file.name, quiet=as_json) as bar:
            cloud.client.upload(made["upload"]["url"], file, bar)
        found = finding.get(cloud.client, IMAGE, made["id"])
        # The check may have ended by now, and is no longer the active job then; --wait must not take that for success.
        checks = cloud.client.run(documents.CHECKS, id=made["id"])["image"]["jobs"]["nodes"]
        cloud.made(IMAGE, [found], checks, wait=wait, timeout_s=timeout)


@app.command()
def delete(
    images: options.Targets,
    *,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Delete images."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.each(IMAGE, "imageDelete", images, wait=wait, timeout_s=timeout)
