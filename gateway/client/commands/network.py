"""``stratograph network``: create (with its subnets), list, show and delete."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.client.commands import finding, options, talk
from gateway.client.commands.nouns import NETWORK

app = typer.Typer(help="Networks.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    name: Annotated[str | None, typer.Option(help="Whose name contains this.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    tenant: options.Tenant = None,
    limit: options.Limit = 100,
    as_json: options.Json = False,
) -> None:
    """List networks."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.listing(NETWORK, {"nameContains": name, "tag": tag}, limit)


@app.command()
def show(network: options.Target, *, tenant: options.Tenant = None, as_json: options.Json = False) -> None:
    """Show a network."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.show(NETWORK, cloud.find(NETWORK, network))


@app.command()
def create(
    name: options.New,
    *,
    cidr: Annotated[list[str] | None, typer.Option(help="A subnet, such as 10.0.0.0/24; may be repeated.")] = None,
    mtu: Annotated[int | None, typer.Option(help="The largest packet, in bytes.")] = None,
    shared: Annotated[bool, typer.Option("--shared", help="For every tenant.")] = False,
    tag: options.Tags = None,
    description: options.Description = "",
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Create a network, with subnets if you like."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        wanted = {
            "name": name,
            "tenantId": cloud.tenant,
            "mtu": mtu,
            "shared": shared or None,
            "tags": tag or [],
            "description": description,
        }
        made = cloud.do("networkCreate", wanted)["network"]
        jobs = [cloud.do("subnetCreate", {"networkId": made["id"], "cidr": each})["job"] for each in cidr or ()]
        found = finding.get(cloud.client, NETWORK, made["id"])
        cloud.made(NETWORK, [found], jobs, wait=wait, timeout_s=timeout)


@app.command()
def delete(
    networks: options.Targets,
    *,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Delete networks with their subnets."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.each(NETWORK, "networkDelete", networks, wait=wait, timeout_s=timeout)
