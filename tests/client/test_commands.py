"""What a user does all day, with the real command against a running cloud: make, look, change, follow, delete."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.client import Client
from tests.client.conftest import Terminal
from tests.end_to_end.processes import PROGRAM, wait_for
from tests.end_to_end.scene import Scene, small_disk

TIMEOUT = ("--timeout", "60")


def _tenant(client: Client, scene: Scene) -> str:
    name: str = client.run("query($id: ID!) { tenant(id: $id) { name } }", id=scene.tenant)["tenant"]["name"]
    return name


def test_a_servers_life(signed_in: Terminal, client: Client, scene: Scene, tmp_path: Path) -> None:
    here = ("--tenant", _tenant(client, scene))
    data = tmp_path / "user-data"
    data.write_text("#!/bin/sh\necho hello\n")
    made = signed_in.ok(
        "server", "create", "web", "--flavor", "tiny", "--image", "disk", "--network", "net", "--hypervisor", "sim",
        "--user-data", data, "--metadata", "role=front=end", "--tag", "blue", *here, "--wait", *TIMEOUT, "--json",
    ).json  # fmt: skip
    [server], [job] = made["servers"], made["jobs"]
    assert (server["status"], server["tags"]) == ("ACTIVE", ["blue"])
    assert server["metadata"] == [{"key": "role", "value": "front=end"}]
    assert [server[name]["name"] for name in ("flavor", "image", "tenant")] == ["tiny", "disk", here[1]]
    assert (job["kind"], job["status"], job["progress"]) == ("server.create", "SUCCEEDED", 1.0)

    assert [each["id"] for each in signed_in.ok("server", "list", *here, "--json").json] == [server["id"]]
    assert signed_in.ok("server", "list", *here, "--status", "stopped", "--json").json == []
    assert signed_in.ok("server", "show", "web", *here, "--json").json == server
    table = signed_in.ok("server", "list", *here).out
    assert [each for each in ("web", "ACTIVE", "tiny", server["id"], "10.77.0.2") if each not in table] == []
    assert "user" not in signed_in.ok("server", "show", server["id"]).err

    stopped = signed_in.ok("server", "stop", "web", "--grace", "1", *here, "--wait", "--json").json
    assert [each["status"] for each in stopped["jobs"]] == ["SUCCEEDED"]
    refused = signed_in.run("server", "reboot", "web", *here, "--json")
    assert (refused.code, refused.out) == (1, "")
    [error] = json.loads(refused.err)["errors"]
    assert (error["code"], error["data"]["current"]) == ("INVALID_STATE", "STOPPED")
    signed_in.ok("server", "start", "web", *here, "--wait")
    signed_in.ok("server", "reboot", "web", "--hard", *here, "--wait")
    assert "[simulated]" in signed_in.ok("server", "console-log", "web", *here, "--lines", "50").out
    assert re.fullmatch(r"http://\S+/console#[A-Za-z0-9_-]{43}\n", signed_in.ok("server", "console", "web", *here).out)

    followed = signed_in.ok("server", "delete", "web", *here, "--wait", *TIMEOUT)
    assert followed.err.splitlines()[-1] == "server.delete SUCCEEDED"
    assert client.run("query($i: ID!) { server(id: $i) { id } }", i=server["id"])["server"] is None
    gone = signed_in.run("server", "show", "web", *here)
    assert (gone.code, gone.err) == (1, "NOT_FOUND: There is no server called web.\n")


def test_volumes_and_networks(signed_in: Terminal, scene: Scene) -> None:
    here = ("--tenant", scene.tenant)
    server = scene.make_server()
    made = signed_in.ok("volume", "create", "data", "--size-gib", "2", *here, "--wait", "--json").json
    assert [(each["name"], each["sizeGib"], each["status"]) for each in made["volumes"]] == [("data", 2, "AVAILABLE")]
    signed_in.ok("volume", "attach", "data", server, *here, "--wait")
    [listed] = signed_in.ok("volume", "list", *here, "--json").json
    assert (listed["status"], listed["server"]["id"]) == ("IN_USE", server)
    refused = signed_in.run("volume", "delete", "data", *here)
    assert refused.code == 1
    assert refused.err.splitlines()[:2] == [
        "IN_USE: The volume is attached to a server. (input id)", f'  blockers: ["{server}"]',
    ]  # fmt: skip
    signed_in.ok("volume", "detach", "data", *here, "--wait")
    signed_in.ok("volume", "delete", "data", *here, "--wait")
    assert signed_in.ok("volume", "list", *here, "--json").json == []

    net = signed_in.ok("network", "create", "inner", "--cidr", "10.9.0.0/24", *here, "--wait", "--json").json
    assert [[each["cidr"] for each in one["subnets"]] for one in net["networks"]] == [["10.9.0.0/24"]]
    assert net["jobs"] == []  # the network is on no host yet: there is nothing to do there
    assert "10.9.0.0/24" in signed_in.ok("network", "list", "--name", "inn", *here).out
    signed_in.ok("network", "delete", "inner", *here, "--wait")
    assert [each["name"] for each in signed_in.ok("network", "list", *here, "--json").json] == ["net"]


def test_an_image_goes_up_and_is_deleted(signed_in: Terminal, scene: Scene, tmp_path: Path) -> None:
    here = ("--tenant", scene.tenant)
    folder = tmp_path / "other"
    folder.mkdir()
    disk = small_disk(folder, 3 << 20)
    made = signed_in.ok("image", "upload", disk, "--name", "other", *here, "--wait", *TIMEOUT, "--json").json
    assert [(each["status"], each["sizeBytes"]) for each in made["images"]] == [("ACTIVE", 3 << 20)]
    damaged = signed_in.run("image", "upload", disk, "--name", "bad", "--sha256", "0" * 64, *here, "--wait", *TIMEOUT)
    assert damaged.code == 1
    names = {each["name"] for each in signed_in.ok("image", "list", *here, "--json").json}
    assert {"disk", "other"} <= names
    signed_in.ok("image", "delete", "other", *here, "--wait")
    assert signed_in.run("image", "show", "other", *here).code == 1


def test_an_ambiguous_name_is_refused_with_its_candidates(signed_in: Terminal, client: Client, scene: Scene) -> None:
    second = scene.make_network("10.78.0.0/24")
    ended = signed_in.run("network", "delete", "net", "--tenant", scene.tenant, "--json")
    assert ended.code == 1
    [error] = json.loads(ended.err)["errors"]
    assert error["code"] == "AMBIGUOUS"
    tenant = _tenant(client, scene)
    assert sorted(error["data"]["candidates"]) == sorted(
        f"{each} (tenant {tenant})" for each in (scene.network, second)
    )
    assert len(signed_in.ok("network", "list", "--tenant", scene.tenant, "--json").json) == 2


def test_jobs_are_watched_to_their_end(signed_in: Terminal, scene: Scene) -> None:
    _server, job = scene.ask_server()
    watched = signed_in.ok("job", "watch", job, *TIMEOUT, "--json").lines
    assert {each["id"] for each in watched} == {job}
    assert (watched[-1]["status"], watched[-1]["progress"]) == ("SUCCEEDED", 1)
    shown = signed_in.ok("job", "show", job, "--json").json
    assert {each["status"] for each in shown["steps"]} == {"DONE"}
    assert job in [each["id"] for each in signed_in.ok("job", "list", "--kind", "server.create", "--json").json]
    assert signed_in.ok("job", "list", "--target", scene.network, "--live", "--json").json == []

    unplaced, job = scene.ask_server(availabilityZone="nowhere")
    ended = signed_in.run("job", "watch", job, *TIMEOUT)
    assert ended.code == 1
    assert "NO_VALID_HOST: " in ended.err
    scene.act("serverDelete", id=unplaced)


def test_a_terminal_shows_a_bar_and_colours(signed_in: Terminal, scene: Scene) -> None:
    _server, job = scene.ask_server()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STRATOGRAPH_", "NO_COLOR"))}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        (PROGRAM, "job", "watch", job, *TIMEOUT),
        env={**kept, "XDG_CONFIG_HOME": str(signed_in.folder), "TERM": "xterm-256color", "COLUMNS": "120"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        told = b""
        with suppress(OSError):  # how a terminal's end reads on Linux
            while part := os.read(ours, 65536):
                told += part
        assert process.wait(60) == 0
    os.close(ours)
    shown = told.decode()
    assert [each for each in ("server.create", "100 %", "\u2501", "\x1b[") if each not in shown] == []


def test_a_job_is_cancelled(signed_in: Terminal, scene: Scene) -> None:
    ended = signed_in.run("job", "cancel", scene.ask_server()[1], "--wait", *TIMEOUT, "--json")
    # The job may have been quicker: then it is said so, and nothing was cancelled.
    if ended.code == 0:
        assert ended.json["status"] == "CANCELLED"
    else:
        assert json.loads(ended.err)["errors"][0]["code"] == "INVALID_STATE"
    _server, job = scene.ask_server()
    signed_in.ok("job", "watch", job, *TIMEOUT)
    late = signed_in.run("job", "cancel", job, "--json")
    assert (late.code, json.loads(late.err)["errors"][0]["code"]) == (1, "INVALID_STATE")


def test_waiting_ends_at_its_time(signed_in: Terminal, scene: Scene) -> None:
    ended = signed_in.run("gql", "subscription { events { kind } }", "--timeout", "0.5")
    assert ended.code == 3
    assert json.loads(ended.err)["errors"][0]["code"] == "TIMEOUT"
    assert scene.tenant


def test_lists_are_read_page_by_page(signed_in: Terminal, client: Client, scene: Scene) -> None:
    client.do("quotaSet", "quotas { limit }", tenantId=scene.tenant, limits=[{"resource": "NETWORKS", "limit": 200}])
    for number in range(105):
        client.do("networkCreate", "network { id }", name=f"n{number}", tenantId=scene.tenant)
    here = ("network", "list", "--tenant", scene.tenant, "--json")
    assert len({each["id"] for each in signed_in.ok(*here, "--limit", "0").json}) == 106
    assert len(signed_in.ok(*here).json) == 100
    assert len(signed_in.ok(*here, "--limit", "103").json) == 103


def test_flavors(signed_in: Terminal) -> None:
    names = [each["name"] for each in signed_in.ok("flavor", "list", "--json").json]
    assert "tiny" in names
    assert "tiny" in signed_in.ok("flavor", "list", "--min-vcpus", "1").out


def test_the_program_itself(signed_in: Terminal) -> None:
    """The installed command, as a process: plain output into a pipe, and its exit code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRATOGRAPH_")}
    done = subprocess.run(
        (PROGRAM, "flavor", "list"),
        env={**kept, "XDG_CONFIG_HOME": str(signed_in.folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiny" in done.stdout
    assert "\x1b" not in done.stdout


def test_help_loads_neither_http_nor_a_database() -> None:
    program = (
        "import sys, gateway.commands\n"
        "print([each for each in ('httpx2', 'websockets', 'pydantic', 'sqlalchemy', 'strawberry', 'graphql', 'rich')"
        " if each in sys.modules])"
    )
    done = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_commands(shell: str, tmp_path: Path) -> None:
    words = {
        "bash": {"COMP_WORDS": "stratograph server re", "COMP_CWORD": "2"},
        "zsh": {"_TYPER_COMPLETE_ARGS": "stratograph server re"},
        "fish": {"_TYPER_COMPLETE_ARGS": "stratograph server re", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        (PROGRAM,), env={**os.environ, "HOME": str(tmp_path), "_STRATOGRAPH_COMPLETE": f"complete_{shell}", **words},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "reboot" in done.stdout


def test_an_interrupt_leaves_the_work_going(signed_in: Terminal, client: Client, scene: Scene) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRATOGRAPH_")}
    with subprocess.Popen(
        # Whoever runs the tests in the background may have interrupts ignored, which processes inherit.
        ("env", "--default-signal=INT", PROGRAM, "gql", "subscription { events { kind } }"),
        env={**kept, "XDG_CONFIG_HOME": str(signed_in.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)

        def heard() -> str:
            client.do("networkCreate", "network { id }", name=f"n{time.monotonic_ns()}", tenantId=scene.tenant)
            return process.stdout.readline() if process.stdout is not None else ""

        line = wait_for("an event", heard, every_s=0.3)
        assert json.loads(line)["events"]["kind"] == "network.created"
        process.send_signal(2)
        assert process.wait(20) == 130


def test_a_plan_makes_nothing_and_says_why_not(signed_in: Terminal, client: Client, scene: Scene) -> None:
    wanted = ("server", "create", "web", "--flavor", "tiny", "--image", "disk", "--network", "net",
              "--tenant", scene.tenant, "--plan")  # fmt: skip
    good = signed_in.ok(*wanted, "--json").json
    assert (good["possible"], good["addresses"]) == (True, ["10.77.0.2"])
    assert {each["resource"]: each["used"] for each in good["quota"]}["SERVERS"] == 1
    shown = signed_in.ok(*wanted).out
    assert [each for each in ("possible", "yes", "10.77.0.2", "SERVERS") if each not in shown] == []
    nowhere = signed_in.run(*wanted, "--zone", "nowhere")
    assert nowhere.code == 1
    assert [each for each in ("no", "ZONE: 1") if each not in nowhere.out] == []
    client.do("quotaSet", "quotas { limit }", tenantId=scene.tenant, limits=[{"resource": "SERVERS", "limit": 0}])
    refused = signed_in.run(*wanted, "--json")
    assert refused.code == 1
    assert json.loads(refused.err)["errors"][0]["code"] == "QUOTA_EXCEEDED"
    assert refused.out == ""
    assert signed_in.ok("server", "list", "--tenant", scene.tenant, "--json").json == []
