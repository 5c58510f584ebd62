"""Servers that the cloud leans on go away and come back: jobs wait and get done, and the API says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drivers.api import Transient
from gateway.client import Client
from tests.end_to_end.processes import asked, cloud, status, wait_for
from tests.end_to_end.scene import Scene, centre_of, small_disk
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitServer

ANSWER_S = 20.0


def test_without_its_broker_the_sweep_delivers(tmp_path: Path, private_rabbit: RabbitServer) -> None:
    with cloud(tmp_path / "cloud", workers=1, broker_url=private_rabbit.url) as here:
        gateway = here.gateways[0]
        client = gateway.client()
        scene = Scene.make(client, small_disk(tmp_path))
        scene.make_server(name="before")
        private_rabbit.kill()
        server, job = scene.ask_server(name="meanwhile")
        wait_for("the gateway's word", lambda: asked(f"{gateway.url}/readyz")["broker"] == "away")
        assert client.follow(job, deadline_s=120)["status"] == "SUCCEEDED"
        assert scene.server(server)["status"] == "ACTIVE"
        assert asked(f"{gateway.url}/readyz")["broker"] == "away"
        private_rabbit.restart()
        scene.make_server(name="after")
        wait_for("the gateway's word", lambda: asked(f"{gateway.url}/readyz")["broker"] == "ok")


def test_a_database_that_hangs_is_told_and_survived(tmp_path: Path, private_postgres: PostgresServer) -> None:
    url = private_postgres.create_database()
    with cloud(tmp_path / "cloud", database_url=url) as here:
        gateway = here.gateways[0]
        client = gateway.client()
        scene = Scene.make(client, small_disk(tmp_path))
        centre_of(here.state).latency("machines.ensure", 3_000)
        _, job = scene.ask_server()
        private_postgres.pause()
        try:
            wait_for("the gateway's word", lambda: status(f"{gateway.url}/readyz") == 503, ANSWER_S)
            assert status(f"{gateway.url}/healthz") == 200
        finally:
            private_postgres.resume()
        wait_for("the recovery", lambda: status(f"{gateway.url}/readyz") == 200, ANSWER_S)
        assert client.follow(job, deadline_s=90)["status"] == "SUCCEEDED"


def test_a_database_that_is_killed_and_comes_back(tmp_path: Path, private_postgres: PostgresServer) -> None:
    url = private_postgres.create_database()
    with cloud(tmp_path / "cloud", database_url=url) as here:
        gateway = here.gateways[0]
        scene = Scene.make(gateway.client(patience_s=30), small_disk(tmp_path))
        private_postgres.kill()
        wait_for("the gateway's word", lambda: status(f"{gateway.url}/readyz") == 503, ANSWER_S)
        private_postgres.restart()
        wait_for("the recovery", lambda: status(f"{gateway.url}/readyz") == 200, ANSWER_S)
        scene.make_server()


def test_a_driver_call_that_hangs_hits_its_deadline(tmp_path: Path) -> None:
    """The step is told to be tried again, the API goes on answering, and another host's calls are not held up."""
    with cloud(tmp_path / "cloud") as here:
        client = here.gateways[0].client()
        scene = Scene.make(client, small_disk(tmp_path))
        centre = centre_of(here.state)
        server = scene.make_server()
        centre.hang("machines.power", times=1)
        job = client.do("serverStop", "job { id }", id=server, gracefulTimeoutS=3)["job"]["id"]
        told: list[dict[str, Any]] = []
        client.follow(job, told.append, deadline_s=120)
        assert scene.server(server)["status"] == "STOPPED"
        assert told[-1]["steps"][0]["attempt"] == 2
        assert any("Trying again" in (each["steps"][0]["message"] or "") for each in told)


def test_a_host_that_is_away_makes_jobs_wait(tmp_path: Path) -> None:
    with cloud(tmp_path / "cloud") as here:
        client = here.gateways[0].client()
        scene = Scene.make(client, small_disk(tmp_path))
        centre = centre_of(here.state)
        server = scene.make_server()
        centre.down(Transient)
        wait_for("the host's word", lambda: _host(client)["status"] == "OFFLINE", 40)
        wait_for("the server's word", lambda: scene.server(server)["status"] == "UNKNOWN", 40)
        job = client.do("serverDelete", "job { id }", id=server)["job"]["id"]
        centre.up()
        client.follow(job, deadline_s=90)
        wait_for("the host's word", lambda: _host(client)["status"] == "ONLINE", 40)
        assert centre.snapshot_of_world().machines == {}


def _host(client: Client) -> Any:
    return client.run("{ hosts { nodes { status statusReason } } }")["hosts"]["nodes"][0]


def test_what_a_fresh_gateway_answers(tmp_path: Path) -> None:
    with cloud(tmp_path / "cloud") as here:
        url = here.gateways[0].url
        paths = ("/healthz", "/readyz", "/metrics", "/", "/playground")
        assert {path: status(url + path) for path in paths} == dict.fromkeys(paths, 200)
