"""The ESXi driver on two hosts of one cluster: what they share, moves between them, and all of it under disturbance."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import Deadline, HostAtFault, NicSpec, Power, PowerAction, Refused, Unsupported
from drivers.esxi import DRIVER
from drivers.esxi.connection import PoolConnection
from drivers.esxi.segments import group_name
from tests.drivers.esxi_host import (
    CLUSTER,
    MIB,
    SECONDS,
    config_of,
    connect,
    content_of,
    machine_of,
    program_in,
    simulated,
)
from tests.servers.esxsim import EsxSim

WRITES = (
    "AddDVPortgroup_Task",
    "CreateSnapshot_Task",
    "CreateVM_Task",
    "Destroy_Task",
    "PowerOnVM_Task",
    "RebootGuest",
    "ReconfigVM_Task",
    "ReconfigureDVPortgroup_Task",
    "RelocateVM_Task",
    "RemoveSnapshot_Task",
    "RevertToSnapshot_Task",
    "ShutdownGuest",
    "SuspendVM_Task",
    "UnregisterVM",
)
HOSTS = ("DC0_C0_H0", "DC0_C0_H1")


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory), mode="cluster") as made:
        made.delay("*", 5)
        made.tools(on=True)
        yield made


@pytest.fixture(scope="module")
def two(sim: EsxSim) -> Iterator[tuple[PoolConnection, PoolConnection]]:
    opened = [connect(sim, host=host, **CLUSTER) for host in HOSTS]
    first, second = opened
    assert isinstance(first, PoolConnection)
    assert isinstance(second, PoolConnection)
    yield first, second
    for each in opened:
        each.close()


def within() -> Deadline:
    return Deadline(SECONDS)


def again(verb: Callable[..., Any], *arguments: Any) -> Any:
    """Asked again while the answer is Transient, as two lost answers in one verb are."""
    deadline = within()
    while True:
        try:
            return verb(*arguments, within())
        except api.Transient:
            deadline.check("asking again")
            time.sleep(0.01)


@dataclass
class Life:
    """A machine on a network of two hosts, moved, suspended, snapshotted and re-plugged."""

    sim: EsxSim
    first: PoolConnection
    second: PoolConnection
    volume: UUID = field(default_factory=uuid4)
    machine: UUID = field(default_factory=uuid4)
    network: api.NetworkSpec = field(default_factory=lambda: api.NetworkSpec(uuid4(), "n"))
    snapshot: UUID = field(default_factory=uuid4)

    def port(self, number: int) -> api.PortSpec:
        mac = f"52:54:00:00:01:{number:02x}"
        return api.PortSpec(
            UUID(int=self.machine.int ^ number), self.network.id, mac, (f"10.0.0.{number}",), rules=None
        )

    def begin(self) -> None:
        again(self.first.volumes.ensure, api.VolumeSpec(self.volume, MIB))
        for host in (self.first, self.second):
            again(host.networks.ensure, self.network)
            for number in (1, 2):
                again(host.networks.ensure_port, self.port(number))
        nic = NicSpec(self.port(1).id, self.network.id, self.port(1).mac)
        spec = api.MachineSpec(self.machine, "m", 1, 64, (api.DiskSpec(self.volume, "vda"),), (nic,))
        again(self.first.machines.ensure, spec)

    def run(self, look: Callable[[Life], None] = lambda _: None) -> None:
        self.begin()
        first, second, machine = self.first, self.second, self.machine
        assert self.power(PowerAction.ON) is Power.RUNNING
        assert self.power(PowerAction.SUSPEND) is Power.SUSPENDED
        assert self.power(PowerAction.ON) is Power.RUNNING
        again(first.plug_port, machine, NicSpec(self.port(2).id, self.network.id, self.port(2).mac))
        assert set(again(first.plugged_ports, machine)) == {self.port(1).id, self.port(2).id}
        made = again(partial(first.snapshot_machine, memory=True), machine, self.snapshot)
        assert made == api.MachineSnapshot(self.snapshot, None, memory=True, current=True)
        assert self.power(PowerAction.REBOOT) is Power.RUNNING
        assert again(first.revert_machine, machine, self.snapshot).power is Power.RUNNING
        look(self)
        again(first.remove_machine_snapshot, machine, self.snapshot)
        target = config_of(self.sim, host=HOSTS[1], **CLUSTER)
        assert again(first.relocate, machine, target).power is Power.RUNNING
        assert again(first.machines.inspect, machine) is None
        again(second.unplug_port, machine, self.port(2).id)
        assert again(second.machines.power, machine, PowerAction.SHUTDOWN).power is Power.OFF
        self.end()

    def power(self, action: PowerAction) -> Power:
        seen: api.Machine = again(self.first.machines.power, self.machine, action)
        return seen.power

    def end(self) -> None:
        for host in (self.first, self.second):
            again(host.machines.remove, self.machine)
        again(self.first.volumes.remove, self.volume)
        for host in (self.first, self.second):
            for number in (1, 2):
                again(host.networks.remove_port, self.network.id, self.port(number).id)
            again(host.networks.remove, self.network.id)
            assert not host.machines.list(within())
            assert not host.networks.list(within())
            assert not host.networks.list_ports(within())
            assert not host.volumes.list(within())


@pytest.fixture
def life(sim: EsxSim, two: tuple[PoolConnection, PoolConnection]) -> Life:
    return Life(sim, *two)


def group_of(sim: EsxSim, life: Life) -> list[Any]:
    """Another client's view of the network's port groups."""
    content = content_of(sim)
    from pyVmomi import vim

    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.dvs.DistributedVirtualPortgroup], True)
    return [each for each in view.view if each.name == group_name(life.network.id)]


# ------------------------------------------------------------------------------------------ disturbance


def exactly_one(life: Life) -> None:
    vm = machine_of(content_of(life.sim), life.machine)
    assert [each.name for each in vm.snapshot.rootSnapshotList] == [f"stratograph-machine-{life.snapshot}-memory"]
    macs = [each.macAddress for each in vm.config.hardware.device if hasattr(each, "macAddress")]
    assert sorted(macs) == [life.port(1).mac, life.port(2).mac]
    assert len(group_of(life.sim, life)) == 1


def test_each_write_whose_answer_is_lost_is_done_once(sim: EsxSim, life: Life) -> None:
    for method in WRITES:
        sim.fault(method, "drop")
    sim.calls()
    life.run(exactly_one)
    seen = sim.calls()
    assert set(WRITES) <= set(seen)
    once = ("AddDVPortgroup_Task", "CreateSnapshot_Task", "CreateVM_Task", "Destroy_Task", "RelocateVM_Task")
    assert {method: seen[method] for method in once} == dict.fromkeys(once, 1)
    assert (seen["SuspendVM_Task"], seen["RemoveSnapshot_Task"], seen["RebootGuest"]) == (1, 1, 1)
    assert group_of(sim, life) == []


@pytest.mark.parametrize("method", WRITES)
def test_a_session_that_ends_in_the_middle_is_not_noticed(sim: EsxSim, life: Life, method: str) -> None:
    for each in (life.first, life.second):
        each.machines.list(within())  # the test before may have left it without a session
    sim.expire_at(method)
    sim.calls()
    life.run()
    assert sim.calls().get("Login") in {1, 2}  # each connection that is still used, once


# ------------------------------------------------------------------------------------------ distributed port groups


def test_a_distributed_port_group_is_one_for_all_hosts_that_have_the_network(sim: EsxSim, life: Life) -> None:
    life.begin()
    (group,) = group_of(sim, life)
    port = group.config.defaultPortConfig
    assert 100 <= port.vlan.vlanId <= 399
    security = port.securityPolicy
    told = (security.allowPromiscuous.value, security.macChanges.value, security.forgedTransmits.value)
    assert told == (False, False, False)
    assert len(group.config.description.split()) == 3
    with pytest.raises(Refused):
        life.first.networks.remove(life.network.id, within())
    for number in (1, 2):
        life.second.networks.remove_port(life.network.id, life.port(number).id, within())
    life.second.networks.remove(life.network.id, within())
    assert life.second.networks.inspect(life.network.id, within()) is None
    assert life.first.networks.inspect(life.network.id, within()) is not None
    assert len(group_of(sim, life)[0].config.description.split()) == 2
    life.end()
    assert group_of(sim, life) == []


def test_vlans_of_a_distributed_switch_run_out(sim: EsxSim) -> None:
    opened = DRIVER.connect(config_of(sim, host=HOSTS[0], **{**CLUSTER, "vlan_pool": "7"}), within())
    one, other = (api.NetworkSpec(uuid4(), "n") for _ in range(2))
    opened.networks.ensure(one, within())
    with pytest.raises(HostAtFault, match="VLAN"):
        opened.networks.ensure(other, within())
    with pytest.raises(HostAtFault, match="MTU"):
        opened.networks.ensure(replace(other, mtu=9000), within())
    opened.networks.remove(one.id, within())
    opened.close()


@pytest.mark.parametrize(
    ("option", "error"), [("dvswitch", HostAtFault), ("folder", Refused), ("resource_pool", Refused)]
)
def test_what_the_operator_named_and_is_not_there(sim: EsxSim, option: str, error: type[api.DriverError]) -> None:
    opened = DRIVER.connect(config_of(sim, host=HOSTS[0], **{**CLUSTER, option: "nowhere"}), within())
    with pytest.raises(error, match="nowhere"):
        opened.networks.ensure(api.NetworkSpec(uuid4(), "n"), within())
    opened.close()


@pytest.mark.parametrize("wrong", [{"shared": "Not A Name"}, {"dvswitch": "a", "vswitch": "b"}])
def test_wrong_options_are_refused_at_connect(sim: EsxSim, wrong: dict[str, str]) -> None:
    with pytest.raises(Refused):
        DRIVER.connect(config_of(sim, host=HOSTS[0], **wrong), within())


def test_machines_stand_in_the_operators_folder_and_pool(sim: EsxSim, life: Life) -> None:
    life.begin()
    vm = machine_of(content_of(sim), life.machine)
    assert (vm.parent.name, vm.resourcePool.name) == (CLUSTER["folder"], CLUSTER["resource_pool"])
    life.end()


# ------------------------------------------------------------------------------------------ what hosts share


def test_what_one_host_holds_the_other_leaves_alone(life: Life) -> None:
    life.begin()
    with pytest.raises(Refused):
        life.second.volumes.remove(life.volume, within())
    spec = api.MachineSpec(uuid4(), "thief", 1, 64, (api.DiskSpec(life.volume, "vda"),))
    with pytest.raises(Refused):
        life.second.machines.ensure(spec, within())
    again = api.MachineSpec(life.machine, "m", 1, 64, (api.DiskSpec(life.volume, "vda"),))
    with pytest.raises(Refused):  # it is on the other host, and its folder is not begun anew
        life.second.machines.ensure(again, within())
    life.second.machines.remove(life.machine, within())
    assert life.power(PowerAction.ON) is Power.RUNNING
    life.end()


def test_a_move_that_cannot_be_is_refused_before_anything_moves(sim: EsxSim, life: Life) -> None:
    life.begin()
    sim.calls()
    elsewhere = {"host": HOSTS[1], **CLUSTER}
    target = config_of(sim, **elsewhere)
    other = replace(target, endpoint="https://127.0.0.2:1/sdk")
    for wrong in (other, config_of(sim, **{**elsewhere, "shared": "two"}), config_of(sim, host=HOSTS[1])):
        with pytest.raises(Unsupported) as caught:
            life.first.relocate(life.machine, wrong, within())
        assert caught.value.capability is api.Capability.RELOCATE
    with pytest.raises(Refused):
        life.first.relocate(life.machine, config_of(sim, **{**elsewhere, "host": "nobody"}), within())
    life.power(PowerAction.ON)
    life.power(PowerAction.SUSPEND)
    with pytest.raises(Refused):
        life.first.relocate(life.machine, target, within())
    assert "RelocateVM_Task" not in sim.calls()
    for fault in ("MigrationFault", "InsufficientMemoryResourcesFault"):
        life.power(PowerAction.ON)
        sim.fault("RelocateVM_Task", f"task:{fault}")
        with pytest.raises(Refused if fault == "MigrationFault" else HostAtFault) as failed:
            life.first.relocate(life.machine, target, within())
        assert failed.value.vendor_code == fault
        assert life.first.machines.inspect(life.machine, within()) is not None
    life.end()


def test_a_machine_boots_from_its_first_disk_whatever_comes_later(sim: EsxSim, life: Life) -> None:
    life.begin()
    data = uuid4()
    life.first.volumes.ensure(api.VolumeSpec(data, MIB), within())
    life.first.machines.attach(life.machine, api.DiskSpec(data, "vdb"), within())
    config = machine_of(content_of(sim), life.machine).config
    disks = {each.key: each.backing.fileName for each in config.hardware.device if hasattr(each, "capacityInKB")}
    (first,) = config.bootOptions.bootOrder
    assert f"/{life.volume}/" in disks[first.deviceKey]
    life.first.machines.detach(life.machine, data, within())
    life.first.volumes.remove(data, within())
    life.end()
