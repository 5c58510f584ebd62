"""Whatever is asked of a simulated host, in whatever order, with whatever faults: its invariants hold.

Every step is done on a host in memory and on one in a file, which must answer alike and end alike. A step that was
refused has changed nothing, on neither.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drivers import api
from drivers.api import (
    Deadline,
    DiskSpec,
    DriverError,
    HostConfig,
    NicSpec,
    Power,
    PowerAction,
    Transient,
    VolumeSpec,
)
from drivers.sim import DRIVER, DataCentre, data_centre

MIB = 1024 * 1024
SECONDS = 10.0
NETWORK = UUID(int=1)
CLOCK = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
some = st.integers(min_value=1, max_value=4)


class Hosts(RuleBasedStateMachine):
    """Two hosts which are asked the same; few ids, so that the steps meet."""

    def __init__(self) -> None:
        super().__init__()
        name = f"invariants-{uuid4()}"
        self.folder = tempfile.TemporaryDirectory()
        options = {"ram_mib": "256", "ram_overcommit": "1", "disk_gib": "1", "clock": CLOCK}
        path = Path(self.folder.name)
        file = DRIVER.connect(HostConfig(name, f"sim://{name}", path, options), Deadline(SECONDS))
        memory = DRIVER.connect(
            HostConfig(name, f"sim://{name}", path, {**options, "store": "memory"}), Deadline(SECONDS)
        )
        self.drivers = (memory, file)
        self.centres: tuple[DataCentre, DataCentre] = (data_centre(name), data_centre(name, path))
        self.totals: Counter[str] = Counter()
        for driver in self.drivers:
            driver.networks.ensure(network_spec(), Deadline(SECONDS))

    def both(self, ask: Callable[[api.Driver], object]) -> None:
        """Ask both hosts; a refusal changes nothing, and the answers are equal."""
        answers: list[object] = []
        for driver, centre in zip(self.drivers, self.centres, strict=True):
            before = centre.snapshot_of_world()
            try:
                answers.append(ask(driver))
            except DriverError as error:
                answers.append((type(error), error.reason))
                if error.vendor_code != "SIM_FAULT":
                    assert centre.snapshot_of_world().difference(before) == []
        assert answers[0] == answers[1]

    @rule(n=some, size=st.sampled_from([16, 200, 600]), snapshot=st.none() | some)
    def make_volume(self, n: int, size: int, snapshot: int | None) -> None:
        spec = VolumeSpec(volume(n), size * MIB, snapshot_id=None if snapshot is None else UUID(int=500 + snapshot))
        self.both(lambda driver: driver.volumes.ensure(spec, Deadline(SECONDS)))

    @rule(n=some)
    def remove_volume(self, n: int) -> None:
        self.both(lambda driver: driver.volumes.remove(volume(n), Deadline(SECONDS)))

    @rule(n=some, size=st.sampled_from([16, 300, 900, 2000]))
    def extend_volume(self, n: int, size: int) -> None:
        self.both(lambda driver: driver.volumes.extend(volume(n), size * MIB, Deadline(SECONDS)))

    @rule(n=some, snapshot=some, remove=st.booleans())
    def snapshots(self, n: int, snapshot: int, *, remove: bool) -> None:
        def ask(driver: api.Driver) -> object:
            assert isinstance(driver, api.Snapshots)
            key = UUID(int=500 + snapshot)
            if remove:
                driver.remove_snapshot(key, Deadline(SECONDS))
                return None
            return driver.snapshot(volume(n), key, Deadline(SECONDS))

        self.both(ask)

    @rule(n=some, address=some, remove=st.booleans())
    def ports(self, n: int, address: int, *, remove: bool) -> None:
        spec = api.PortSpec(UUID(int=300 + n), NETWORK, f"52:54:00:00:00:0{n}", (f"10.0.0.1{address}",))
        if remove:
            self.both(lambda driver: driver.networks.remove_port(NETWORK, spec.id, Deadline(SECONDS)))
        else:
            self.both(lambda driver: driver.networks.ensure_port(spec, Deadline(SECONDS)))

    @rule(remove=st.booleans(), gone=st.booleans())
    def networks(self, *, remove: bool, gone: bool) -> None:
        wish = replace(network_spec(), subnets=()) if gone else network_spec()
        if remove:
            self.both(lambda driver: driver.networks.remove(NETWORK, Deadline(SECONDS)))
        else:
            self.both(lambda driver: driver.networks.ensure(wish, Deadline(SECONDS)))

    @rule(n=some, disks=st.lists(some, max_size=3), nics=st.lists(some, max_size=2))
    def make_machine(self, n: int, disks: list[int], nics: list[int]) -> None:
        wish = tuple(DiskSpec(volume(disk), f"vd{at}") for at, disk in enumerate(disks))
        cards = tuple(NicSpec(UUID(int=300 + nic), NETWORK, f"52:54:00:00:00:0{nic}") for nic in nics)
        spec = api.MachineSpec(machine(n), f"m{n}", 1, 100, wish, cards)
        self.both(lambda driver: driver.machines.ensure(spec, Deadline(SECONDS)))

    @rule(n=some)
    def remove_machine(self, n: int) -> None:
        self.both(lambda driver: driver.machines.remove(machine(n), Deadline(SECONDS)))

    @rule(n=some, action=st.sampled_from(PowerAction))
    def power(self, n: int, action: PowerAction) -> None:
        self.both(lambda driver: driver.machines.power(machine(n), action, Deadline(SECONDS)))

    @rule(n=some, disk=some, device=st.sampled_from(["vdx", "vdy"]))
    def attach(self, n: int, disk: int, device: str) -> None:
        self.both(lambda driver: driver.machines.attach(machine(n), DiskSpec(volume(disk), device), Deadline(SECONDS)))

    @rule(n=some, disk=some)
    def detach(self, n: int, disk: int) -> None:
        self.both(lambda driver: driver.machines.detach(machine(n), volume(disk), Deadline(SECONDS)))

    @rule(n=some, crashed=st.booleans())
    def stop_behind_our_back(self, n: int, *, crashed: bool) -> None:
        for centre in self.centres:
            if str(machine(n)) in centre.snapshot_of_world().machines:
                centre.stop(machine(n), crashed=crashed)

    @rule(
        verb=st.sampled_from(["volumes.ensure", "machines.ensure", "machines.power", "*.remove"]), after=st.booleans()
    )
    def order_a_fault(self, verb: str, *, after: bool) -> None:
        for centre in self.centres:
            centre.fail(verb, Transient, after=after)

    @rule(seconds=st.integers(min_value=0, max_value=5000))
    def time_goes_on(self, seconds: int) -> None:
        for centre in self.centres:
            centre.advance(timedelta(seconds=seconds))

    # ------------------------------------------------------------------------------------- what holds

    @invariant()
    def both_hosts_are_alike(self) -> None:
        one, two = (centre.snapshot_of_world() for centre in self.centres)
        assert one.difference(two) == []

    @invariant()
    def what_is_used_is_there_and_used_once(self) -> None:
        world = self.centres[0].snapshot_of_world()
        disks = [disk for each in world.machines.values() for disk in each.disks]
        nics = [nic for each in world.machines.values() for nic in each.nics]
        assert len(disks) == len(set(disks))
        assert len(nics) == len(set(nics))
        assert set(disks) <= world.volumes.keys()
        assert set(nics) <= world.ports.keys()
        assert {each.network_id for each in world.ports.values()} <= world.networks.keys()
        for each in world.machines.values():
            assert len(set(each.disks.values())) == len(each.disks)
        addresses = [(port.network_id, address) for port in world.ports.values() for address in port.addresses]
        assert len(addresses) == len(set(addresses))

    @invariant()
    def the_tally_is_the_sum(self) -> None:
        world = self.centres[0].snapshot_of_world()
        running = [each for each in world.machines.values() if each.power == Power.RUNNING]
        assert world.tally.vcpus == sum(each.vcpus for each in running)
        assert world.tally.ram_mib == sum(each.ram_mib for each in running) <= 256
        assert world.tally.disk_bytes == sum(each.size_bytes for each in world.volumes.values()) <= 1024 * MIB

    @invariant()
    def only_running_machines_count_and_never_backwards(self) -> None:
        samples = [driver.machines.sample(Deadline(SECONDS)) for driver in self.drivers]
        assert sorted(samples[0], key=by_machine) == sorted(samples[1], key=by_machine)
        for each in samples[0]:
            assert (each.cpu_time_ns is None) == (each.power is not Power.RUNNING)

    def teardown(self) -> None:
        for driver, centre in zip(self.drivers, self.centres, strict=True):
            driver.close()
            centre.clear()
        self.folder.cleanup()


def by_machine(sample: api.Sample) -> UUID:
    return sample.machine_id


def volume(n: int) -> UUID:
    return UUID(int=100 + n)


def machine(n: int) -> UUID:
    return UUID(int=200 + n)


def network_spec() -> api.NetworkSpec:
    return api.NetworkSpec(NETWORK, "n", (api.SubnetSpec(UUID(int=2), "10.0.0.0/24", "10.0.0.1", dhcp=True),))


Hosts.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestHosts = Hosts.TestCase
