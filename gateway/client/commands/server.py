"""``stratograph server``: create, list, show, start, stop, reboot, delete, its screen and its console's log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.client.commands import documents, nouns, options, output, planned, talk
from gateway.client.commands.nouns import SERVER

app = typer.Typer(help="Servers.", no_args_is_help=True)

_MOST_USER_DATA_BYTES = 64 << 10


@app.command("list")
def list_(
    *,
    status: Annotated[list[str] | None, typer.Option(help="In this state; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Whose name contains this.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    tenant: options.Tenant = None,
    limit: options.Limit = 100,
    as_json: options.Json = False,
) -> None:
    """List servers."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        states = [each.upper() for each in status] if status else None
        cloud.listing(SERVER, {"status": states, "nameContains": name, "tag": tag}, limit)


@app.command()
def show(server: options.Target, *, tenant: options.Tenant = None, as_json: options.Json = False) -> None:
    """Show a server."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.show(SERVER, cloud.find(SERVER, server))


@app.command()
def create(
    name: options.New,
    *,
    flavor: Annotated[str, typer.Option(help="The flavor's name or id.")],
    image: Annotated[str | None, typer.Option(help="The image to boot from.")] = None,
    boot_volume: Annotated[str | None, typer.Option(help="The volume to boot from, instead of an image.")] = None,
    network: Annotated[list[str] | None, typer.Option(help="A network to join; may be repeated.")] = None,
    volume: Annotated[list[str] | None, typer.Option(help="A volume to attach; may be repeated.")] = None,
    keypair: Annotated[str | None, typer.Option(help="The keypair to let in.")] = None,
    user_data: Annotated[
        Path | None, typer.Option(help="A file for cloud-init.", exists=True, dir_okay=False, readable=True)
    ] = None,
    hypervisor: Annotated[str | None, typer.Option(help="KVM, ESXI or SIM; any by default.")] = None,
    zone: Annotated[str | None, typer.Option(help="The availability zone.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="key=value; may be repeated.")] = None,
    tag: options.Tags = None,
    description: options.Description = "",
    count: Annotated[int, typer.Option(min=1, max=100, help="So many alike.")] = 1,
    plan: Annotated[
        bool, typer.Option("--plan", help="Make nothing: say whether it would work, where the limits are, and why not.")
    ] = False,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Create a server, or several alike. With --plan nothing is made; exit code 1 means that it would not work."""
    pairs = [_pair(each) for each in metadata or ()]
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        wanted: dict[str, Any] = {
            "name": name,
            "tenantId": cloud.tenant,
            "flavorId": cloud.find(nouns.FLAVOR, flavor),
            "imageId": cloud.find_maybe(nouns.IMAGE, image),
            "bootVolumeId": cloud.find_maybe(nouns.VOLUME, boot_volume),
            "networks": [{"networkId": cloud.find(nouns.NETWORK, each)} for each in network or ()],
            "volumes": [{"volumeId": cloud.find(nouns.VOLUME, each)} for each in volume or ()],
            "keypairId": cloud.find_maybe(nouns.KEYPAIR, keypair),
            "userData": None if user_data is None else _user_data(user_data),
            "hypervisor": None if hypervisor is None else hypervisor.upper(),
            "availabilityZone": zone,
            "metadata": pairs,
            "tags": tag or [],
            "description": description,
            "count": count,
        }
        if plan:
            planned.show(cloud, wanted)
            return
        made = cloud.do("serverCreate", wanted)
        cloud.made(SERVER, made["servers"], made["jobs"], wait=wait, timeout_s=timeout)


@app.command()
def start(
    servers: options.Targets,
    *,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Start servers."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.each(SERVER, "serverStart", servers, wait=wait, timeout_s=timeout)


@app.command()
def stop(
    servers: options.Targets,
    *,
    grace: Annotated[int | None, typer.Option(min=0, help="Seconds the guest may take to shut down.")] = None,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Stop servers."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.each(SERVER, "serverStop", servers, {"gracefulTimeoutS": grace}, wait=wait, timeout_s=timeout)


@app.command()
def reboot(
    servers: options.Targets,
    *,
    hard: Annotated[bool, typer.Option("--hard", help="Without asking the guest.")] = False,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Reboot servers."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.each(SERVER, "serverReboot", servers, {"hard": hard}, wait=wait, timeout_s=timeout)


@app.command()
def delete(
    servers: options.Targets,
    *,
    tenant: options.Tenant = None,
    wait: options.Wait = False,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Delete servers."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        cloud.each(SERVER, "serverDelete", servers, wait=wait, timeout_s=timeout)


@app.command("console-log")
def console_log(
    server: options.Target,
    *,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="The last so many.")] = 200,
    tenant: options.Tenant = None,
    as_json: options.Json = False,
) -> None:
    """Print what the guest wrote to its console."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        public_id = cloud.find(SERVER, server)
        found = cloud.client.run(documents.CONSOLE_LOG, id=public_id, lines=lines)["server"]
        text = found["consoleLog"] if found is not None else None
        if as_json:
            output.as_json({"id": public_id, "consoleLog": text})
        elif text is None:
            output.say("There is no console log: the server has no machine, or its driver keeps none.")
        else:
            output.text(text)


@app.command("console")
def console(
    server: options.Target,
    *,
    tenant: options.Tenant = None,
    as_json: options.Json = False,
) -> None:
    """Print an address that shows the server's screen in a browser, once and within a minute."""
    with talk.cloud(machine=as_json, tenant=tenant) as cloud:
        made = cloud.do("serverConsoleCreate", {"id": cloud.find(SERVER, server)})
        if as_json:
            output.as_json({name: made[name] for name in ("url", "websocketUrl", "protocol", "expiresAt")})
        else:
            output.text(made["url"])


def _pair(text: str) -> dict[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{text} is not key=value", param_hint="--metadata")
    return {"key": key, "value": value}


def _user_data(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MOST_USER_DATA_BYTES + 1)
    if len(content) > _MOST_USER_DATA_BYTES:
        raise typer.BadParameter(f"{path} is larger than 64 KiB", param_hint="--user-data")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{path} is not UTF-8 text", param_hint="--user-data") from None
