"""What holds for a whole driver: capabilities, deadlines, threads, closing, console log and watching, as tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Lock
from typing import TypeVar
from uuid import uuid4

import pytest

from drivers import api
from drivers.api import VERBS, Capability, Deadline, Power, PowerAction, VolumeSpec
from drivers.contracts.machines import console_count
from drivers.contracts.rig import Rig, unchanged, unsupported, wait_for

THREADS = 8
LOOKING = {"inspect", "list", "sample", "list_images", "list_ports"}
T = TypeVar("T")
FACETS = (Capability.MACHINES, Capability.VOLUMES, Capability.NETWORKS)


class DriverWideContract:
    """The driver as one thing."""

    def test_the_type_tells_the_truth(self, rig: Rig) -> None:
        assert rig.type.kind == rig.type.kind.upper()
        assert rig.type.description.strip()
        assert rig.type.missing() is None
        assert not rig.type.verbs & rig.type.traits
        assert rig.type.verbs <= set(VERBS)
        assert not rig.type.traits & set(VERBS)
        assert rig.lacks <= rig.type.verbs
        assert api.capabilities(rig.driver, rig.type) == rig.type.capabilities - rig.lacks
        assert rig.image.format in rig.type.image_formats or not rig.has(Capability.VOLUMES)

    def test_facts(self, rig: Rig) -> None:
        facts = rig.driver.facts(rig.deadline)
        assert facts.hypervisor
        assert facts.version
        assert facts.architecture
        assert min(facts.vcpus, facts.ram_mib, facts.disk_gib) > 0
        assert rig.driver.facts(rig.deadline) == facts

    def test_an_absent_facet_refuses_each_verb(self, rig: Rig) -> None:
        """All that would change something; a driver may be able to look at what it cannot make."""
        for facet in FACETS:
            if not rig.has(facet):
                for name, verb in _verbs(rig, facet, rig.deadline).items():
                    if name not in LOOKING:
                        with unsupported(rig, facet):
                            verb()

    def test_a_verb_whose_deadline_passed_answers_transient_and_changes_nothing(self, rig: Rig) -> None:
        for facet in FACETS:
            if rig.has(facet):
                for name, verb in _verbs(rig, facet, Deadline(0)).items():
                    with unchanged(rig):
                        started = time.monotonic()
                        with pytest.raises(api.Transient):
                            verb()
                        assert time.monotonic() - started < rig.seconds, name

    def test_eight_threads_make_one_volume(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        spec = VolumeSpec(uuid4(), rig.volume_bytes)
        with unchanged(rig):
            answers = _at_once(lambda: _until_settled(lambda: rig.driver.volumes.ensure(spec, rig.deadline), rig))
            assert {each.size_bytes for each in answers} == {spec.size_bytes}
            assert [each.id for each in rig.driver.volumes.list(rig.deadline)].count(spec.id) == 1
            _at_once(lambda: _until_settled(lambda: rig.driver.volumes.remove(spec.id, rig.deadline), rig))

    def test_eight_threads_bring_in_one_image(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        image = replace(rig.image, id=uuid4())
        with unchanged(rig):
            _at_once(lambda: _until_settled(lambda: rig.driver.volumes.ensure_image(image, rig.deadline), rig))
            assert list(rig.driver.volumes.list_images(rig.deadline)).count(image.id) == 1
            rig.driver.volumes.remove_image(image.id, rig.deadline)

    def test_eight_threads_make_one_machine(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES, Capability.MACHINES)
        with rig.volume() as volume:
            spec = rig.machine_spec(volume)
            with unchanged(rig):
                answers = _at_once(lambda: _until_settled(lambda: rig.driver.machines.ensure(spec, rig.deadline), rig))
                assert {(each.id, each.power) for each in answers} == {(spec.id, Power.OFF)}
                assert [each.id for each in rig.driver.machines.list(rig.deadline)].count(spec.id) == 1
                _at_once(lambda: _until_settled(lambda: rig.driver.machines.remove(spec.id, rig.deadline), rig))

    def test_eight_threads_make_one_network(self, rig: Rig) -> None:
        rig.need(Capability.NETWORKS)
        spec = rig.network_spec()
        with unchanged(rig):
            answers = _at_once(lambda: _until_settled(lambda: rig.driver.networks.ensure(spec, rig.deadline), rig))
            assert {each.id for each in answers} == {spec.id}
            assert [each.id for each in rig.driver.networks.list(rig.deadline)].count(spec.id) == 1
            _at_once(lambda: _until_settled(lambda: rig.driver.networks.remove(spec.id, rig.deadline), rig))

    def test_two_machines_race_for_one_volume_and_one_wins(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES, Capability.MACHINES)
        with rig.volume() as volume:
            specs = [rig.machine_spec(volume) for _ in range(THREADS)]
            todo = iter(specs)
            lock = Lock()

            def race() -> bool:
                with lock:
                    spec = next(todo)
                try:
                    _until_settled(lambda: rig.driver.machines.ensure(spec, rig.deadline), rig)
                except api.Refused:
                    return False
                return True

            try:
                assert sorted(_at_once(race)) == [False] * (THREADS - 1) + [True]
            finally:
                for spec in specs:
                    rig.driver.machines.remove(spec.id, rig.deadline)

    def test_the_host_keeps_the_state_not_the_connection(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        with rig.volume() as volume:
            other = rig.connect()
            try:
                seen = other.volumes.inspect(volume, rig.deadline)
                assert seen is not None
                assert seen.size_bytes == rig.volume_bytes
            finally:
                other.close()
            with pytest.raises(api.Transient):
                other.facts(rig.deadline)
            with pytest.raises(api.Transient):
                other.volumes.list(rig.deadline)
            other.close()

    # --------------------------------------------------------------------------------- console log

    def test_console_log(self, rig: Rig) -> None:
        driver = rig.driver
        if not isinstance(driver, api.ConsoleLog):
            rig.lacking(Capability.CONSOLE_LOG)
            return
        assert driver.console_log(uuid4(), 1000, rig.deadline) == b""
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        with rig.boot_volume() as volume, rig.machine(volume) as machine:
            assert driver.console_log(machine.id, 1000, rig.deadline) == b""
            rig.power(machine.id, PowerAction.ON)
            if rig.ready is None:
                return
            wait_for(lambda: console_count(rig, machine.id) == 1, rig.boot_seconds, f"the console shows {rig.ready!r}")
            rig.power(machine.id, PowerAction.OFF)
            whole = driver.console_log(machine.id, 1024 * 1024, rig.deadline)
            assert driver.console_log(machine.id, 100, rig.deadline) == whole[-100:]
            rig.power(machine.id, PowerAction.ON)  # the log is since it was made, not since it was started
            assert whole[:100] in driver.console_log(machine.id, 1024 * 1024, rig.deadline)
        rig.works(Capability.CONSOLE_LOG)

    # --------------------------------------------------------------------------------- watching

    def test_watch_sees_what_happens(self, rig: Rig) -> None:
        driver = rig.driver
        if not isinstance(driver, api.Watching):
            rig.lacking(Capability.STATE_EVENTS)
            return
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        seen: list[api.MachineChanged] = []
        watch = driver.watch(seen.append, rig.deadline)
        try:
            assert _alive(watch)
            with rig.volume() as volume, rig.machine(volume) as machine:

                def says(state: Power | None) -> bool:
                    mine = [each.machine for each in seen if each.machine_id == machine.id]
                    return bool(mine) and (mine[-1].power if mine[-1] else None) == state

                rig.power(machine.id, PowerAction.ON)
                wait_for(lambda: says(Power.RUNNING), rig.seconds, "the watch tells of the start")
                if rig.stop_behind_our_back is not None:
                    rig.stop_behind_our_back(machine.id)
                else:
                    rig.power(machine.id, PowerAction.OFF)
                wait_for(lambda: says(Power.OFF), rig.seconds, "the watch tells of the stop")
                rig.driver.machines.remove(machine.id, rig.deadline)
                wait_for(lambda: says(None), rig.seconds, "the watch tells of the removal")
        finally:
            watch.close()
        assert not _alive(watch)
        count = len(seen)
        heard: list[api.MachineChanged] = []  # another watch says when news has had its time to come
        fence = driver.watch(heard.append, rig.deadline)
        with rig.volume() as volume, rig.machine(volume) as machine:
            rig.power(machine.id, PowerAction.ON)
            wait_for(lambda: bool(heard), rig.seconds, "a new watch tells of the start")
        fence.close()
        assert len(seen) == count, "no call-back comes after close returned"
        rig.works(Capability.STATE_EVENTS)


def _alive(watch: api.Watch) -> bool:
    return watch.alive


def _at_once(work: Callable[[], T]) -> list[T]:
    """Run it in eight threads at once; the first error of any of them is raised here."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [each.result() for each in [pool.submit(work) for _ in range(THREADS)]]


def _until_settled(verb: Callable[[], T], rig: Rig) -> T:
    """Ask again while the answer is Transient (a lock held by another thread): that is what Transient means."""
    deadline = rig.deadline
    while True:
        try:
            return verb()
        except api.Transient:
            deadline.check("asking again")
            time.sleep(0.05)


def _verbs(rig: Rig, facet: Capability, deadline: Deadline) -> dict[str, Callable[[], object]]:
    """Every verb of a facet, called with that deadline and with arguments that name nothing on the host."""
    driver, nobody, port = rig.driver, uuid4(), rig.port_spec(rig.network_spec())
    if facet is Capability.MACHINES:
        machines, disk = driver.machines, api.DiskSpec(nobody, "vdb")
        return {
            "ensure": lambda: machines.ensure(rig.machine_spec(nobody), deadline),
            "remove": lambda: machines.remove(nobody, deadline),
            "inspect": lambda: machines.inspect(nobody, deadline),
            "list": lambda: machines.list(deadline),
            "power": lambda: machines.power(nobody, PowerAction.ON, deadline),
            "attach": lambda: machines.attach(nobody, disk, deadline),
            "detach": lambda: machines.detach(nobody, nobody, deadline),
            "sample": lambda: machines.sample(deadline),
        }
    if facet is Capability.VOLUMES:
        volumes = driver.volumes
        return {
            "ensure": lambda: volumes.ensure(VolumeSpec(nobody, rig.volume_bytes), deadline),
            "remove": lambda: volumes.remove(nobody, deadline),
            "inspect": lambda: volumes.inspect(nobody, deadline),
            "list": lambda: volumes.list(deadline),
            "extend": lambda: volumes.extend(nobody, rig.volume_bytes, deadline),
            "ensure_image": lambda: volumes.ensure_image(replace(rig.image, id=nobody), deadline),
            "remove_image": lambda: volumes.remove_image(nobody, deadline),
            "list_images": lambda: volumes.list_images(deadline),
        }
    networks = driver.networks
    return {
        "ensure": lambda: networks.ensure(rig.network_spec(), deadline),
        "remove": lambda: networks.remove(nobody, deadline),
        "inspect": lambda: networks.inspect(nobody, deadline),
        "list": lambda: networks.list(deadline),
        "ensure_port": lambda: networks.ensure_port(port, deadline),
        "remove_port": lambda: networks.remove_port(port.network_id, port.id, deadline),
        "list_ports": lambda: networks.list_ports(deadline),
    }
