"""What :class:`drivers.api.Machines` promises, as tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import Capability, Firmware, Power, PowerAction
from drivers.contracts.rig import Rig, refused, unchanged, unsupported, wait_for


class MachineContract:
    """Machines: existence, refusals, power, disks, counters."""

    @pytest.fixture(scope="class")
    @classmethod
    def guest(cls, rig: Rig) -> Iterator[api.MachineSpec]:
        """One machine with boot volume and port for all tests of the class; its power is whatever the last left."""
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        with ExitStack() as stack:
            volume = stack.enter_context(rig.boot_volume())
            port = None
            if rig.has(Capability.NETWORKS):
                port = stack.enter_context(rig.port(stack.enter_context(rig.network())))
            yield stack.enter_context(rig.machine(volume, port=port))

    @pytest.fixture
    def running(self, rig: Rig, guest: api.MachineSpec) -> api.MachineSpec:
        """The shared machine, running."""
        assert rig.power(guest.id, PowerAction.ON) is Power.RUNNING
        return guest

    @pytest.fixture
    def off(self, rig: Rig, guest: api.MachineSpec) -> api.MachineSpec:
        """The shared machine, off."""
        assert rig.power(guest.id, PowerAction.OFF) is Power.OFF
        return guest

    @pytest.fixture
    def booted(self, rig: Rig, off: api.MachineSpec) -> api.MachineSpec:
        """The shared machine, running, its guest up when the image has one."""
        before = console_count(rig, off.id)
        assert rig.power(off.id, PowerAction.ON) is Power.RUNNING
        if rig.ready is not None:
            said = f"the guest says {rig.ready!r} on its console"
            wait_for(lambda: console_count(rig, off.id) > before, rig.boot_seconds, said)
        return off

    # --------------------------------------------------------------------------------- existence

    def test_a_machine_comes_once_and_goes_for_good(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        machines = rig.driver.machines
        with rig.volume() as volume:
            spec = rig.machine_spec(volume)
            assert machines.inspect(spec.id, rig.deadline) is None
            with unchanged(rig):
                made = machines.ensure(spec, rig.deadline)
                assert (made.id, made.name, made.power) == (spec.id, spec.name, Power.OFF)
                assert (made.vcpus, made.ram_mib, dict(made.volumes)) == (spec.vcpus, spec.ram_mib, {volume: "vda"})
                again = machines.ensure(spec, rig.deadline)
                seen = machines.inspect(spec.id, rig.deadline)
                assert seen is not None
                for each in (again, seen):
                    assert (each.id, each.name, each.power, dict(each.volumes)) == (
                        made.id,
                        made.name,
                        made.power,
                        {volume: "vda"},
                    )
                assert [each.id for each in machines.list(rig.deadline)].count(spec.id) == 1
                machines.remove(spec.id, rig.deadline)
                assert machines.inspect(spec.id, rig.deadline) is None
                machines.remove(spec.id, rig.deadline)
        rig.works(Capability.MACHINES)

    def test_a_machine_that_is_off_takes_another_size(self, rig: Rig, off: api.MachineSpec) -> None:
        """A running one keeps its own, at least until it is started anew."""
        machines = rig.driver.machines
        larger = replace(off, vcpus=off.vcpus + 1, ram_mib=2 * off.ram_mib)
        try:
            for _ in range(2):
                seen = machines.ensure(larger, rig.deadline)
                assert (seen.vcpus, seen.ram_mib, seen.power) == (larger.vcpus, larger.ram_mib, Power.OFF)
            assert rig.power(off.id, PowerAction.ON) is Power.RUNNING
            there = machines.inspect(off.id, rig.deadline)
            assert there is not None
            assert (there.vcpus, there.ram_mib) == (larger.vcpus, larger.ram_mib)
            kept = machines.ensure(off, rig.deadline)
            assert (kept.vcpus, kept.ram_mib, kept.power) == (larger.vcpus, larger.ram_mib, Power.RUNNING)
        finally:
            rig.power(off.id, PowerAction.OFF)
            machines.ensure(off, rig.deadline)

    def test_list_and_inspect_say_the_same(self, rig: Rig, guest: api.MachineSpec) -> None:
        listed = {each.id: each for each in rig.driver.machines.list(rig.deadline)}
        seen = rig.driver.machines.inspect(guest.id, rig.deadline)
        assert seen is not None
        mine = listed[guest.id]
        assert (mine.name, mine.power, mine.vcpus, mine.ram_mib) == (seen.name, seen.power, seen.vcpus, seen.ram_mib)
        assert dict(mine.volumes) == dict(seen.volumes)

    def test_a_name_is_only_text(self, rig: Rig) -> None:
        """Whatever language the platform's documents are written in, a name is no part of it."""
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        with rig.volume() as volume:
            spec = replace(rig.machine_spec(volume), name="""a<b>&amp; "c" 'd' $e ünï""", marks={"k": "<&>\"'"})
            try:
                made = rig.driver.machines.ensure(spec, rig.deadline)
                seen = rig.driver.machines.inspect(spec.id, rig.deadline)
                assert seen is not None
                assert made.name == seen.name == spec.name
            finally:
                rig.driver.machines.remove(spec.id, rig.deadline)

    def test_removing_an_unknown_machine_is_success(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES)
        with unchanged(rig):
            rig.driver.machines.remove(uuid4(), rig.deadline)

    def test_a_running_machine_is_removed_by_force_and_its_volume_stays(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        with rig.volume() as volume, rig.machine(volume) as spec:
            assert rig.power(spec.id, PowerAction.ON) is Power.RUNNING
            rig.driver.machines.remove(spec.id, rig.deadline)
            assert rig.driver.machines.inspect(spec.id, rig.deadline) is None
            assert rig.driver.volumes.inspect(volume, rig.deadline) is not None

    def test_a_machine_needs_its_volumes(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        with refused(rig):
            rig.driver.machines.ensure(rig.machine_spec(uuid4()), rig.deadline)
        with rig.volume() as volume, refused(rig):
            rig.driver.machines.ensure(rig.machine_spec(volume, uuid4()), rig.deadline)

    def test_a_machine_needs_its_ports(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES, Capability.VOLUMES, Capability.NETWORKS)
        with rig.volume() as volume, rig.network() as network:
            spec = rig.machine_spec(volume, port=rig.port_spec(network))
            with refused(rig):
                rig.driver.machines.ensure(spec, rig.deadline)

    def test_a_volume_has_one_machine_at_a_time(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        with rig.volume() as volume, rig.machine(volume), refused(rig):
            rig.driver.machines.ensure(rig.machine_spec(volume), rig.deadline)

    # --------------------------------------------------------------------------------- power

    def test_ensure_keeps_a_running_machine_running(self, rig: Rig, running: api.MachineSpec) -> None:
        assert rig.driver.machines.ensure(running, rig.deadline).power is Power.RUNNING

    def test_on_and_off_are_states_and_may_be_asked_twice(self, rig: Rig, off: api.MachineSpec) -> None:
        for action, state in ((PowerAction.ON, Power.RUNNING), (PowerAction.OFF, Power.OFF)):
            assert [rig.power(off.id, action), rig.power(off.id, action)] == [state, state]
            seen = rig.driver.machines.inspect(off.id, rig.deadline)
            assert seen is not None
            assert seen.power is state

    def test_reset_and_reboot_leave_it_running(self, rig: Rig, running: api.MachineSpec) -> None:
        assert rig.power(running.id, PowerAction.RESET) is Power.RUNNING
        assert rig.power(running.id, PowerAction.REBOOT) is Power.RUNNING

    def test_a_machine_that_is_off_cannot_reboot(self, rig: Rig, off: api.MachineSpec) -> None:
        for action in (PowerAction.REBOOT, PowerAction.RESET):
            with refused(rig):
                rig.power(off.id, action)

    def test_shutdown_of_what_is_off_is_success(self, rig: Rig, off: api.MachineSpec) -> None:
        assert rig.power(off.id, PowerAction.SHUTDOWN) is Power.OFF

    def test_shutdown_asks_the_guest_and_does_not_force(self, rig: Rig, booted: api.MachineSpec) -> None:
        """A guest that listens goes off; a dummy image has no ears, and then the answer is RUNNING, without error."""
        seconds = rig.boot_seconds if rig.ready is not None else min(1.0, rig.seconds)
        answer = rig.driver.machines.power(booted.id, PowerAction.SHUTDOWN, api.Deadline(seconds))
        assert answer.power is Power.OFF if rig.ready is not None else answer.power in {Power.RUNNING, Power.OFF}

    @pytest.mark.parametrize(
        ("action", "state", "capability"),
        [
            (PowerAction.SUSPEND, Power.SUSPENDED, Capability.SUSPEND),
            (PowerAction.PAUSE, Power.PAUSED, Capability.PAUSE),
        ],
    )
    def test_a_machine_stands_still_and_goes_on(
        self, rig: Rig, booted: api.MachineSpec, action: PowerAction, state: Power, capability: Capability
    ) -> None:  # fmt: skip
        """A guest that goes on does not start anew: its console says so, and so do the counters of what is paused."""
        machines = rig.driver.machines
        if not rig.has(capability):
            with unsupported(rig, capability):
                rig.power(booted.id, action)
            return
        boots = console_count(rig, booted.id)
        assert [rig.power(booted.id, action), rig.power(booted.id, action)] == [state, state]
        seen = machines.inspect(booted.id, rig.deadline)
        assert seen is not None
        assert (seen.power, dict(seen.volumes)) == (state, {disk.volume_id: disk.device for disk in booted.disks})
        listed = {each.id: each.power for each in machines.list(rig.deadline)}
        sampled = {each.machine_id: each for each in machines.sample(rig.deadline)}
        assert (listed[booted.id], sampled[booted.id].power) == (state, state)
        assert [rig.power(booted.id, PowerAction.ON), rig.power(booted.id, PowerAction.ON)] == [Power.RUNNING] * 2
        assert console_count(rig, booted.id) == boots
        rig.works(capability)
        for still in (action, PowerAction.OFF):
            rig.power(booted.id, still)
        seen = machines.inspect(booted.id, rig.deadline)
        assert seen is not None
        assert seen.power is Power.OFF
        with refused(rig):
            rig.power(booted.id, action)

    def test_a_suspended_machine_keeps_its_disks_counts_nothing_and_can_go(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES, Capability.VOLUMES, Capability.SUSPEND)
        machines = rig.driver.machines
        with rig.boot_volume() as volume, rig.volume() as data, rig.machine(volume) as spec:
            rig.power(spec.id, PowerAction.ON)
            assert rig.power(spec.id, PowerAction.SUSPEND) is Power.SUSPENDED
            with refused(rig):
                machines.attach(spec.id, api.DiskSpec(data, "vdb"), rig.deadline)
            with refused(rig):
                machines.detach(spec.id, volume, rig.deadline)
            (sample,) = [each for each in machines.sample(rig.deadline) if each.machine_id == spec.id]
            assert {getattr(sample, name) for name in COUNTERS} == {None}
            machines.remove(spec.id, rig.deadline)
            assert machines.inspect(spec.id, rig.deadline) is None
            assert rig.driver.volumes.inspect(volume, rig.deadline) is not None

    def test_power_of_an_unknown_machine_is_refused(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES)
        lacking = {each for each in (PowerAction.SUSPEND, PowerAction.PAUSE) if not rig.has(Capability(each.value))}
        for action in set(PowerAction) - lacking:
            with refused(rig):
                rig.power(uuid4(), action)

    def test_uefi(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        with rig.volume() as volume:
            plain = rig.machine_spec(volume)
            spec = api.MachineSpec(
                plain.id, plain.name, plain.vcpus, plain.ram_mib, plain.disks, firmware=Firmware.UEFI
            )
            if not rig.has(Capability.UEFI):
                with unsupported(rig, Capability.UEFI):
                    rig.driver.machines.ensure(spec, rig.deadline)
                return
            try:
                assert rig.driver.machines.ensure(spec, rig.deadline).power is Power.OFF
            finally:
                rig.driver.machines.remove(spec.id, rig.deadline)
        rig.works(Capability.UEFI)

    # --------------------------------------------------------------------------------- disks

    def test_attach_and_detach_while_off(self, rig: Rig, off: api.MachineSpec) -> None:
        self._attach_and_detach(rig, off)

    def test_attach_and_detach_while_running(self, rig: Rig, booted: api.MachineSpec) -> None:
        if not rig.has(Capability.VOLUME_HOT_ATTACH):
            with rig.volume() as volume, unsupported(rig, Capability.VOLUME_HOT_ATTACH):
                rig.driver.machines.attach(booted.id, api.DiskSpec(volume, "vdb"), rig.deadline)
            return
        self._attach_and_detach(rig, booted)
        rig.works(Capability.VOLUME_HOT_ATTACH)

    def test_an_attached_volume_stays_over_a_restart(self, rig: Rig, off: api.MachineSpec) -> None:
        with rig.volume() as volume:
            rig.driver.machines.attach(off.id, api.DiskSpec(volume, "vdb"), rig.deadline)
            try:
                rig.power(off.id, PowerAction.ON)
                rig.power(off.id, PowerAction.OFF)
                seen = rig.driver.machines.inspect(off.id, rig.deadline)
                assert seen is not None
                assert seen.volumes.get(volume) == "vdb"
            finally:
                rig.driver.machines.detach(off.id, volume, rig.deadline)

    def test_a_volume_moves_from_machine_to_machine(self, rig: Rig) -> None:
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        machines = rig.driver.machines
        with (
            rig.volume() as one,
            rig.volume() as two,
            rig.volume() as data,
            rig.machine(one) as first,
            rig.machine(two) as second,
        ):
            for machine in (first, second, first):
                seen = machines.attach(machine.id, api.DiskSpec(data, "vdb", read_only=True), rig.deadline)
                assert sorted(seen.volumes.values()) == ["vda", "vdb"]
                assert data not in machines.detach(machine.id, data, rig.deadline).volumes

    def test_attach_is_refused_for_what_is_not_there(self, rig: Rig, off: api.MachineSpec) -> None:
        with refused(rig):
            rig.driver.machines.attach(off.id, api.DiskSpec(uuid4(), "vdb"), rig.deadline)
        with rig.volume() as volume, refused(rig):
            rig.driver.machines.attach(uuid4(), api.DiskSpec(volume, "vdb"), rig.deadline)

    def test_attach_is_refused_while_another_machine_holds_the_volume(self, rig: Rig, off: api.MachineSpec) -> None:
        with rig.volume() as volume, rig.machine(volume), refused(rig):
            rig.driver.machines.attach(off.id, api.DiskSpec(volume, "vdb"), rig.deadline)

    def test_detaching_what_is_not_attached_is_success(self, rig: Rig, off: api.MachineSpec) -> None:
        with rig.volume() as volume, unchanged(rig):
            answer = rig.driver.machines.detach(off.id, volume, rig.deadline)
            assert volume not in answer.volumes

    # --------------------------------------------------------------------------------- counters

    def test_samples_come_in_bulk_and_only_grow(self, rig: Rig, running: api.MachineSpec) -> None:
        def mine() -> api.Sample:
            samples = rig.driver.machines.sample(rig.deadline)
            assert {each.machine_id for each in samples} == {each.id for each in rig.driver.machines.list(rig.deadline)}
            return next(each for each in samples if each.machine_id == running.id)

        first = mine()
        assert first.power is Power.RUNNING
        assert (first.vcpus, first.ram_mib) == (running.vcpus, running.ram_mib)
        assert first.at.utcoffset() is not None
        assert first.cpu_time_ns is not None
        wait_for(lambda: (mine().cpu_time_ns or 0) > (first.cpu_time_ns or 0), rig.boot_seconds, "CPU time grows")
        later = mine()
        assert later.at > first.at
        for name in COUNTERS:
            before, after = getattr(first, name), getattr(later, name)
            assert before is None or (after is not None and after >= before), name

    def test_nothing_is_counted_while_off(self, rig: Rig, off: api.MachineSpec) -> None:
        def counters() -> tuple[Power, list[object]]:
            mine = next(each for each in rig.driver.machines.sample(rig.deadline) if each.machine_id == off.id)
            return mine.power, [getattr(mine, name) for name in COUNTERS]

        first = counters()
        assert first[0] is Power.OFF
        assert counters() == first

    # --------------------------------------------------------------------------------- parts

    def _attach_and_detach(self, rig: Rig, spec: api.MachineSpec) -> None:
        disk = api.DiskSpec(uuid4(), "vdb")
        rig.driver.volumes.ensure(api.VolumeSpec(disk.volume_id, rig.volume_bytes), rig.deadline)
        machines = rig.driver.machines
        try:
            for _ in range(2):
                assert machines.attach(spec.id, disk, rig.deadline).volumes.get(disk.volume_id) == "vdb"
            with refused(rig):
                rig.driver.volumes.remove(disk.volume_id, rig.deadline)
            for _ in range(2):
                assert disk.volume_id not in machines.detach(spec.id, disk.volume_id, rig.deadline).volumes
        finally:
            machines.detach(spec.id, disk.volume_id, rig.deadline)
            rig.driver.volumes.remove(disk.volume_id, rig.deadline)


def console_count(rig: Rig, machine_id: UUID) -> int:
    """How often the guest said that it is ready. A driver without a console log gets a rig without ``ready``."""
    if rig.ready is None:
        return 0
    assert isinstance(rig.driver, api.ConsoleLog), "a rig with `ready` needs a driver with a console log"
    return rig.driver.console_log(machine_id, 1024 * 1024, rig.deadline).count(rig.ready)


COUNTERS = (
    "cpu_time_ns",
    "disk_read_bytes",
    "disk_written_bytes",
    "disk_reads",
    "disk_writes",
    "net_received_bytes",
    "net_sent_bytes",
)
