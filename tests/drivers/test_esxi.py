"""The ESXi driver against the vSphere simulator: TLS, sessions, faults, and looking at machines."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import (
    Deadline,
    Driver,
    DriverError,
    HostAtFault,
    HostConfig,
    Power,
    Refused,
    Transient,
    Unsupported,
)
from drivers.contracts.rig import wait_for
from drivers.esxi import DRIVER
from tests.servers.daemon import PackageMissingError, free_port
from tests.servers.esxsim import PASSWORD, USER, EsxSim, build
from tests.servers.shared import run_folder

SECONDS = 20.0


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build(run_folder(tmp_path_factory))
    except PackageMissingError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def esxi(program: Path) -> Iterator[EsxSim]:
    """One ESXi host, shared by the tests that leave it as it is."""
    sim = EsxSim.create(program)
    yield sim
    sim.stop()


@pytest.fixture(scope="module")
def vcenter(program: Path) -> Iterator[EsxSim]:
    """A vCenter with two hosts."""
    sim = EsxSim.create(program, mode="vcenter")
    yield sim
    sim.stop()


@pytest.fixture
def own(program: Path) -> Iterator[EsxSim]:
    """An ESXi host of the test's own, to be broken."""
    sim = EsxSim.create(program)
    yield sim
    sim.stop()


def config_of(sim: EsxSim, **options: str) -> HostConfig:
    return HostConfig("esxi", sim.url, Path(), {"certificate": sim.certificate, **options}, USER, PASSWORD)


@contextmanager
def connected(config: HostConfig) -> Iterator[Driver]:
    driver = DRIVER.connect(config, Deadline(SECONDS))
    yield driver
    driver.close()


def test_a_closed_connection_is_transient(esxi: EsxSim) -> None:
    driver = DRIVER.connect(config_of(esxi), Deadline(SECONDS))
    driver.close()
    driver.close()
    with pytest.raises(Transient):
        driver.facts(Deadline(SECONDS))
    with pytest.raises(Transient):
        driver.machines.list(Deadline(SECONDS))


def test_a_passed_deadline_is_transient(esxi: EsxSim) -> None:
    with connected(config_of(esxi)) as driver:
        for verb in (driver.facts, driver.machines.list):
            with pytest.raises(Transient):
                verb(Deadline(0))


# ------------------------------------------------------------------------------------------ configuration and trust


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "http://127.0.0.1/sdk"},
        {"endpoint": "https:///sdk"},
        {"endpoint": "https://127.0.0.1:port/sdk"},
        {"endpoint": "https://root:secret@127.0.0.1/sdk"},
        {"options": {"insecure": "yes"}},
        {"options": {"certificate": "no PEM"}},
        {"options": {"ca_file": "/nonexistent/ca.pem"}},
        {"options": {"ca_file": "/nonexistent/ca.pem", "certificate": "x"}},
        {"username": None},
        {"secret": None},
    ],
)
def test_a_wrong_configuration_is_refused(esxi: EsxSim, wrong: dict[str, Any]) -> None:
    esxi.calls()
    with pytest.raises(Refused):
        DRIVER.connect(replace(config_of(esxi), **wrong), Deadline(SECONDS))
    assert esxi.calls() == {}


def test_a_certificate_of_nobody_known_is_not_trusted(esxi: EsxSim) -> None:
    """Loopback, where pyVmomi's own way in checks nothing."""
    esxi.calls()
    with pytest.raises(HostAtFault) as caught:
        DRIVER.connect(replace(config_of(esxi), options={}), Deadline(SECONDS))
    assert caught.value.vendor_code == "SSLCertVerificationError"
    assert esxi.calls() == {}


def test_an_authority_in_a_file_is_trusted(esxi: EsxSim, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(esxi.certificate)
    config = replace(config_of(esxi), options={"ca_file": str(ca_file)})
    with connected(config) as driver:
        assert driver.facts(Deadline(SECONDS)).hypervisor == "ESXi"


def test_an_authority_does_not_vouch_for_another_name_and_a_pin_needs_none(program: Path, tmp_path: Path) -> None:
    """127.0.0.2 answers with a certificate for 127.0.0.1."""
    sim = EsxSim.create(program, address="127.0.0.2")
    try:
        ca_file = tmp_path / "ca.pem"
        ca_file.write_text(sim.certificate)
        with pytest.raises(HostAtFault) as caught:
            DRIVER.connect(replace(config_of(sim), options={"ca_file": str(ca_file)}), Deadline(SECONDS))
        assert caught.value.vendor_code == "SSLCertVerificationError"
        assert sim.calls() == {}
        with connected(config_of(sim)) as driver:
            assert driver.machines.list(Deadline(SECONDS)) == []
    finally:
        sim.stop()


def test_another_hosts_certificate_is_not_the_pinned_one(esxi: EsxSim, vcenter: EsxSim) -> None:
    with pytest.raises(HostAtFault) as caught:
        DRIVER.connect(replace(config_of(esxi), options={"certificate": vcenter.certificate}), Deadline(SECONDS))
    assert caught.value.vendor_code == "SSLCertVerificationError"


def test_the_pin_holds_on_every_later_connection(own: EsxSim) -> None:
    """Somebody else listens on the port: the open driver refuses, and gives away neither session nor password."""
    with connected(config_of(own)) as driver:
        driver.facts(Deadline(SECONDS))
        own.restart()
        own.calls()
        for _ in range(3):
            with pytest.raises(HostAtFault) as caught:
                driver.facts(Deadline(SECONDS))
            assert caught.value.vendor_code == "SSLCertVerificationError"
        assert own.calls() == {}


# ------------------------------------------------------------------------------------------ sessions


def test_a_wrong_password_is_tried_once(esxi: EsxSim) -> None:
    esxi.calls()
    with pytest.raises(HostAtFault) as caught:
        DRIVER.connect(replace(config_of(esxi), secret="guess"), Deadline(SECONDS))
    assert caught.value.vendor_code == "InvalidLogin"
    assert esxi.calls()["Login"] == 1


def test_a_password_refused_later_is_never_tried_again(own: EsxSim) -> None:
    with connected(config_of(own)) as driver:
        own.expire()
        own.fault("Login", "InvalidLogin")
        own.calls()
        for _ in range(3):
            with pytest.raises(HostAtFault) as caught:
                driver.machines.list(Deadline(SECONDS))
            assert caught.value.vendor_code == "InvalidLogin"
        assert own.calls()["Login"] == 1


@pytest.mark.parametrize("empty", [False, True])
def test_an_ended_session_is_renewed_without_a_word(own: EsxSim, *, empty: bool) -> None:
    with connected(config_of(own)) as driver:
        facts = driver.facts(Deadline(SECONDS))
        own.expire(empty=empty)
        own.calls()
        assert driver.facts(Deadline(SECONDS)) == facts
        assert own.calls()["Login"] == 1


def test_eight_threads_on_a_dead_session_log_in_once(own: EsxSim) -> None:
    with connected(config_of(own)) as driver, ThreadPoolExecutor(8) as pool:
        own.delay("Login", 200)
        own.expire()
        own.calls()
        answers = [pool.submit(driver.facts, Deadline(SECONDS)) for _ in range(8)]
        assert len({each.result() for each in answers}) == 1
        assert own.calls()["Login"] == 1


# ------------------------------------------------------------------------------------------ faults


def test_a_read_whose_answer_was_lost_is_asked_once_more(own: EsxSim) -> None:
    with connected(config_of(own)) as driver:
        own.fault("RetrievePropertiesEx", "drop")
        own.calls()
        assert driver.machines.list(Deadline(SECONDS)) == []
        assert own.calls()["RetrievePropertiesEx"] == 2
        own.fault("RetrievePropertiesEx", "http", times=2)
        with pytest.raises(Transient):
            driver.machines.list(Deadline(SECONDS))


def test_a_host_that_hangs_costs_the_deadline_and_no_more(own: EsxSim) -> None:
    with connected(config_of(own)) as driver:
        own.fault("RetrievePropertiesEx", "hang")
        begun = time.monotonic()
        with pytest.raises(Transient):
            driver.machines.list(Deadline(0.3))
        assert 0.3 <= time.monotonic() - begun < 5
        assert driver.machines.list(Deadline(SECONDS)) == []


def test_connecting_to_silence_costs_the_deadline_and_to_nothing_is_the_hosts_fault(esxi: EsxSim) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = replace(config_of(esxi), endpoint=f"https://127.0.0.1:{silent.getsockname()[1]}/sdk")
        begun = time.monotonic()
        with pytest.raises(Transient):
            DRIVER.connect(config, Deadline(0.3))
        assert time.monotonic() - begun < 5
    with pytest.raises(HostAtFault):
        DRIVER.connect(replace(config, endpoint=f"https://127.0.0.1:{free_port()}/sdk"), Deadline(SECONDS))


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("NoPermission", HostAtFault),
        ("RestrictedVersion", HostAtFault),
        ("NoDiskSpace", HostAtFault),
        ("HostNotConnected", HostAtFault),
        ("SystemError", HostAtFault),
        ("TaskInProgress", Transient),
        ("ManagedObjectNotFound", Transient),
        ("InvalidPowerState", Refused),
        ("DuplicateName", Refused),
        ("NotSupported", Unsupported),
        ("MethodNotFound", Unsupported),
    ],
)
def test_each_fault_has_its_error(esxi: EsxSim, fault: str, error: type[DriverError]) -> None:
    with connected(config_of(esxi)) as driver:
        esxi.fault("RetrievePropertiesEx", fault)
        with pytest.raises(error) as caught:
            driver.machines.list(Deadline(SECONDS))
        assert "ordered" not in caught.value.reason  # the platform's own words stay in the log
        if error is not Unsupported:
            assert caught.value.vendor_code == fault


def test_an_endless_session_trouble_ends_as_transient(own: EsxSim) -> None:
    with connected(config_of(own)) as driver:
        own.fault("RetrievePropertiesEx", "NotAuthenticated", times=99)
        with pytest.raises(Transient):
            driver.machines.list(Deadline(SECONDS))


# ------------------------------------------------------------------------------------------ looking


def test_facts_of_the_simulated_host(esxi: EsxSim) -> None:
    with connected(config_of(esxi)) as driver:
        facts = driver.facts(Deadline(SECONDS))
    assert (facts.hypervisor, facts.version) == ("ESXi", "6.5.0 build 5969303")
    assert (facts.vcpus, facts.ram_mib, facts.architecture) == (2, 4095, "x86_64")
    assert facts.disk_gib > 0


def test_only_machines_with_our_mark_are_shown(own: EsxSim) -> None:
    ours, foreign, copy = uuid4(), uuid4(), uuid4()
    with connected(config_of(own)) as driver:
        assert driver.machines.list(Deadline(SECONDS)) == []
        make_machine(own, "ours", ours, mark=ours)
        make_machine(own, "foreign", foreign, mark=None)
        make_machine(own, "a copy of ours", copy, mark=ours)
        listed = driver.machines.list(Deadline(SECONDS))
        assert listed == [api.Machine(ours, "ours", Power.OFF, 2, 64, {})]
        assert driver.machines.inspect(ours, Deadline(SECONDS)) == listed[0]
        for other in (foreign, copy, uuid4()):
            assert driver.machines.inspect(other, Deadline(SECONDS)) is None


def test_power_is_what_the_host_says(own: EsxSim) -> None:
    identity = uuid4()
    machine = make_machine(own, "m", identity, mark=identity)
    with connected(config_of(own)) as driver:
        for task, power in (("PowerOn", Power.RUNNING), ("Suspend", Power.SUSPENDED), ("PowerOff", Power.OFF)):
            if task == "PowerOff":
                finished(machine.PowerOnVM_Task())
            finished(getattr(machine, f"{task}VM_Task")())
            seen = driver.machines.inspect(identity, Deadline(SECONDS))
            assert seen is not None
            assert seen.power is power


def test_a_vcenter_needs_the_hosts_name_and_shows_that_host_only(vcenter: EsxSim) -> None:
    with pytest.raises(Refused, match="DC0_H0, DC0_H1"):
        DRIVER.connect(config_of(vcenter), Deadline(SECONDS))
    with pytest.raises(Refused):
        DRIVER.connect(config_of(vcenter, host="DC0_H7"), Deadline(SECONDS))
    identity = uuid4()
    make_machine(vcenter, "on the second", identity, mark=identity, host="DC0_H1")
    with (
        connected(config_of(vcenter, host="DC0_H0")) as first,
        connected(config_of(vcenter, host="DC0_H1")) as second,
    ):
        assert first.facts(Deadline(SECONDS)).vcpus == 2
        assert first.machines.list(Deadline(SECONDS)) == []
        assert first.machines.inspect(identity, Deadline(SECONDS)) is None
        assert [each.id for each in second.machines.list(Deadline(SECONDS))] == [identity]
        assert second.machines.inspect(identity, Deadline(SECONDS)) is not None


# ------------------------------------------------------------------------------------------ an administrator's hands


def make_machine(sim: EsxSim, name: str, identity: UUID, *, mark: UUID | None, host: str | None = None) -> Any:
    """A machine as somebody with another client would make it. Answers with pyVmomi's object."""
    from pyVmomi import vim
    from pyVmomi.SoapAdapter import SoapStubAdapter

    trust = ssl.create_default_context(cadata=sim.certificate)
    stub = SoapStubAdapter(host="127.0.0.1", port=sim.port, version="vim.version.version11", sslContext=trust)
    content: Any = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
    content.sessionManager.Login(USER, PASSWORD)
    datacenter = content.rootFolder.childEntity[0]
    computers = [each for each in datacenter.hostFolder.childEntity if host in {None, each.name}]
    marks = [] if mark is None else [vim.option.OptionValue(key="stratograph.id", value=str(mark))]
    spec = vim.vm.ConfigSpec(
        name=name,
        numCPUs=2,
        memoryMB=64,
        guestId="otherLinux64Guest",
        instanceUuid=str(identity),
        extraConfig=marks,
        files=vim.vm.FileInfo(vmPathName=f"[{computers[0].host[0].datastore[0].name}]"),
    )
    pool, at = computers[0].resourcePool, computers[0].host[0]
    return finished(datacenter.vmFolder.CreateVM_Task(config=spec, pool=pool, host=at))


def finished(task: Any) -> Any:
    wait_for(lambda: task.info.state in {"success", "error"}, SECONDS, "the task ends")
    assert task.info.state == "success", task.info.error
    return task.info.result


def test_volumes_are_known_by_the_folder_of_their_file() -> None:
    """Pure: the simulator keeps no disk files with such names."""
    from pyVmomi import vim

    from drivers.esxi import reading

    identity, volume = uuid4(), uuid4()

    def disk(name: str, unit: int) -> Any:
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName=name)
        return vim.vm.device.VirtualDisk(backing=backing, unitNumber=unit)

    found = {
        "name": "m",
        "config.instanceUuid": str(identity).upper(),
        "config.extraConfig": [vim.option.OptionValue(key=reading.MARK, value=str(identity))],
        "config.hardware.numCPU": 1,
        "config.hardware.memoryMB": 64,
        "config.hardware.device": [
            disk("[ds] someone/else.vmdk", 0),
            disk(f"[ds] stratograph/volumes/{volume}/disk.vmdk", 1),
            vim.vm.device.VirtualCdrom(),
        ],
        "runtime.powerState": "poweredOn",
        "runtime.connectionState": "connected",
    }
    assert reading.our_machine(found) == api.Machine(identity, "m", Power.RUNNING, 1, 64, {volume: "sdb"})
    lost = reading.our_machine({**found, "runtime.connectionState": "disconnected"})
    assert lost is not None
    assert (lost.power, lost.reason) == (Power.UNKNOWN, "disconnected")
    assert reading.our_machine({**found, "config.extraConfig": []}) is None
