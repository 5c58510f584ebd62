"""The second half of the demo: a server planned, made, watched, reached and metered."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.client import Problem
from gateway.demo import terrain
from gateway.demo.ground import Ground

_PLAN: Final = """query($input: ServerCreateInput!) { serverCreatePlan(input: $input) { possible addresses
 quota { resource limit used } userErrors { code message path }
 decision { considered chosen { name } smallestChange { message } counts { constraint hosts }
   verdicts { host { name } fits weight reasons { constraint message } } } } }"""
_SERVER: Final = """query($id: ID!) { server(id: $id) { id name status statusReason hypervisor addresses launchedAt
 host { name endpoint accelerator } volumes { name device sizeGib status } ports { macAddress }
 metrics { at cpuTimeNs ramMib ramUsedMib diskReadBytes diskWrittenBytes netReceivedBytes netSentBytes } } }"""
_CONSOLE: Final = "query($id: ID!) { server(id: $id) { status statusReason consoleLog(lastLines: 500) } }"
_USAGE: Final = "query($input: UsageInput!) { usage(input: $input) { totals { resource amountSeconds } } }"
MARKER: Final = "SG: DEMO user data ran"
_BOOTED: Final = "SG: READY"
_OURS: Final = "SG: BOOT"
_CONSOLE_S: Final = 180.0
_LOOK_EVERY_S: Final = 1.0
_MARK: Final = "SG: "
_METRICS_S: Final = 40.0

USER_DATA: Final = f'#!/bin/sh\necho "{MARKER} on $(hostname)" >/dev/console\n'


def _wanted(ground: Ground) -> dict[str, Any]:
    assert ground.flavor is not None  # noqa: S101 - chosen before
    return {
        "name": ground.name,
        "tenantId": ground.tenant,
        "flavorId": ground.flavor["id"],
        "imageId": ground.image,
        "hypervisor": ground.hypervisor,
        "networks": [{"networkId": ground.network, "securityGroupIds": [ground.group]}],
        "volumes": [{"volumeId": ground.volume}],
        "keypairId": ground.keypair,
        "userData": USER_DATA,
        "tags": ["demo"],
    }


def plan(ground: Ground) -> None:
    """Ask what would happen, with the scheduler's reasons, before anything does. Raises Problem when it cannot be."""
    with ground.stage.act("Ask for the plan") as act:
        found = ground.client.run(_PLAN, input=_wanted(ground))["serverCreatePlan"]
        decision = found["decision"] or {}
        chosen = (decision.get("chosen") or {}).get("name", "no host")
        act.note = f"{chosen}, of {decision.get('considered', 0)} considered; address {', '.join(found['addresses'])}"
    verdicts = decision.get("verdicts") or []
    if verdicts:
        rows = [
            (
                (each["host"] or {}).get("name", "?"),
                "fits" if each["fits"] else "does not fit",
                f"{each['weight']:.3f}" if each["fits"] else "",
                "; ".join(reason["message"] for reason in each["reasons"]),
            )
            for each in verdicts[:8]
        ]
        ground.stage.table(("host", "verdict", "weight", "why not"), rows, "Placement")
    used = [(each["resource"], str(each["used"]), str(each["limit"])) for each in found["quota"]]
    ground.stage.table(("quota", "used then", "limit"), used)
    if not found["possible"]:
        for each in found["userErrors"]:
            raise Problem(each["code"], each["message"], path=each["path"])
        change = (decision.get("smallestChange") or {}).get("message")
        hope = f"; it would fit if you {change}." if change else "."
        raise Problem("NO_VALID_HOST", f"No host can take the server{hope}")


def make(ground: Ground) -> dict[str, Any]:
    """Make the server and follow its job; the server."""
    made = ground.left.make("server", "serverCreate", "job { id }", **_wanted(ground))
    server, job = made["server"]["id"], made["job"]["id"]
    ground.stage.job("Make the server", lambda tell: ground.client.follow(job, tell, deadline_s=600.0))
    found: dict[str, Any] = ground.client.run(_SERVER, id=server)["server"]
    host = found["host"] or {}
    disks = ", ".join(f"{each['name']} as {each['device']} ({each['sizeGib']} GiB)" for each in found["volumes"])
    ground.stage.table(
        ("server", ""),
        [
            ("id", found["id"]),
            ("status", found["status"]),
            ("runs on", f"{host.get('name', '?')} ({host.get('accelerator') or found['hypervisor']})"),
            ("addresses", ", ".join(found["addresses"])),
            ("volumes", disks),
        ],
    )
    return found


def watch_console(ground: Ground, server: dict[str, Any]) -> None:
    """Show what the guest wrote on its serial port, once it is up. Raises Problem when our own guest does not come up.

    The API has no push for a console: the log is asked for once a second, for a bounded time.
    """
    simulated = server["hypervisor"] == "SIM"
    with ground.stage.act("Read the guest's console") as act:
        text = _until_up(ground, server["id"], simulated=simulated)
        act.note = f"{len(_lines(text))} lines"
    if simulated:
        ground.stage.say("This guest is simulated: no code runs, and the log above is made up.", "yellow")
    elif _BOOTED not in text and _OURS in text:
        raise Problem("TIMEOUT", f"The guest began to boot and was not ready within {_CONSOLE_S:.0f} seconds.")
    elif MARKER not in text and _OURS in text:
        raise Problem("USER_DATA", "The guest came up, but its user data did not run.")
    elif not text:
        ground.stage.say("The guest wrote nothing on its serial port.", "yellow")


def _until_up(ground: Ground, server: str, *, simulated: bool) -> str:
    """All that the guest wrote until it was up; lines are shown as they come."""
    until = time.monotonic() + _CONSOLE_S
    shown, text = 0, ""
    while time.monotonic() < until:
        found = ground.client.run(_CONSOLE, id=server)["server"]
        text = found["consoleLog"] or text
        told = _telling(text, simulated=simulated)
        for line in told[shown:]:
            ground.stage.say(line[:150], "green" if _MARK in line else "dim")
        shown = max(shown, len(told))
        if found["status"] not in {"ACTIVE", "UNKNOWN"}:
            reason = found["statusReason"] or "no reason told"
            raise Problem("INVALID_STATE", f"The server is {found['status']}: {reason}.")
        if is_up(text, simulated=simulated):
            return text
        time.sleep(_LOOK_EVERY_S)
    return text


def is_up(text: str, *, simulated: bool) -> bool:
    """Whether a console's text says that the guest is up. A line of our guest counts when it is whole, for only then is
    it shown; a login prompt never ends in a newline.
    """
    return _BOOTED in text.rpartition("\n")[0] or (bool(text) and (simulated or "login:" in text))


def _lines(text: str) -> list[str]:
    return [each.rstrip() for each in text.splitlines() if each.strip()]


def _telling(text: str, *, simulated: bool) -> list[str]:
    """The lines that say most: our guest's markers; all whole lines of a guest that has none."""
    whole = _lines(text if simulated else text.rpartition("\n")[0])
    return [each for each in whole if _MARK in each] if _OURS in text else whole


def reach(ground: Ground, server: dict[str, Any]) -> None:
    """Ask the guest's web server, where the guest really runs on this machine."""
    host = server["host"] or {}
    if server["hypervisor"] == "SIM":
        ground.stage.say(
            "Nothing answers at its address, since it is simulated: the HTTP request is left out.", "yellow"
        )
    elif not terrain.is_here(server["hypervisor"], host.get("endpoint")):
        ground.stage.say(
            f"It runs on {host.get('name', 'a host')}, not on this machine: the HTTP request is left out.", "yellow"
        )
    else:
        with ground.stage.act("Ask the guest by HTTP") as act:
            try:
                act.note = terrain.page_of(server["addresses"][0])
            except OSError as error:
                raise Problem("GUEST_SILENT", str(error)) from error


def meter(ground: Ground, server: dict[str, Any], begun: datetime) -> None:
    """The server's newest counters, and what the tenant used so far."""
    with ground.stage.act("Read its counters") as act:
        found = _until_sampled(ground, server["id"])
        act.note = "" if found is None else f"of {found['at'][:19]}Z"
    if found is not None:
        ground.stage.table(
            ("CPU time", "memory", "disk read", "written", "net in", "out"),
            [
                (
                    f"{int(found['cpuTimeNs'] or 0) / 1e9:.2f} s",
                    f"{found['ramUsedMib'] if found['ramUsedMib'] is not None else '?'} of {found['ramMib']} MiB",
                    *(f"{int(found[name] or 0) / 1e6:.2f} MB" for name in
                      ("diskReadBytes", "diskWrittenBytes", "netReceivedBytes", "netSentBytes")),
                )
            ],
        )  # fmt: skip
    end = datetime.now(UTC) + timedelta(minutes=1)
    period = {"tenantId": ground.tenant, "start": begun.isoformat(), "end": end.isoformat()}
    with ground.stage.act("Read the meter"):
        totals = ground.client.run(_USAGE, input=period)["usage"]["totals"]
    ground.stage.table(
        ("used", "amount x seconds"), [(each["resource"], each["amountSeconds"]) for each in totals], "Metered usage"
    )


def _until_sampled(ground: Ground, server: str) -> dict[str, Any] | None:
    """The newest sample, waited for until the cloud's next round of samples."""
    until = time.monotonic() + _METRICS_S
    while True:
        metrics: dict[str, Any] | None = ground.client.run(_SERVER, id=server)["server"]["metrics"]
        if metrics is not None or time.monotonic() > until:
            return metrics
        time.sleep(_LOOK_EVERY_S)
