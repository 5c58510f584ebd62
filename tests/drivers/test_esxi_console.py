"""A machine's screen on a vSphere simulator: tickets, whom the driver trusts with one, and the way of the bytes."""

from __future__ import annotations

import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from drivers.api import (
    Capability,
    Deadline,
    DiskSpec,
    DriverError,
    HostAtFault,
    MachineSpec,
    PowerAction,
    Refused,
    Transient,
    Unsupported,
    VolumeSpec,
)
from drivers.contracts.console import ask, shown
from drivers.contracts.rig import wait_for
from drivers.esxi import console
from drivers.esxi.connection import EsxiConnection
from tests.compute.screens import serving
from tests.drivers.esxi_host import MIB, SECONDS, connect, content_of, machine_of, program_in, simulated
from tests.drivers.test_esxi_cloud import Mixed
from tests.servers.esxsim import EsxSim
from tests.world import World

SIZE = (64, 48)


@dataclass
class Host:
    """A simulated host with one machine that runs."""

    sim: EsxSim
    driver: EsxiConnection
    machine: UUID

    def open(self, seconds: float = SECONDS) -> socket.socket:
        """Its screen."""
        line = self.driver.open_console(self.machine, Deadline(seconds))
        line.settimeout(SECONDS)
        return line

    def ticket(self) -> Any:
        """A ticket as another client gets one."""
        return machine_of(content_of(self.sim), self.machine).AcquireTicket("webmks")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with simulated(program_in(tmp_path_factory)) as sim:
        driver = connect(sim)
        assert isinstance(driver, EsxiConnection)
        volume, machine = uuid4(), uuid4()
        driver.volumes.ensure(VolumeSpec(volume, 4 * MIB), Deadline(SECONDS))
        driver.machines.ensure(MachineSpec(machine, "m", 1, 64, (DiskSpec(volume, "vda"),)), Deadline(SECONDS))
        driver.machines.power(machine, PowerAction.ON, Deadline(SECONDS))
        yield Host(sim, driver, machine)
        driver.close()


@pytest.fixture(autouse=True)
def _as_before(host: Host) -> Iterator[None]:
    host.sim.ticket()
    host.sim.calls()
    yield
    host.sim.ticket()
    wait_for(lambda: not carrying(), SECONDS, "every console that was opened is let go of")


def carrying() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "esxi-console"]


def test_fragments_pings_and_long_runs_arrive_as_one_stream(host: Host) -> None:
    """The simulator greets in two fragments with a ping between, and refuses frames that are not masked."""
    asked = 300  # 3.5 MiB, more than the sockets on the way hold: who reads nothing is waited for
    with host.open() as line:
        assert shown(line) == SIZE
        assert ask(line) == b"\0\0\0\0"
        line.sendall(struct.pack(">BB4H", 3, 0, 0, 0, *SIZE) * asked)
        one = 16 + 4 * SIZE[0] * SIZE[1]
        left = one * asked
        while left:
            piece = line.recv(min(left, 1 << 16))
            assert piece
            left -= len(piece)
        assert ask(line) == b"\0\0\0\0"


def test_a_ticket_opens_once_and_not_for_long(host: Host) -> None:
    site = host.driver._site
    ticket = host.ticket()
    wire, _ = console._open(site, ticket, Deadline(SECONDS))
    wire.close()
    with pytest.raises(HostAtFault, match="does not take its own ticket"):
        console._open(site, ticket, Deadline(SECONDS))
    host.sim.ticket(seconds=0)
    with pytest.raises(HostAtFault, match="does not take its own ticket"):
        host.open()


def test_after_a_lost_answer_another_ticket_is_asked_for(host: Host) -> None:
    host.sim.fault("AcquireTicket", "drop")
    with host.open() as line:
        assert shown(line) == SIZE
    assert host.sim.calls()["AcquireTicket"] == 2


def test_a_session_that_ended_is_renewed(host: Host) -> None:
    host.sim.expire()
    with host.open() as line:
        assert shown(line) == SIZE


@pytest.mark.parametrize(
    ("fault", "error"),
    [("NotSupported", Unsupported), ("NoPermission", HostAtFault), ("http", Transient), ("InvalidState", Refused)],
)
def test_what_the_host_says_of_a_ticket(host: Host, fault: str, error: type[DriverError]) -> None:
    host.sim.fault("AcquireTicket", fault, times=5)
    with pytest.raises(error) as caught:
        host.open(5)
    host.sim.fault("AcquireTicket", fault, times=0)
    if isinstance(caught.value, Unsupported):
        assert caught.value.capability is Capability.GRAPHICAL_CONSOLE


def test_a_ticket_is_shown_only_to_the_host_with_the_right_certificate(host: Host) -> None:
    """``localhost`` is another host than the endpoint, 127.0.0.1: its certificate is known by the thumbprint alone."""
    der = ssl.PEM_cert_to_DER_cert(host.sim.certificate)
    for thumbprint in ("", hashlib.sha256(der).hexdigest().upper()):
        host.sim.ticket(host="localhost", thumbprint=thumbprint)
        with host.open() as line:
            assert shown(line) == SIZE
    host.sim.ticket(host="localhost", thumbprint="00" * 20)
    with pytest.raises(HostAtFault, match="not the certificate"):
        host.open()
    ticket = host.ticket()
    with pytest.raises(HostAtFault, match="not the certificate"):
        console._open(host.driver._site, ticket, Deadline(SECONDS))
    host.sim.ticket()
    ticket.host = "127.0.0.1"  # it was not said to the wrong one, so it is good still
    console._open(host.driver._site, ticket, Deadline(SECONDS))[0].close()


def test_the_same_bytes_through_the_gateway(world: World, host: Host) -> None:
    mixed = Mixed(world, host.sim)
    server = mixed.server("ESXI", security=False)
    with serving(world) as gateway:
        made = mixed.manager.do("serverConsoleCreate", "websocketUrl protocol", id=server)
        assert made["protocol"] == "WEBMKS"
        ticket = made["websocketUrl"].partition("?ticket=")[2]
        screen = gateway.dial(ticket)
        assert screen.greet() == (*SIZE, "a simulated console")
        screen.key(0x61)
        screen.ask((0, 0, *SIZE))
        assert screen.update() == bytes(4 * SIZE[0] * SIZE[1])
        assert gateway.dial(ticket).end()[0] == 4404
        mixed.act("serverStop", id=server, gracefulTimeoutS=0)
        assert screen.end() == (1000, "The console is over")
    mixed.act("serverDelete", id=server)
