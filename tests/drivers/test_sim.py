"""What the sim driver promises beyond the contract: its weather, its clock, its guests, its rules and its file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import Deadline, DiskSpec, HostAtFault, HostConfig, Power, PowerAction, Refused, Transient, VolumeSpec
from drivers.contract import Rig
from drivers.sim import DRIVER, DataCentre
from tests.drivers.test_sim_contract import rig_of

START = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1024 * 1024


@pytest.fixture(params=["memory", "file"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Rig, DataCentre]]:
    rig, centre = rig_of(DRIVER, tmp_path, store=request.param, ram_mib="1024", ram_overcommit="1", disk_gib="1")
    yield rig, centre
    centre.heal()
    rig.driver.close()
    centre.clear()


def test_a_fault_before_changes_nothing_and_a_fault_after_loses_the_answer(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    spec = VolumeSpec(uuid4(), MIB)
    empty = centre.snapshot_of_world()
    centre.fail("volumes.ensure", Transient)
    with pytest.raises(Transient):
        rig.driver.volumes.ensure(spec, rig.deadline)
    assert centre.snapshot_of_world() == empty
    centre.fail("volumes.ensure", HostAtFault, after=True)
    with pytest.raises(HostAtFault):
        rig.driver.volumes.ensure(spec, rig.deadline)
    assert centre.snapshot_of_world().volumes.keys() == {str(spec.id)}
    assert rig.driver.volumes.ensure(spec, rig.deadline).size_bytes == MIB
    rig.driver.volumes.remove(spec.id, rig.deadline)
    assert centre.snapshot_of_world() == empty


def test_faults_count_their_strikes_and_let_calls_pass(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    centre.fail("volumes.*", Refused, times=2, skip=1)

    def answers() -> bool:
        try:
            rig.driver.volumes.list(rig.deadline)
        except Refused:
            return False
        return True

    assert [answers() for _ in range(5)] == [True, False, False, True, True]
    centre.fail("*", Refused, times=None)
    assert [answers() for _ in range(3)] == [False, False, False]
    centre.heal()
    assert answers()


def test_a_hang_lasts_until_the_deadline(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    centre.hang("machines.list")
    begun = time.monotonic()
    with pytest.raises(Transient):
        rig.driver.machines.list(Deadline(0.2))
    assert 0.2 <= time.monotonic() - begun < 5
    assert rig.driver.machines.list(rig.deadline) == []


def test_latency_is_waited_for_and_counts_against_the_deadline(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    centre.latency("volumes.*", 50)
    begun = time.monotonic()
    rig.driver.volumes.list(rig.deadline)
    assert time.monotonic() - begun >= 0.05
    spec = VolumeSpec(uuid4(), MIB)
    with pytest.raises(Transient):
        rig.driver.volumes.ensure(spec, Deadline(0.01))
    assert rig.driver.volumes.inspect(spec.id, rig.deadline) is None


def test_a_host_that_is_down_answers_nothing_and_loses_nothing(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    with rig.volume() as volume, rig.machine(volume) as machine:
        rig.power(machine.id, PowerAction.ON)
        centre.down()
        for call in (
            lambda: rig.driver.facts(rig.deadline),
            lambda: rig.driver.machines.list(rig.deadline),
            rig.connect,
        ):
            with pytest.raises(HostAtFault):
                call()
        centre.down(Transient)
        with pytest.raises(Transient):
            rig.driver.facts(rig.deadline)
        centre.up()
        assert rig.power(machine.id, PowerAction.ON) is Power.RUNNING


def test_a_full_host_is_at_fault_until_there_is_room(host: tuple[Rig, DataCentre]) -> None:
    """1 GiB of disk and of memory: volumes count as provisioned, memory while a machine runs."""
    rig, centre = host
    with rig.volume(1024 * MIB) as volume, pytest.raises(HostAtFault):
        rig.driver.volumes.ensure(VolumeSpec(uuid4(), 1), rig.deadline)
    with rig.volume() as one, rig.volume() as two:
        big = replace(rig.machine_spec(one), ram_mib=1000)
        rig.driver.machines.ensure(big, rig.deadline)
        rig.power(big.id, PowerAction.ON)
        with rig.machine(two) as small:
            with pytest.raises(HostAtFault):
                rig.power(small.id, PowerAction.ON)
            rig.power(big.id, PowerAction.OFF)
            assert rig.power(small.id, PowerAction.ON) is Power.RUNNING
            rig.power(small.id, PowerAction.OFF)
            centre.fill()
            with pytest.raises(HostAtFault):
                rig.power(small.id, PowerAction.ON)
            with pytest.raises(HostAtFault):
                rig.driver.volumes.extend(two, 64 * MIB, rig.deadline)
            centre.fill(full=False)
        rig.driver.machines.remove(big.id, rig.deadline)
    del volume


def test_a_crash_behind_our_back_is_seen_and_can_be_started_again(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    with rig.volume() as volume, rig.machine(volume) as machine:
        rig.power(machine.id, PowerAction.ON)
        centre.stop(machine.id, crashed=True)
        seen = rig.driver.machines.inspect(machine.id, rig.deadline)
        assert seen is not None
        assert (seen.power, seen.reason) == (Power.CRASHED, "crashed")
        assert b"Kernel panic" in log_of(rig, machine.id)
        assert rig.power(machine.id, PowerAction.ON) is Power.RUNNING
        centre.power_cut()
        assert rig.driver.machines.list(rig.deadline)[0].power is Power.OFF
        centre.start(machine.id)
        assert rig.driver.machines.list(rig.deadline)[0].power is Power.RUNNING
        centre.stop(machine.id, crashed=True)
        assert rig.power(machine.id, PowerAction.OFF) is Power.OFF
        assert centre.snapshot_of_world().tally.ram_mib == 0


def test_a_deaf_guest_stays_on_and_keeps_its_disks(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    with rig.volume() as boot, rig.volume() as data, rig.machine(boot, data) as machine:
        rig.power(machine.id, PowerAction.ON)
        centre.ignore_shutdown(machine.id)
        centre.ignore_detach()
        assert rig.driver.machines.power(machine.id, PowerAction.SHUTDOWN, Deadline(0.1)).power is Power.RUNNING
        before = centre.snapshot_of_world()
        with pytest.raises(Transient):
            rig.driver.machines.detach(machine.id, data, Deadline(0.1))
        assert centre.snapshot_of_world() == before
        assert rig.power(machine.id, PowerAction.OFF) is Power.OFF
        assert data not in rig.driver.machines.detach(machine.id, data, rig.deadline).volumes


def test_somebody_else_may_stop_a_deaf_guest_while_shutdown_waits(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    with rig.volume() as volume, rig.machine(volume) as machine:
        rig.power(machine.id, PowerAction.ON)
        centre.ignore_shutdown()
        answers: list[Power] = []
        waiting = Thread(target=lambda: answers.append(rig.power(machine.id, PowerAction.SHUTDOWN)))
        waiting.start()
        centre.stop(machine.id)
        waiting.join(rig.seconds)
        assert answers == [Power.OFF]


# ------------------------------------------------------------------------------------------ clock, counters, console


def test_counters_are_a_function_of_time_and_seed(tmp_path: Path) -> None:
    identity, volume = uuid4(), uuid4()

    def samples(seed: str) -> list[api.Sample]:
        rig, centre = rig_of(DRIVER, tmp_path, store="memory", clock=START.isoformat(), seed=seed)
        rig.driver.volumes.ensure(VolumeSpec(volume, MIB), rig.deadline)
        spec = replace(rig.machine_spec(volume), id=identity)
        rig.driver.machines.ensure(spec, rig.deadline)
        taken: list[api.Sample] = []
        for action in (PowerAction.ON, PowerAction.OFF, PowerAction.ON):
            centre.advance(timedelta(minutes=7))
            taken += rig.driver.machines.sample(rig.deadline)
            rig.power(identity, action)
        centre.clear()
        return taken

    one, again, other = samples("a"), samples("a"), samples("b")
    assert one == again
    assert one[1] != other[1]
    assert [each.at for each in one] == [START + timedelta(minutes=7 * n) for n in (1, 2, 3)]
    off, on, off_again = one
    assert (off.power, off.cpu_time_ns) == (off_again.power, off_again.cpu_time_ns) == (Power.OFF, None)
    assert on.cpu_time_ns is not None
    assert on.ram_used_mib is not None
    assert 0 < on.cpu_time_ns < 7 * 60 * 10**9
    assert 0 < on.ram_used_mib <= on.ram_mib


def test_a_reboot_keeps_the_counters_and_a_power_cycle_starts_them_anew(tmp_path: Path) -> None:
    rig, centre = rig_of(DRIVER, tmp_path, store="memory", clock=START.isoformat())

    def cpu() -> int:
        return rig.driver.machines.sample(rig.deadline)[0].cpu_time_ns or 0

    with rig.volume() as volume, rig.machine(volume) as machine:
        rig.power(machine.id, PowerAction.ON)
        assert cpu() == 0
        centre.advance(timedelta(hours=1))
        hour = cpu()
        rig.power(machine.id, PowerAction.REBOOT)
        assert cpu() == hour > 0
        rig.power(machine.id, PowerAction.OFF)
        rig.power(machine.id, PowerAction.ON)
        assert cpu() == 0


def test_the_clock_of_this_process(tmp_path: Path) -> None:
    rig, centre = rig_of(DRIVER, tmp_path, store="memory")
    with pytest.raises(Refused):
        centre.advance(timedelta(seconds=1))
    centre.use_clock(lambda: START)
    with rig.volume() as volume, rig.machine(volume):
        assert rig.driver.machines.sample(rig.deadline)[0].at == START
        centre.use_clock(None)
        assert rig.driver.machines.sample(rig.deadline)[0].at > START


def test_the_console_tells_what_the_machine_has(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    with rig.network() as network, rig.port(network) as port, rig.volume() as volume:
        files = {
            "meta-data": b"local-hostname: web-1\n",
            "user-data": b"#cloud-config\nssh_authorized_keys:\n- ssh-ed25519 AAAA a\n- ssh-rsa BBBB b\n",
        }
        spec = replace(rig.machine_spec(volume, port=port), name="shop web", seed=api.Seed(files))
        rig.driver.machines.ensure(spec, rig.deadline)
        rig.power(spec.id, PowerAction.ON)
        text = log_of(rig, spec.id).decode()
        lines = text.splitlines()
        assert "simulated" in lines[0]
        assert "shop web" in lines[0]
        assert any(f"eth0 up, {port.mac}, {port.addresses[0]}" in line for line in lines)
        assert any("2 authorized ssh keys" in line for line in lines)
        assert any(f"[vda] {rig.volume_bytes // 512} 512-byte" in line for line in lines)
        assert lines[-1] == "web-1 login: "
        assert centre.seed_files(spec.id) == files
        rig.driver.machines.remove(spec.id, rig.deadline)
        assert centre.seed_files(spec.id) == {}
        assert log_of(rig, spec.id) == b""


def test_the_guest_takes_its_time_to_boot(tmp_path: Path) -> None:
    rig, centre = rig_of(DRIVER, tmp_path, store="memory", clock=START.isoformat(), boot_ms="10000")
    with rig.volume() as volume, rig.machine(volume) as machine:
        rig.power(machine.id, PowerAction.ON)
        assert log_of(rig, machine.id) == b""
        centre.advance(timedelta(seconds=5))
        half = log_of(rig, machine.id)
        assert b"Linux version" in half
        assert b"login: " not in half
        centre.advance(timedelta(seconds=5))
        assert log_of(rig, machine.id).startswith(half)
        assert log_of(rig, machine.id).endswith(b"login: ")


# ------------------------------------------------------------------------------------------ rules


def test_data_survives_detach_copy_and_growth(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    driver = rig.driver
    assert isinstance(driver, api.Snapshots)
    with rig.volume() as blank, rig.boot_volume() as boot, rig.machine(boot, blank) as machine:
        assert centre.content(blank) == "zeros"
        assert centre.content(boot) == rig.image.sha256
        centre.write(blank, b"letters")
        written = centre.content(blank)
        assert written not in {"zeros", rig.image.sha256}
        snapshot, copy = uuid4(), uuid4()
        driver.snapshot(blank, snapshot, rig.deadline)
        centre.write(blank, b"more")
        driver.machines.detach(machine.id, blank, rig.deadline)
        driver.volumes.extend(blank, 64 * MIB, rig.deadline)
        assert centre.content(blank) not in {written, "zeros"}
        driver.volumes.ensure(VolumeSpec(copy, rig.volume_bytes, snapshot_id=snapshot), rig.deadline)
        assert centre.content(copy) == written
        driver.volumes.remove(copy, rig.deadline)
        driver.remove_snapshot(snapshot, rig.deadline)


def test_what_a_machine_may_not_be(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    with rig.network() as network, rig.port(network) as port, rig.volume() as one, rig.volume() as two:
        good = rig.machine_spec(one, two, port=port)
        nic, before = good.nics[0], centre.snapshot_of_world()
        for wrong in (
            replace(good, vcpus=0),
            replace(good, disks=(good.disks[0], DiskSpec(two, "vda"))),
            replace(good, disks=(good.disks[0], DiskSpec(one, "vdb"))),
            replace(good, nics=(nic, nic)),
            replace(good, nics=(replace(nic, mac="52:54:00:00:00:01"),)),
            replace(good, nics=(replace(nic, network_id=uuid4()),)),
            replace(good, seed=api.Seed({"user-data": bytes(MIB + 1)})),
        ):
            with pytest.raises(Refused):
                rig.driver.machines.ensure(wrong, rig.deadline)
            assert centre.snapshot_of_world() == before
        rig.driver.machines.ensure(good, rig.deadline)
        for refused in (
            lambda: rig.driver.networks.remove_port(network.id, port.id, rig.deadline),
            lambda: rig.driver.networks.ensure_port(replace(port, mac="52:54:00:00:00:02"), rig.deadline),
            lambda: rig.driver.machines.ensure(replace(good, id=uuid4(), disks=()), rig.deadline),
        ):
            with pytest.raises(Refused):
                refused()
        rig.driver.machines.remove(good.id, rig.deadline)
        assert centre.snapshot_of_world() == before


def test_what_a_network_and_a_port_may_not_be(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    with rig.network() as network, rig.port(network) as port:
        subnet, before = network.subnets[0], centre.snapshot_of_world()
        for wrong in (
            replace(network, subnets=()),  # the port's address would hang in the air
            replace(network, subnets=(subnet, replace(subnet, id=uuid4()))),
            replace(network, subnets=(subnet, subnet)),
            replace(network, subnets=(replace(subnet, gateway="192.0.2.1"),)),
            replace(network, subnets=(replace(subnet, cidr="10.0.0.300/24"),)),
            replace(network, subnets=(replace(subnet, cidr="10.231.0.1/24"),)),
            replace(network, mtu=100),
        ):
            with pytest.raises(Refused):
                rig.driver.networks.ensure(wrong, rig.deadline)
        fresh = replace(port, id=uuid4(), mac="52:54:00:0a:0b:0c", addresses=())
        for wrong_port in (
            replace(fresh, mac="nonsense"),
            replace(fresh, mac=port.mac.upper()),
            replace(fresh, addresses=("192.0.2.7",)),
            replace(fresh, addresses=("nonsense",)),
            replace(fresh, rules=(api.RuleSpec(api.Direction.INGRESS, 5),)),
            replace(fresh, rules=(api.RuleSpec(api.Direction.INGRESS, 4, "sctp"),)),
            replace(fresh, rules=(api.RuleSpec(api.Direction.INGRESS, 4, remote="::/0"),)),
            replace(port, network_id=uuid4()),
        ):
            with pytest.raises(Refused):
                rig.driver.networks.ensure_port(wrong_port, rig.deadline)
        assert centre.snapshot_of_world() == before


def test_ports_that_are_left_go_with_their_network(host: tuple[Rig, DataCentre]) -> None:
    rig, centre = host
    empty = centre.snapshot_of_world()
    network = rig.network_spec()
    rig.driver.networks.ensure(network, rig.deadline)
    rig.driver.networks.ensure_port(rig.port_spec(network), rig.deadline)
    rig.driver.networks.remove(network.id, rig.deadline)
    assert centre.snapshot_of_world() == empty


@pytest.mark.parametrize(
    ("endpoint", "options"),
    [
        ("sim://", {}),
        ("sim://../etc", {}),
        ("qemu:///system", {}),
        ("sim://a", {"vcpu": "4"}),
        ("sim://a", {"vcpus": "-4"}),
        ("sim://a", {"ram_mib": "many"}),
        ("sim://a", {"ram_overcommit": "0"}),
        ("sim://a", {"store": "cloud"}),
        ("sim://a", {"latency_ms": "machines.power=slow"}),
        ("sim://a", {"clock": "yesterday"}),
        ("sim://a", {"clock": "2026-01-01T00:00:00"}),
    ],
)
def test_a_wrong_option_is_refused(endpoint: str, options: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Refused):
        DRIVER.connect(HostConfig("a", endpoint, tmp_path, options), Deadline(5))
    assert list(tmp_path.iterdir()) == []


def log_of(rig: Rig, machine_id: UUID) -> bytes:
    assert isinstance(rig.driver, api.ConsoleLog)
    return rig.driver.console_log(machine_id, MIB, rig.deadline)
