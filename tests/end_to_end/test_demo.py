"""`stratograph demo` as people start it, on a simulated host: several at once, on a terminal, interrupted, refused."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.client import Client
from gateway.demo.guest import is_up
from tests.end_to_end.processes import PROGRAM, Cloud, cloud, wait_for
from tests.end_to_end.scene import NO_USE, centre_of, use_of_hosts

DEMO_S = 120.0
TENANTS = "{ tenants(first: 100) { nodes { name } } }"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("demo")) as made:
        yield made


def start(here: Cloud, *arguments: str, output: Any = subprocess.PIPE, **settings: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRATOGRAPH_")}
    listen = here.gateways[0].url.removeprefix("http://")
    return subprocess.Popen(
        (PROGRAM, "demo", *arguments), env={**kept, "TERM": "xterm", **here.environment(listen=listen, **settings)},
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def nothing_is_left(here: Cloud, client: Client) -> None:
    assert [each["name"] for each in client.run(TENANTS)["tenants"]["nodes"] if each["name"].startswith("demo-")] == []
    assert use_of_hosts(client) == {"sim-1": NO_USE}
    world = centre_of(here.state).snapshot_of_world()
    assert (world.machines, world.volumes, world.networks) == ({}, {}, {})


@pytest.mark.parametrize(
    ("text", "up"),
    [
        ("", False),
        ("SG: BOOT\nSG: READY ip=1", False),
        ("SG: BOOT\nSG: READY ip=1\n", True),
        ("SG: BOOT\nSG: READY ip=1\nmore", True),
        ("Welcome\ncloud login:", True),
    ],
)
def test_a_guest_is_up_once_its_line_is_whole(text: str, *, up: bool) -> None:
    """What is not shown must not end the waiting: its last line was missing from what the demo told."""
    assert is_up(text, simulated=False) is up
    assert is_up(text, simulated=True) is bool(text)


def test_two_at_once(here: Cloud) -> None:
    demos = [start(here) for _ in range(2)]
    told = [each.communicate(timeout=DEMO_S)[0] for each in demos]
    assert [each.returncode for each in demos] == [0, 0], told
    for text in told:
        assert "\x1b" not in text
        assert "This guest is simulated" in text
        assert re.search(r"tenant +gone", text)
        assert "✗" not in text
    nothing_is_left(here, here.gateways[0].client())


def test_on_a_terminal(here: Cloud) -> None:
    ours, theirs = pty.openpty()
    demo = start(here, output=theirs)
    os.close(theirs)
    text = b""
    while True:
        try:
            text += os.read(ours, 65536)
        except OSError:  # the other end is closed: the demo has ended
            break
    os.close(ours)
    assert demo.wait(DEMO_S) == 0, text.decode()
    assert "✓".encode() in text
    assert b"\x1b[32m" in text


def test_kept_and_found(here: Cloud) -> None:
    demo = start(here, "--keep")
    told = demo.communicate(timeout=DEMO_S)[0]
    assert demo.returncode == 0, told
    (tenant,) = set(re.findall(r"tenant_[0-9a-z]{26}", told))
    client = here.gateways[0].client()
    found = client.run("query($id: ID!) { servers(filter: { tenantId: $id }) { nodes { id status tags } } }", id=tenant)
    (server,) = found["servers"]["nodes"]
    assert (server["status"], server["tags"]) == ("ACTIVE", ["demo"])
    dismantle(client, tenant, server["id"])
    nothing_is_left(here, client)


def dismantle(client: Client, tenant: str, server: str) -> None:
    """Delete what a demo kept."""

    def act(mutation: str, thing: str) -> None:
        job = client.do(mutation, "job { id }", id=thing)["job"]
        if job is not None:
            client.follow(job["id"], deadline_s=60)

    act("serverDelete", server)
    ask = """query($id: ID!) { volumes(filter: { tenantId: $id }) { nodes { id } }
     images(filter: { tenantId: $id }) { nodes { id } } networks(filter: { tenantId: $id }) { nodes { id } } }"""
    for kind, each in client.run(ask, id=tenant).items():
        for node in each["nodes"]:
            act(f"{kind.removesuffix('s')}Delete", node["id"])
    for pair in client.run("{ keypairs { nodes { id } } }")["keypairs"]["nodes"]:
        client.do("keypairDelete", "id", id=pair["id"])
    groups = client.run(
        "query($id: ID!) { securityGroups(filter: { tenantId: $id }) { nodes { id isDefault } } }", id=tenant
    )
    for group in groups["securityGroups"]["nodes"]:
        if not group["isDefault"]:
            client.do("securityGroupDelete", "id", id=group["id"])
    client.do("tenantDelete", "tenant { id }", id=tenant)


def test_interrupted_it_cleans_up(here: Cloud) -> None:
    centre = centre_of(here.state)
    centre.latency("machines.ensure", 3_000)
    try:
        demo = start(here)
        client = here.gateways[0].client()
        jobs = '{ jobs(filter: { kind: "server.create", live: true }) { nodes { id } } }'
        wait_for("the server's job", lambda: client.run(jobs)["jobs"]["nodes"], DEMO_S)
        demo.send_signal(signal.SIGTERM)
        told = demo.communicate(timeout=DEMO_S)[0]
    finally:
        centre.heal()
    assert demo.returncode == 130, told
    assert "Interrupted." in told
    nothing_is_left(here, client)


def test_a_wrong_password_ends_with_the_reason(here: Cloud) -> None:
    demo = start(here, admin_password="not the password")
    told = demo.communicate(timeout=DEMO_S)[0]
    assert demo.returncode == 1
    assert "UNAUTHENTICATED" in told


def test_an_image_that_is_none_ends_with_the_reason_and_cleans_up(here: Cloud, tmp_path: Path) -> None:
    poor = tmp_path / "poor.qcow2"
    poor.write_bytes(b"QFI\xfb" + b"\xff" * 4092)
    demo = start(here, "--image", str(poor))
    told = demo.communicate(timeout=DEMO_S)[0]
    assert demo.returncode == 1, told
    assert "IMAGE_REFUSED" in told
    nothing_is_left(here, here.gateways[0].client())
