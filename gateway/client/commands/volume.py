"""``stratograph volume``: create, list, show, delete, attach and detach."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.client.commands import options, talk
from gateway.client.commands.nouns import IMAGE, SERVER, VOLUME

app = typer.Typer(help="Volumes.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    status: Annotated[list[str] | None, typer.Option(help="In this state; may be repeated.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    tenant: options.Tenant = None,
    limit: options.Limit = 100,
    as_json: options.Json = False,
) -> None:
    """List volumes."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.listing(VOLUME, {"status": [each.upper() for each in status] if status else None, "tag": tag}, limit)


@app.command()
def show(volume: options.Target, *, tenant: options.Tenant = None, as_json: options.Json = False) -> None:
    """Show a volume."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.show(VOLUME, cloud.find(VOLUME, volume))


@app.command()
def create(
    name: options.New,
    *,
    size_gib: Annotated[int | None, typer.Option("--size-gib", min=1, help="Its size.")] = None,
    image: Annotated[str | None, typer.Option(help="The image to fill it with.")] = None,
    hypervisor: Annotated[str | None, typer.Option(help="KVM, ESXI or SIM; any by default.")] = None,
    zone: Annotated[str | None, typer.Option(help="The availability zone.")] = None,
    tag: options.Tags = None,
    description: options.Description = "",
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Create a volume."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        wanted = {
            "name": name,
            "tenantId": cloud.tenant,
            "sizeGib": size_gib,
            "imageId": cloud.find_maybe(IMAGE, image),
            "hypervisor": None if hypervisor is None else hypervisor.upper(),
            "availabilityZone": zone,
            "tags": tag or [],
            "description": description,
        }
        made = cloud.do("volumeCreate", wanted)
        cloud.made(VOLUME, [made["volume"]], [made["job"]], wait=wait, timeout_s=timeout)


@app.command()
def delete(
    volumes: options.Targets,
    *,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Delete volumes."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.each(VOLUME, "volumeDelete", volumes, wait=wait, timeout_s=timeout)


@app.command()
def attach(
    volume: options.Target,
    server: Annotated[str, typer.Argument(help="The server's name or id.")],
    *,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Attach a volume to a server."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        given = {"serverId": cloud.find(SERVER, server)}
        cloud.each(VOLUME, "volumeAttach", [volume], given, key="volumeId", wait=wait, timeout_s=timeout)


@app.command()
def detach(
    volumes: options.Targets,
    *,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Detach volumes from their servers."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.each(VOLUME, "volumeDetach", volumes, key="volumeId", wait=wait, timeout_s=timeout)
