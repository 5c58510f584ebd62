"""The driver contract has teeth: a simulated host with one flaw fails the very test that is there for it."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from drivers import api
from drivers.api import Deadline, DriverError, Power, PowerAction, Transient
from drivers.contract import DriverContract, Rig
from drivers.sim import DRIVER
from tests.drivers.test_sim_contract import rig_of

Flaw = Callable[[Any], None]


def forgets_deadlines(driver: Any) -> None:
    kept = driver.volumes.ensure
    driver.volumes.ensure = lambda spec, _deadline: kept(spec, Deadline(5))


def removes_the_unknown_with_an_error(driver: Any) -> None:
    kept = driver.machines.remove

    def remove(machine_id: UUID, deadline: Deadline) -> None:
        if driver.machines.inspect(machine_id, deadline) is None:
            raise Transient("not found")
        kept(machine_id, deadline)

    driver.machines.remove = remove


def leaves_half_a_machine(driver: Any) -> None:
    """Makes the machine without the disks that are missing, and then refuses."""
    kept = driver.machines.ensure

    def ensure(spec: api.MachineSpec, deadline: Deadline) -> api.Machine:
        try:
            made: api.Machine = kept(spec, deadline)
        except api.Refused:
            kept(replace(spec, disks=(), nics=()), deadline)
            raise
        return made

    driver.machines.ensure = ensure


def lists_twice(driver: Any) -> None:
    kept = driver.volumes.list
    driver.volumes.list = lambda deadline: [*kept(deadline), *kept(deadline)]


def starts_what_it_ensures(driver: Any) -> None:
    kept = driver.machines.ensure

    def ensure(spec: api.MachineSpec, deadline: Deadline) -> api.Machine:
        kept(spec, deadline)
        started: api.Machine = driver.machines.power(spec.id, PowerAction.ON, deadline)
        return started

    driver.machines.ensure = ensure


def pretends_to_detach(driver: Any) -> None:
    def detach(machine_id: UUID, volume_id: UUID, deadline: Deadline) -> api.Machine:
        machine: api.Machine = driver.machines.inspect(machine_id, deadline)
        return replace(machine, volumes={key: name for key, name in machine.volumes.items() if key != volume_id})

    driver.machines.detach = detach


def shrinks(driver: Any) -> None:
    kept = driver.volumes.extend
    driver.volumes.extend = lambda key, size, deadline: replace(kept(key, size, deadline), size_bytes=size)


def counts_backwards(driver: Any) -> None:
    kept, asked = driver.machines.sample, iter(range(10**9, 0, -1))
    driver.machines.sample = lambda deadline: [
        replace(each, cpu_time_ns=each.cpu_time_ns and next(asked)) for each in kept(deadline)
    ]


def counts_while_off(driver: Any) -> None:
    kept, asked = driver.machines.sample, iter(range(10**9))
    driver.machines.sample = lambda deadline: [replace(each, cpu_time_ns=next(asked)) for each in kept(deadline)]


def trusts_images(driver: Any) -> None:
    kept = driver.volumes.ensure_image

    def ensure_image(spec: api.ImageSpec, deadline: Deadline) -> None:
        data = spec.path.read_bytes()
        kept(replace(spec, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()), deadline)

    driver.volumes.ensure_image = ensure_image


def snapshots_hang_on_their_volume(driver: Any) -> None:
    kept = driver.volumes.remove

    def remove(volume_id: UUID, deadline: Deadline) -> None:
        kept(volume_id, deadline)
        for each in driver.list_snapshots(deadline):
            driver.remove_snapshot(each.id, deadline)

    driver.volumes.remove = remove


def shows_the_oldest_of_the_log(driver: Any) -> None:
    kept = driver.console_log
    driver.console_log = lambda key, most, deadline: kept(key, 10**6, deadline)[:most]


def shows_the_screen_of_what_is_off(driver: Any) -> None:
    kept = driver.open_console

    def open_console(machine_id: UUID, deadline: Deadline) -> socket.socket:
        try:
            line: socket.socket = kept(machine_id, deadline)
        except api.Refused:
            return socket.socketpair()[0]
        return line

    driver.open_console = open_console


def asks_for_a_password(driver: Any) -> None:
    kept = driver.open_console
    servers: list[socket.socket] = []

    def open_console(machine_id: UUID, deadline: Deadline) -> socket.socket:
        kept(machine_id, deadline).close()
        ours, theirs = socket.socketpair()
        servers.append(ours)
        ours.sendall(b"RFB 003.008\n\1\2")
        return theirs

    driver.open_console = open_console


def talks_after_close(driver: Any) -> None:
    kept = driver.watch

    def watch(on_change: Callable[[api.MachineChanged], None], deadline: Deadline) -> api.Watch:
        kept(on_change, deadline)
        second: api.Watch = kept(on_change, deadline)
        return second

    driver.watch = watch


def forces_a_reboot_out_of_nothing(driver: Any) -> None:
    kept = driver.machines.power

    def power(machine_id: UUID, action: PowerAction, deadline: Deadline) -> api.Machine:
        if action is PowerAction.REBOOT:
            kept(machine_id, PowerAction.ON, deadline)
        seen: api.Machine = kept(machine_id, action, deadline)
        return seen

    driver.machines.power = power


def gives_an_address_twice(driver: Any) -> None:
    kept = driver.networks.ensure_port
    driver.networks.ensure_port = lambda spec, deadline: kept(replace(spec, addresses=()), deadline)


def keeps_old_subnets(driver: Any) -> None:
    kept = driver.networks.ensure

    def ensure(spec: api.NetworkSpec, deadline: Deadline) -> api.Network:
        there = driver.networks.inspect(spec.id, deadline)
        made: api.Network = kept(spec, deadline)
        return made if there is None else replace(made, subnet_ids=made.subnet_ids | there.subnet_ids)

    driver.networks.ensure = ensure


@pytest.mark.parametrize(
    ("flaw", "test"),
    [
        (forgets_deadlines, "test_a_verb_whose_deadline_passed_answers_transient_and_changes_nothing"),
        (removes_the_unknown_with_an_error, "test_removing_an_unknown_machine_is_success"),
        (leaves_half_a_machine, "test_a_machine_needs_its_volumes"),
        (lists_twice, "test_a_volume_comes_once_and_goes_for_good"),
        (lists_twice, "test_eight_threads_make_one_volume"),
        (starts_what_it_ensures, "test_a_machine_comes_once_and_goes_for_good"),
        (pretends_to_detach, "test_a_volume_moves_from_machine_to_machine"),
        (shrinks, "test_extend_grows_and_never_shrinks"),
        (counts_backwards, "test_samples_come_in_bulk_and_only_grow"),
        (counts_while_off, "test_nothing_is_counted_while_off"),
        (trusts_images, "test_an_image_with_a_wrong_checksum_is_not_brought_in"),
        (trusts_images, "test_an_image_file_that_is_cut_short_is_not_brought_in"),
        (snapshots_hang_on_their_volume, "test_a_snapshot_outlives_its_volume"),
        (shows_the_oldest_of_the_log, "test_console_log"),
        (shows_the_screen_of_what_is_off, "test_a_screen_is_shown_while_the_machine_runs"),
        (asks_for_a_password, "test_a_screen_is_shown_while_the_machine_runs"),
        (talks_after_close, "test_watch_sees_what_happens"),
        (forces_a_reboot_out_of_nothing, "test_a_machine_that_is_off_cannot_reboot"),
        (gives_an_address_twice, "test_an_address_in_use_is_refused"),
        (keeps_old_subnets, "test_a_network_has_exactly_its_subnets"),
    ],
)
def test_a_flaw_is_found(flaw: Flaw, test: str, tmp_path: Path) -> None:
    rig, centre = rig_of(DRIVER, tmp_path, store="memory")
    rig.boot_seconds = 1
    run(test, rig, tmp_path)  # without the flaw it passes
    flaw(rig.driver)
    with pytest.raises((AssertionError, pytest.fail.Exception, DriverError)):
        run(test, rig, tmp_path)
    rig.driver.close()
    centre.clear()


def run(test: str, rig: Rig, folder: Path) -> None:
    """Call one test of the contract with the arguments it asks for, as pytest would."""
    method = getattr(DriverContract(), test)
    wanted = method.__code__.co_varnames[1 : method.__code__.co_argcount]
    if not {"off", "running"} & set(wanted):
        method(**{name: {"rig": rig, "tmp_path": folder}[name] for name in wanted})
        return
    with rig.boot_volume() as volume, rig.machine(volume) as machine:
        if "running" in wanted:
            assert rig.power(machine.id, PowerAction.ON) is Power.RUNNING
        method(**{name: {"rig": rig, "off": machine, "running": machine}[name] for name in wanted})
