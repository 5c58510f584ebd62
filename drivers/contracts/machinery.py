"""What the protocols of ``drivers/machinery.py`` promise, as tests. Each has meaning only where the driver has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID, uuid4

from drivers import api
from drivers.api import Capability, Power, PowerAction
from drivers.contracts.rig import Rig, refused, unchanged


class MachineryContract:
    """Ports in and out, snapshots of whole machines, moves to another host."""

    # --------------------------------------------------------------------------------- ports

    def test_a_port_is_plugged_in_and_out(self, rig: Rig) -> None:
        """Running and off; it stays over a restart, and asking twice equals asking once."""
        rig.need(Capability.PORT_HOT_ATTACH, Capability.MACHINES, Capability.VOLUMES, Capability.NETWORKS)
        driver = rig.driver
        assert isinstance(driver, api.PortPlugging)
        with (
            _plain_machine(rig) as spec,
            rig.network() as network,
            rig.port(network) as port,
            rig.port(network, 11) as two,
        ):
            nic, other = (api.NicSpec(each.id, network.id, each.mac) for each in (port, two))
            assert list(driver.plugged_ports(spec.id, rig.deadline)) == []
            for _ in range(2):
                driver.plug_port(spec.id, nic, rig.deadline)
                assert list(driver.plugged_ports(spec.id, rig.deadline)) == [port.id]
            rig.power(spec.id, PowerAction.ON)
            driver.plug_port(spec.id, other, rig.deadline)
            assert set(driver.plugged_ports(spec.id, rig.deadline)) == {port.id, two.id}
            rig.power(spec.id, PowerAction.OFF)
            assert set(driver.plugged_ports(spec.id, rig.deadline)) == {port.id, two.id}
            for _ in range(2):
                driver.unplug_port(spec.id, port.id, rig.deadline)
                assert list(driver.plugged_ports(spec.id, rig.deadline)) == [two.id]
            driver.unplug_port(spec.id, two.id, rig.deadline)
            driver.networks.remove_port(network.id, two.id, rig.deadline)
        rig.works(Capability.PORT_HOT_ATTACH)

    def test_plugging_is_refused_for_what_is_not_there_or_taken(self, rig: Rig) -> None:
        rig.need(Capability.PORT_HOT_ATTACH, Capability.MACHINES, Capability.VOLUMES, Capability.NETWORKS)
        driver = rig.driver
        assert isinstance(driver, api.PortPlugging)
        with rig.network() as network, rig.port(network) as port, _plain_machine(rig, port) as holder:
            nic = api.NicSpec(port.id, network.id, port.mac)
            unknown = rig.port_spec(network, 12)
            with _plain_machine(rig) as spec:
                with refused(rig):
                    driver.plug_port(spec.id, nic, rig.deadline)
                with refused(rig):
                    driver.plug_port(spec.id, api.NicSpec(unknown.id, network.id, unknown.mac), rig.deadline)
                with unchanged(rig):
                    driver.unplug_port(spec.id, unknown.id, rig.deadline)
                    driver.unplug_port(uuid4(), port.id, rig.deadline)
                assert list(driver.plugged_ports(uuid4(), rig.deadline)) == []
            with refused(rig):
                driver.plug_port(uuid4(), api.NicSpec(unknown.id, network.id, unknown.mac), rig.deadline)
            assert list(driver.plugged_ports(holder.id, rig.deadline)) == [port.id]

    # --------------------------------------------------------------------------------- snapshots

    def test_a_machine_goes_back_to_its_snapshots(self, rig: Rig) -> None:
        rig.need(Capability.MACHINE_SNAPSHOT, Capability.MACHINES, Capability.VOLUMES)
        driver = rig.driver
        assert isinstance(driver, api.MachineSnapshots)
        one, two, three = uuid4(), uuid4(), uuid4()
        with _plain_machine(rig) as spec:
            assert list(driver.list_machine_snapshots(spec.id, rig.deadline)) == []
            for _ in range(2):
                first = driver.snapshot_machine(spec.id, one, rig.deadline, memory=True)
                assert first == api.MachineSnapshot(one, None, memory=False, current=True)  # it was off
            rig.power(spec.id, PowerAction.ON)
            second = driver.snapshot_machine(spec.id, two, rig.deadline, memory=True)
            assert second == api.MachineSnapshot(two, one, memory=True, current=True)
            third = driver.snapshot_machine(spec.id, three, rig.deadline)  # nobody asked its guest to hold still
            assert third == api.MachineSnapshot(three, two, memory=False, current=True)
            assert driver.revert_machine(spec.id, three, rig.deadline).power is Power.OFF
            assert driver.revert_machine(spec.id, two, rig.deadline).power is Power.RUNNING
            assert _tree(rig, spec.id) == [(one, None, False), (two, one, True), (three, two, False)]
            for _ in range(2):
                driver.remove_machine_snapshot(spec.id, two, rig.deadline)
                assert _tree(rig, spec.id) == [(one, None, True), (three, one, False)]
            assert driver.revert_machine(spec.id, one, rig.deadline).power is Power.OFF
            with refused(rig):
                driver.revert_machine(spec.id, two, rig.deadline)
            for each in (one, three):
                driver.remove_machine_snapshot(spec.id, each, rig.deadline)
            assert list(driver.list_machine_snapshots(spec.id, rig.deadline)) == []
        rig.works(Capability.MACHINE_SNAPSHOT)

    def test_disks_stay_as_they_are_while_there_are_snapshots(self, rig: Rig) -> None:
        rig.need(Capability.MACHINE_SNAPSHOT, Capability.MACHINES, Capability.VOLUMES)
        driver, snapshot = rig.driver, uuid4()
        assert isinstance(driver, api.MachineSnapshots)
        with rig.boot_volume() as volume, rig.volume() as data:
            with rig.machine(volume) as spec:
                driver.snapshot_machine(spec.id, snapshot, rig.deadline)
                with refused(rig):
                    driver.machines.attach(spec.id, api.DiskSpec(data, "vdb"), rig.deadline)
                with refused(rig):
                    driver.machines.detach(spec.id, volume, rig.deadline)
                with refused(rig):
                    driver.volumes.extend(volume, 2 * rig.image.virtual_size_bytes, rig.deadline)
                if isinstance(driver, api.PortPlugging):
                    with rig.network() as network, rig.port(network) as port, refused(rig):
                        driver.plug_port(spec.id, api.NicSpec(port.id, network.id, port.mac), rig.deadline)
                driver.machines.remove(spec.id, rig.deadline)
                driver.remove_machine_snapshot(spec.id, snapshot, rig.deadline)
                assert list(driver.list_machine_snapshots(spec.id, rig.deadline)) == []
            grown = driver.volumes.extend(volume, 2 * rig.image.virtual_size_bytes, rig.deadline)
            assert grown.size_bytes >= 2 * rig.image.virtual_size_bytes

    # --------------------------------------------------------------------------------- moves

    def test_a_machine_moves_off_and_running_and_back(self, rig: Rig) -> None:
        rig.need(Capability.RELOCATE, Capability.MACHINES, Capability.VOLUMES, Capability.NETWORKS)
        driver, elsewhere = rig.driver, rig.elsewhere
        assert elsewhere is not None, "a driver that moves machines needs a rig with another host"
        assert isinstance(driver, api.Relocation)
        target = elsewhere.connect()
        assert isinstance(target, api.Relocation)
        try:
            pools = {each.facts(rig.deadline).pool for each in (driver, target)}
            assert len(pools) == 1, "hosts that hand machines to each other name one pool"
            assert None not in pools
            with ExitStack() as stack:
                network = stack.enter_context(rig.network())
                port = stack.enter_context(rig.port(network))
                volume = stack.enter_context(rig.boot_volume())
                spec = stack.enter_context(rig.machine(volume, port=port))
                with refused(rig):  # its network is not there yet
                    driver.relocate(spec.id, elsewhere.config, rig.deadline)
                target.networks.ensure(network, rig.deadline)
                target.networks.ensure_port(port, rig.deadline)
                for action, state in ((PowerAction.OFF, Power.OFF), (PowerAction.ON, Power.RUNNING)):
                    rig.power(spec.id, action)
                    for _ in range(2):
                        seen = driver.relocate(spec.id, elsewhere.config, rig.deadline)
                        assert (seen.id, seen.power, dict(seen.volumes)) == (spec.id, state, {volume: "vda"})
                    assert driver.machines.inspect(spec.id, rig.deadline) is None
                    there = target.machines.inspect(spec.id, rig.deadline)
                    assert there is not None
                    assert (there.power, dict(there.volumes)) == (state, {volume: "vda"})
                    assert target.volumes.inspect(volume, rig.deadline) is not None
                    with refused(rig, api.Refused):
                        target.volumes.remove(volume, rig.deadline)
                    assert target.relocate(spec.id, elsewhere.back, rig.deadline).power is state
                    assert target.machines.inspect(spec.id, rig.deadline) is None
                target.networks.remove_port(network.id, port.id, rig.deadline)
                target.networks.remove(network.id, rig.deadline)
            with refused(rig):
                driver.relocate(uuid4(), elsewhere.config, rig.deadline)
            rig.works(Capability.RELOCATE)
        finally:
            target.close()


@contextmanager
def _plain_machine(rig: Rig, port: api.PortSpec | None = None) -> Iterator[api.MachineSpec]:
    with rig.boot_volume() as volume, rig.machine(volume, port=port) as spec:
        yield spec


def _tree(rig: Rig, machine_id: UUID) -> list[tuple[UUID, UUID | None, bool]]:
    assert isinstance(rig.driver, api.MachineSnapshots)
    found = rig.driver.list_machine_snapshots(machine_id, rig.deadline)
    return [(each.id, each.parent_id, each.current) for each in found]
