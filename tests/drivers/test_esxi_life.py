"""What an ESXi host looks like to another client after the driver worked on it, and what guests are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import Deadline, Driver, HostAtFault, Power, PowerAction, Refused, Snapshots
from drivers.esxi import DRIVER
from drivers.esxi.options import Options, SeedWay, read
from drivers.esxi.segments import choose_vlan, group_name
from tests.drivers.esxi_host import (
    MIB,
    SECONDS,
    config_of,
    connect,
    content,
    content_of,
    image,
    machine_of,
)
from tests.drivers.esxi_host import simulated as simulated_host
from tests.drivers.esxi_life import Life, nothing_of_ours
from tests.servers.esxsim import EsxSim

SEED = api.Seed({"meta-data": b'{"instance-id": "i"}', "user-data": b"#cloud-config\n", "network-config": b"{}"})


@pytest.fixture(scope="module")
def sim(program: Path) -> Iterator[EsxSim]:
    with simulated_host(program) as made:
        yield made


@pytest.fixture(scope="module")
def driver(sim: EsxSim) -> Iterator[Driver]:
    opened = connect(sim)
    yield opened
    opened.close()


@pytest.fixture
def machine(driver: Driver) -> Iterator[UUID]:
    yield from made(driver, SEED)


def made(driver: Driver, given: api.Seed | None) -> Iterator[UUID]:
    volume, machine = uuid4(), uuid4()
    driver.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS))
    disks = (api.DiskSpec(volume, "vda"),)
    spec = api.MachineSpec(machine, "m", 1, 64, disks, seed=given, firmware=api.Firmware.UEFI, marks={"server": "s"})
    driver.machines.ensure(spec, Deadline(SECONDS))
    yield machine
    driver.machines.remove(machine, Deadline(SECONDS))
    driver.volumes.remove(volume, Deadline(SECONDS))


# ------------------------------------------------------------------------------------------ machines


def test_a_machine_as_another_client_sees_it(sim: EsxSim, machine: UUID) -> None:
    config = machine_of(content_of(sim), machine).config
    told = {each.key: each.value for each in config.extraConfig}
    assert (config.firmware, config.instanceUuid) == ("efi", str(machine))
    assert (told["stratograph.id"], told["stratograph.name"], told["stratograph.mark.server"]) == (
        str(machine), "m", "s",
    )  # fmt: skip
    assert told["disk.EnableUUID"] == "TRUE"
    kinds = [type(each).__name__.rpartition(".")[2] for each in config.hardware.device]
    assert kinds.count("ParaVirtualSCSIController") == 1
    assert config.files.vmPathName.endswith(f"/machines/{machine}/{machine}.vmx")


def test_two_machines_may_have_the_same_name(driver: Driver, machine: UUID) -> None:
    for other in made(driver, None):
        named = [each.name for each in driver.machines.list(Deadline(SECONDS)) if each.id in {machine, other}]
        assert named == ["m", "m"]


def test_a_guest_with_tools_is_asked_and_one_without_is_reset(sim: EsxSim, driver: Driver, machine: UUID) -> None:
    driver.machines.power(machine, PowerAction.ON, Deadline(SECONDS))
    sim.calls()
    assert driver.machines.power(machine, PowerAction.REBOOT, Deadline(SECONDS)).power is Power.RUNNING
    assert sim.calls()["ResetVM_Task"] == 1
    assert driver.machines.power(machine, PowerAction.SHUTDOWN, Deadline(1)).power is Power.RUNNING
    sim.tools(on=True)
    try:
        sim.calls()
        assert driver.machines.power(machine, PowerAction.REBOOT, Deadline(SECONDS)).power is Power.RUNNING
        assert "ResetVM_Task" not in sim.calls()
        assert driver.machines.power(machine, PowerAction.SHUTDOWN, Deadline(SECONDS)).power is Power.OFF
    finally:
        sim.tools(on=False)


# ------------------------------------------------------------------------------------------ disks and networks


def test_disks_keep_their_content(sim: EsxSim, driver: Driver, tmp_path: Path) -> None:
    assert isinstance(driver, Snapshots)
    base, root, copy, again = image(tmp_path), uuid4(), uuid4(), uuid4()
    wanted = content()
    driver.volumes.ensure_image(base, Deadline(SECONDS))
    driver.volumes.ensure(api.VolumeSpec(root, 3 * MIB, image_id=base.id), Deadline(SECONDS))
    driver.snapshot(root, copy, Deadline(SECONDS))
    driver.volumes.ensure(api.VolumeSpec(again, 4 * MIB, snapshot_id=copy), Deadline(SECONDS))
    for name, size in ((f"volumes/{root}", 3), (f"snapshots/{copy}", 3), (f"volumes/{again}", 4)):
        (flat,) = sim.daemon.folder.glob(f"*/stratograph/*/{name}/disk-flat.vmdk")
        assert flat.read_bytes() == wanted.ljust(size * MIB, b"\0")
    for volume in (root, again):
        driver.volumes.remove(volume, Deadline(SECONDS))
    driver.remove_snapshot(copy, Deadline(SECONDS))
    driver.volumes.remove_image(base.id, Deadline(SECONDS))
    nothing_of_ours(driver)


def test_a_port_group_has_a_vlan_of_its_own_and_refuses_false_addresses(sim: EsxSim, driver: Driver) -> None:
    networks = [api.NetworkSpec(uuid4(), "n") for _ in range(3)]
    for each in networks:
        driver.networks.ensure(each, Deadline(SECONDS))
    host = content_of(sim).rootFolder.childEntity[0].hostFolder.childEntity[0].host[0]
    groups = {each.spec.name: each.spec for each in host.configManager.networkSystem.networkInfo.portgroup}
    mine = [groups[group_name(each.id)] for each in networks]
    assert len({each.vlanId for each in mine}) == 3
    for each in mine:
        assert 100 <= each.vlanId <= 399
        policy = each.policy.security
        assert (policy.allowPromiscuous, policy.macChanges, policy.forgedTransmits) == (False, False, False)
    for network in networks:
        driver.networks.remove(network.id, Deadline(SECONDS))


def test_vlans_run_out_and_are_chosen_alike_by_hosts_with_one_pool(sim: EsxSim) -> None:
    network = uuid4()
    assert choose_vlan(network, range(100, 200), set()) == choose_vlan(network, range(100, 200), set())
    assert choose_vlan(network, (5, 6), {5}) == 6
    with pytest.raises(HostAtFault):
        choose_vlan(network, (5, 6), {5, 6})
    opened = connect(sim, vlan_pool="")
    with pytest.raises(HostAtFault, match="vlan_pool"):
        opened.networks.ensure(api.NetworkSpec(uuid4(), "n"), Deadline(SECONDS))
    opened.close()
    opened = connect(sim, vswitch="nowhere")
    with pytest.raises(HostAtFault, match="vswitch"):
        opened.networks.ensure(api.NetworkSpec(uuid4(), "n"), Deadline(SECONDS))
    opened.close()


@pytest.mark.parametrize("wrong", [{"vlan_pool": "x"}, {"vlan_pool": "0-5"}, {"vlan_pool": "9-5"}, {"seed": "no"}])
def test_wrong_options_are_refused_at_connect(sim: EsxSim, wrong: dict[str, str]) -> None:
    with pytest.raises(Refused):
        DRIVER.connect(config_of(sim, **wrong), Deadline(SECONDS))


def test_options_as_they_are_read(sim: EsxSim) -> None:
    found = read(config_of(sim, vlan_pool="7, 100-102", datastore="d", vswitch="v", seed="iso"))
    assert found == Options("d", (7, 100, 101, 102), "v", SeedWay.ISO)


def test_a_datastore_that_is_not_there_is_refused(sim: EsxSim) -> None:
    opened = connect(sim, datastore="nowhere")
    with pytest.raises(Refused, match="LocalDS_0"):
        opened.volumes.list(Deadline(SECONDS))
    opened.close()


# ------------------------------------------------------------------------------------------ vCenter


def test_a_machines_life_through_vcenter(program: Path, tmp_path: Path) -> None:
    with simulated_host(program, mode="vcenter") as vcenter:
        first, second = connect(vcenter, host="DC0_H0"), connect(vcenter, host="DC0_H1")
        life = Life(first, image(tmp_path, MIB), lambda _: nothing_of_ours(second))
        life.run()
        assert life.transients == 0
        nothing_of_ours(first)
        first.close()
        second.close()
