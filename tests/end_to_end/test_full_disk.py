"""The disk under the state directory fills up: what cannot be written is refused in so many words, what is under way
waits, reading goes on, and with room again everything ends as if nothing had been.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.client import Problem
from tests.end_to_end.processes import Cloud, asked, cloud, status
from tests.end_to_end.scene import Scene, centre_of, small_disk

SIZE = "300m"
CHUNK = bytes(1 << 16)


def _fill(state: Path) -> Path:
    """Take all room that is left, to the last byte; the file that holds it."""
    ballast = state / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for chunk in (CHUNK, CHUNK[:4096], b"\0"):
            try:
                while file.write(chunk) == len(chunk):
                    pass
            except OSError:
                continue
    return ballast


def _inside(here: Cloud) -> Path:
    """The state directory as the gateway sees it: the small disk is mounted for it alone."""
    return Path(f"/proc/{here.gateways[0].pid}/root{here.state}")


def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    with cloud(tmp_path / "cloud", disk=SIZE) as here:
        gateway = here.gateways[0]
        client = gateway.client()
        scene = Scene.make(client, small_disk(tmp_path))
        server = scene.make_server(name="before")
        centre_of(_inside(here)).latency("machines.ensure", 2_000)
        _, job = scene.ask_server(name="under way")
        ballast = _fill(_inside(here))
        try:
            with pytest.raises(Problem) as refused:
                scene.ask_server(name="meanwhile")
            assert refused.value.code == "UNAVAILABLE"
            assert scene.server(server)["status"] == "ACTIVE"
            assert status(f"{gateway.url}/healthz") == 200
            assert asked(f"{gateway.url}/readyz") == {"status": "ready", "broker": "ok", "disk": "full"}
        finally:
            ballast.unlink()
        assert asked(f"{gateway.url}/readyz") == {"status": "ready", "broker": "ok", "disk": "ok"}
        assert client.follow(job, deadline_s=90)["status"] == "SUCCEEDED"
        names = client.run("{ servers { nodes { name status } } }")["servers"]["nodes"]
        assert sorted((each["name"], each["status"]) for each in names) == [
            ("before", "ACTIVE"),
            ("under way", "ACTIVE"),
        ]
        scene.make_server(name="after")
