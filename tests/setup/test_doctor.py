"""The doctor says what is there, what is missing and what to do, and gives no secret away."""

from __future__ import annotations

import io
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from gateway.doctor import Finding, Report, Status, examine, show
from gateway.doctor.host import address, clock, disk, driver, ram
from gateway.doctor.hypervisor import conversion
from gateway.doctor.services import broker, database
from tests.servers.daemon import free_port
from tests.servers.postgres import PostgresServer


def test_this_machine_is_examined_whole(tmp_path: Path) -> None:
    report = examine(tmp_path, listen=f"127.0.0.1:{free_port()}", drivers={"SIM": None, "ESXI": "no address given"})
    found = {each.name: each.status for each in report.findings}
    assert report.usable
    assert report.accelerator in {"KVM", "TCG"}
    working = ["python", "sqlite", "disk", "memory", "clock", "address", "driver SIM", "qemu-system-x86_64", "qemu-img"]
    assert {name: found[name] for name in working} == dict.fromkeys(working, Status.OK)
    tools = ["dnsmasq", "nft", "iptables", "ebtables"]
    assert {name: found[name] for name in tools} == dict.fromkeys(tools, Status.OK)
    assert found["driver ESXI"] is Status.MISSING
    assert {"libvirt", "acceleration", "packet filter", "bridges"} <= found.keys()


def test_whatever_is_not_well_has_a_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        dead = f"postgresql://cloud:secret@127.0.0.1:{free_port()}/cloud"
        report = examine(
            tmp_path,
            listen=f"127.0.0.1:{taken.getsockname()[1]}",
            database_url=dead,
            broker_url=f"amqp://guest:hidden@127.0.0.1:{free_port()}/",
            drivers={"KVM": "libvirt is not installed"},
        )
    assert not report.usable
    assert {"address", "database", "broker"} == {
        each.name for each in report.findings if each.required and each.status is not Status.OK
    }
    assert all(each.remedy for each in report.findings if each.status is not Status.OK)
    assert report.status("driver KVM") is Status.MISSING
    text = shown(report)
    assert "secret" not in text
    assert "hidden" not in text
    assert "Stratograph cannot run here yet" in text


def shown(report: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_remedies_are_shown_and_brackets_survive() -> None:
    finding = Finding("broker", Status.MISSING, "no pika", "pip install 'stratograph[rabbitmq]'")
    text = shown(Report((finding,), "TCG"))
    assert "pip install 'stratograph[rabbitmq]'" in text
    assert "virtual machines run under TCG" in text


def test_an_address_where_a_gateway_answers_is_well() -> None:
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's name
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Health) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert (
            address(f"127.0.0.1:{server.server_port}").detail == f"a gateway answers on 127.0.0.1:{server.server_port}"
        )
        server.shutdown()
    assert address("192.0.2.1:80").status is Status.BROKEN


def test_a_real_database_is_reached(postgres_server: PostgresServer) -> None:
    found = database(postgres_server.url)
    assert (found.status, found.required) == (Status.OK, True)
    assert found.detail.startswith(f"postgresql+psycopg://127.0.0.1:{postgres_server.port}/postgres, version ")


def test_an_unknown_broker_is_refused() -> None:
    assert broker("kafka://127.0.0.1").status is Status.BROKEN


def test_a_full_or_forbidden_disk_and_a_wrong_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert disk(tmp_path / "not" / "yet" / "there").status is Status.OK
    assert disk(Path("/proc/nowhere")).status is Status.BROKEN
    monkeypatch.setattr("gateway.doctor.host.LEAST_DISK_BYTES", 2**63)
    assert disk(tmp_path).status is Status.BROKEN
    monkeypatch.setattr("gateway.doctor.host.LEAST_RAM_BYTES", 2**63)
    assert ram().status is Status.BROKEN
    monkeypatch.setattr("gateway.doctor.host.time.time", lambda: 0.0)
    assert clock().status is Status.BROKEN


def test_a_driver_speaks_for_itself() -> None:
    assert driver("SIM", None).status is Status.OK
    assert driver("KVM", "no libvirt").detail == "no libvirt"


def test_virt_v2v_needs_what_debian_does_not_install_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.doctor.program.SEARCH_PATH", str(tmp_path))
    assert (conversion().status, "not installed" in conversion().detail) == (Status.OK, True)
    for name in ("virt-v2v", "nbdkit"):
        (tmp_path / name).write_text("#!/bin/sh\necho virt-v2v 2.2.0\n")
        (tmp_path / name).chmod(0o755)
    found = conversion()
    assert (found.status, found.detail) == (Status.BROKEN, "it needs what is not installed: nbdcopy, qemu-nbd")
    assert found.remedy == "apt-get install libnbd-bin qemu-utils"
    for name in ("nbdcopy", "qemu-nbd"):
        (tmp_path / name).symlink_to(tmp_path / "nbdkit")
    assert (conversion().status, conversion().detail) == (Status.OK, "2.2.0")
