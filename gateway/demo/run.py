"""The demo from beginning to end. Whatever happens, it takes away what it made and says how it went."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from gateway.client import Client, Problem
from gateway.demo import ground as grounds
from gateway.demo import guest
from gateway.demo.ground import Ground
from gateway.demo.leftovers import Leftovers
from gateway.demo.stage import Stage
from gateway.kernel.settings import Settings

_REMAINS: Final = """query($id: ID!) {
 tenant(id: $id) { id deletedAt }
 servers(filter: { tenantId: $id }) { totalCount } volumes(filter: { tenantId: $id }) { totalCount }
 images(filter: { tenantId: $id }) { totalCount } networks(filter: { tenantId: $id }) { totalCount }
 subnets(filter: { tenantId: $id }) { totalCount } ports(filter: { tenantId: $id }) { totalCount } }"""
_PATIENCE_S: Final = 10.0


def run(settings: Settings, image: Path | None, *, keep: bool = False) -> int:
    """Do the demo against the gateway of these settings; the exit code.

    ``image`` is the guest image's file; without one a simulated guest gets a small made-up disk. ``keep`` leaves
    everything standing.
    """
    stage = Stage.open()
    with Client(settings.url, patience_s=_PATIENCE_S) as client:
        left = Leftovers(client)
        left.interruption.listen()
        ground = Ground(client, stage, left, f"demo-{secrets.token_hex(3)}")
        failed = 0
        try:
            _play(ground, settings, image)
        except Problem as problem:
            failed = _tell(stage, problem)
        except KeyboardInterrupt:
            stage.say("Interrupted.", "yellow")
            failed = 130
        if keep and not failed:
            stage.chapter("Everything stays")
            stage.say(f"Everything is in the tenant {ground.name} ({ground.tenant}).")
            return 0
        try:
            return _end(ground) or failed
        except KeyboardInterrupt:
            stage.say(f"Interrupted: what is left is in the tenant {ground.name}.", "yellow")
            return 130


def _play(ground: Ground, settings: Settings, image: Path | None) -> None:
    stage = ground.stage
    stage.title("Stratograph demo", (
        f"The main job of a cloud, by the public API of {settings.url} only:",
        "a server with a network, an image, a volume, a key and user data, and everything deleted again.",
    ))  # fmt: skip
    begun = datetime.now(UTC) - timedelta(minutes=1)
    stage.chapter("What a server needs")
    with stage.act("Sign in as admin"):
        ground.client.sign_in("admin", _password(settings))
    grounds.choose_hypervisor(ground)
    grounds.make_tenant(ground)
    grounds.make_network(ground)
    grounds.make_image(ground, image)
    grounds.make_rest(ground)
    stage.chapter("What would happen")
    guest.plan(ground)
    stage.chapter("The server")
    server = guest.make(ground)
    guest.watch_console(ground, server)
    guest.reach(ground, server)
    stage.chapter("What it used")
    guest.meter(ground, server, begun)


def _password(settings: Settings) -> str:
    if settings.admin_password is not None:
        return settings.admin_password
    path = settings.state_dir / "admin-password"
    try:
        return path.read_text().strip()
    except OSError as error:
        message = f"Set STRATOGRAPH_ADMIN_PASSWORD, or run the demo where the gateway runs: {error}"
        raise Problem("UNAUTHENTICATED", message) from None


def _end(ground: Ground) -> int:
    """Delete everything, show that nothing is left, sign out; the exit code."""
    stage = ground.stage
    code = 0
    if ground.left.kept:
        stage.chapter("Everything is deleted again")
        try:
            if not ground.left.clear(stage):
                code = 1
            code = _show_remains(ground) or code
        except Problem as problem:
            code = _tell(stage, problem)
    try:
        ground.client.sign_out()
    except Problem as problem:
        code = _tell(stage, problem)
    stage.console.print()
    stage.say(f"Done in {stage.seconds:.1f} s.", "bold green") if not code else None
    return code


def _show_remains(ground: Ground) -> int:
    if not ground.tenant:
        return 0
    found = ground.client.run(_REMAINS, id=ground.tenant)
    tenant = found.pop("tenant")
    counts = {name: each["totalCount"] for name, each in found.items()}
    there = tenant is not None and tenant["deletedAt"] is None
    ground.stage.table(
        ("left", ""),
        [*((name, str(count)) for name, count in counts.items()), ("tenant", "there" if there else "gone")],
    )
    return 1 if there or any(counts.values()) else 0


def _tell(stage: Stage, problem: Problem) -> int:
    stage.console.print()
    stage.say(f"The demo stopped. {problem}", "bold red")
    for each in problem.others:
        stage.say(str(each), "red")
    if problem.request_id is not None:
        stage.say(f"The cloud's log knows it as request {problem.request_id}.", "dim")
    return 1
