"""What :class:`drivers.api.Adoption` promises, as tests."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from drivers import api
from drivers.api import AdoptionSpec, Capability, DiskSpec, ForeignMachine, Power, PowerAction
from drivers.contracts.machines import console_count
from drivers.contracts.rig import Rig, refused, unchanged, unsupported, wait_for


class AdoptionContract:
    """Machines of somebody else's: seen, taken over, given back."""

    def test_a_foreign_machine_is_seen_and_is_not_ours(self, rig: Rig) -> None:
        driver = _adopting(rig)
        if driver is None:
            return
        with _foreign(rig) as ref, unchanged(rig):
            found = _found(driver, rig, ref)
            assert (found.ref, found.power, len(found.disks), len(found.nics)) == (ref, Power.OFF, 2, 1)
            assert found.name
            assert min(found.vcpus, found.ram_mib, *(disk.size_bytes for disk in found.disks)) > 0
            assert found.obstacles == ()
            assert [each for each in _pages(driver, rig) if each.ref == ref] == [found]
        assert driver.inspect_foreign(ref, rig.deadline) is None
        assert ref not in {each.ref for each in _pages(driver, rig)}

    def test_what_is_ours_is_not_foreign(self, rig: Rig) -> None:
        driver = _adopting(rig)
        if driver is None:
            return
        with rig.volume() as volume:
            before = {each.ref for each in _pages(driver, rig)}
            with rig.machine(volume):
                assert {each.ref for each in _pages(driver, rig)} == before

    def test_adopted_and_disowned_it_is_as_it_was(self, rig: Rig) -> None:
        driver = _adopting(rig)
        if driver is None:
            return
        with _foreign(rig) as ref:
            found = _found(driver, rig, ref)
            spec = _spec(found)
            disks = {disk.volume_id: disk.device for disk in spec.disks.values()}
            with unchanged(rig):
                for _ in range(2):
                    made = driver.adopt(spec, rig.deadline)
                    assert (made.id, made.power, made.vcpus, made.ram_mib) == (
                        spec.id, Power.OFF, found.vcpus, found.ram_mib,
                    )  # fmt: skip
                    assert dict(made.volumes) == disks
                assert driver.inspect_foreign(ref, rig.deadline) is None
                assert ref not in {each.ref for each in _pages(driver, rig)}
                seen = {each.id: each for each in rig.driver.machines.list(rig.deadline)}[spec.id]
                assert (seen.name, dict(seen.volumes)) == (spec.name, disks)
                assert rig.power(spec.id, PowerAction.ON) is Power.RUNNING
                assert rig.power(spec.id, PowerAction.OFF) is Power.OFF
                for _ in range(2):
                    driver.disown(spec.id, rig.deadline)
            assert _found(driver, rig, ref) == found
        rig.works(Capability.ADOPTION)

    def test_adopted_while_it_runs_it_goes_on(self, rig: Rig) -> None:
        driver = _adopting(rig)
        if driver is None:
            return
        with _foreign(rig) as ref:
            spec = _spec(_found(driver, rig, ref))
            driver.adopt(spec, rig.deadline)
            rig.power(spec.id, PowerAction.ON)
            driver.disown(spec.id, rig.deadline)
            assert _found(driver, rig, ref).power is Power.RUNNING
            assert driver.adopt(spec, rig.deadline).power is Power.RUNNING
            rig.power(spec.id, PowerAction.OFF)
            driver.disown(spec.id, rig.deadline)

    def test_disks_of_an_adopted_machine_are_copied_while_it_runs(self, rig: Rig) -> None:
        driver = _adopting(rig)
        if driver is None or not (rig.has(Capability.VOLUME_SNAPSHOT) and rig.has(Capability.DISK_TRANSPORT)):
            return
        assert isinstance(rig.driver, api.Snapshots)
        assert isinstance(rig.driver, api.DiskTransport)
        with _foreign(rig) as ref, unchanged(rig), TemporaryDirectory() as folder:
            found = _found(driver, rig, ref)
            spec = _spec(found)
            driver.adopt(spec, rig.deadline)
            rig.power(spec.id, PowerAction.ON)
            for disk in found.disks:
                snapshot, target = uuid4(), Path(folder) / f"{disk.key}.disk"
                made = rig.driver.snapshot(spec.disks[disk.key].volume_id, snapshot, rig.deadline)
                assert made.size_bytes == disk.size_bytes
                file = rig.driver.export_disk(api.DiskSource(snapshot_id=snapshot), target, rig.deadline)
                assert file.virtual_size_bytes == disk.size_bytes
                rig.driver.remove_snapshot(snapshot, rig.deadline)
            rig.power(spec.id, PowerAction.OFF)
            driver.disown(spec.id, rig.deadline)
            assert _found(driver, rig, ref) == found

    def test_adoption_refuses(self, rig: Rig) -> None:
        driver = _adopting(rig)
        if driver is None:
            return
        with refused(rig):
            driver.adopt(AdoptionSpec("no-such-machine", uuid4(), "nobody", {}), rig.deadline)
        with unchanged(rig):
            driver.disown(uuid4(), rig.deadline)
        with rig.volume() as volume, rig.machine(volume) as machine, refused(rig):
            driver.disown(machine.id, rig.deadline)
        with _foreign(rig) as ref:
            spec = _spec(_found(driver, rig, ref))
            with refused(rig):
                driver.adopt(replace(spec, disks={}), rig.deadline)
            driver.adopt(spec, rig.deadline)
            with refused(rig):
                driver.adopt(replace(spec, id=uuid4()), rig.deadline)
            driver.disown(spec.id, rig.deadline)

    def test_a_machine_with_vmwares_devices(self, rig: Rig) -> None:
        """As a guest that was installed on VMware needs it: its disks are found by other drivers."""
        rig.need(Capability.MACHINES, Capability.VOLUMES)
        with rig.boot_volume() as volume, rig.volume() as data:
            spec = replace(rig.machine_spec(volume, data), devices=api.Devices.VMWARE)
            if not rig.has(Capability.VMWARE_DEVICES):
                with unsupported(rig, Capability.VMWARE_DEVICES):
                    rig.driver.machines.ensure(spec, rig.deadline)
                return
            made = rig.driver.machines.ensure(spec, rig.deadline)
            try:
                assert dict(made.volumes) == {volume: "vda", data: "vdb"}
                rig.power(spec.id, PowerAction.ON)
                if rig.ready is not None:
                    wait_for(lambda: console_count(rig, spec.id) == 1, rig.boot_seconds, "the guest is up")
            finally:
                rig.driver.machines.remove(spec.id, rig.deadline)
        rig.works(Capability.VMWARE_DEVICES)

    @pytest.mark.parametrize("limit", [0, api.MOST_FOREIGN + 1])
    def test_a_page_is_bounded(self, rig: Rig, limit: int) -> None:
        driver = _adopting(rig)
        if driver is not None:
            with refused(rig):
                driver.list_foreign(None, limit, rig.deadline)


def _foreign(rig: Rig) -> AbstractContextManager[str]:
    if rig.foreign is None:
        pytest.skip("no machine of somebody else's is lent to be tried with")
    return rig.foreign()


def _adopting(rig: Rig) -> api.Adoption | None:
    driver = rig.driver
    if isinstance(driver, api.Adoption):
        return driver
    rig.lacking(Capability.ADOPTION)
    return None


def _found(driver: api.Adoption, rig: Rig, ref: str) -> ForeignMachine:
    found = driver.inspect_foreign(ref, rig.deadline)
    assert found is not None
    return found


def _pages(driver: api.Adoption, rig: Rig) -> list[ForeignMachine]:
    """Every foreign machine, two a page."""
    found: list[ForeignMachine] = []
    after: str | None = None
    while True:
        page = driver.list_foreign(after, 2, rig.deadline)
        assert len(page.machines) <= 2
        found += page.machines
        if page.after is None:
            return found
        assert page.machines
        after = page.after


def _spec(found: ForeignMachine) -> AdoptionSpec:
    disks = {each.key: DiskSpec(uuid4(), f"vd{'abcdef'[at]}") for at, each in enumerate(found.disks)}
    return AdoptionSpec(found.ref, uuid4(), "adopted", disks, {"contract": "yes"})
