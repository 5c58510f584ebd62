"""What :class:`drivers.api.Volumes` and :class:`drivers.api.Snapshots` promise, as tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from drivers import api
from drivers.api import Capability, PowerAction, VolumeSpec
from drivers.contracts.rig import MIB, Rig, refused, unchanged, unsupported


class VolumeContract:
    """Volumes, base images and snapshots."""

    def test_a_volume_comes_once_and_goes_for_good(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        volumes, spec = rig.driver.volumes, VolumeSpec(uuid4(), rig.volume_bytes)
        assert volumes.inspect(spec.id, rig.deadline) is None
        with unchanged(rig):
            for _ in range(2):
                made = volumes.ensure(spec, rig.deadline)
                assert (made.id, made.size_bytes) == (spec.id, spec.size_bytes)
            seen = volumes.inspect(spec.id, rig.deadline)
            assert seen is not None
            assert (seen.id, seen.size_bytes) == (spec.id, spec.size_bytes)
            assert [each.id for each in volumes.list(rig.deadline)].count(spec.id) == 1
            for _ in range(2):
                volumes.remove(spec.id, rig.deadline)
                assert volumes.inspect(spec.id, rig.deadline) is None
        rig.works(Capability.VOLUMES)

    def test_a_volume_that_is_there_is_left_as_it_is(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        with rig.volume() as volume, unchanged(rig):
            again = rig.driver.volumes.ensure(VolumeSpec(volume, rig.volume_bytes * 2), rig.deadline)
            assert again.size_bytes == rig.volume_bytes

    def test_a_volume_held_by_a_machine_is_not_removed(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES, Capability.MACHINES)
        with rig.volume() as volume, rig.machine(volume), refused(rig):
            rig.driver.volumes.remove(volume, rig.deadline)

    def test_extend_grows_and_never_shrinks(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        with rig.volume() as volume:
            for wish, size in ((2, 2), (2, 2), (1, 2)):
                answer = rig.driver.volumes.extend(volume, rig.volume_bytes * wish, rig.deadline)
                assert answer.size_bytes == rig.volume_bytes * size
            seen = rig.driver.volumes.inspect(volume, rig.deadline)
            assert seen is not None
            assert seen.size_bytes == rig.volume_bytes * 2

    def test_extend_of_an_unknown_volume_is_refused(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        with refused(rig):
            rig.driver.volumes.extend(uuid4(), rig.volume_bytes, rig.deadline)

    def test_extend_under_a_running_machine(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES, Capability.MACHINES)
        with rig.volume() as volume, rig.machine(volume) as machine:
            rig.power(machine.id, PowerAction.ON)
            if rig.has(Capability.VOLUME_HOT_EXTEND):
                answer = rig.driver.volumes.extend(volume, rig.volume_bytes * 2, rig.deadline)
                assert answer.size_bytes == rig.volume_bytes * 2
                rig.works(Capability.VOLUME_HOT_EXTEND)
            else:
                with unsupported(rig, Capability.VOLUME_HOT_EXTEND):
                    rig.driver.volumes.extend(volume, rig.volume_bytes * 2, rig.deadline)

    # --------------------------------------------------------------------------------- images

    def test_an_image_comes_once_and_goes_for_good(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        image, volumes = replace(rig.image, id=uuid4()), rig.driver.volumes
        with unchanged(rig):
            for _ in range(2):
                volumes.ensure_image(image, rig.deadline)
                assert list(volumes.list_images(rig.deadline)).count(image.id) == 1
            for _ in range(2):
                volumes.remove_image(image.id, rig.deadline)
                assert image.id not in volumes.list_images(rig.deadline)

    def test_an_image_with_a_wrong_checksum_is_not_brought_in(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        with refused(rig):
            rig.driver.volumes.ensure_image(replace(rig.image, id=uuid4(), sha256="0" * 64), rig.deadline)

    def test_an_image_file_that_is_cut_short_is_not_brought_in(self, rig: Rig, tmp_path: Path) -> None:
        rig.need(Capability.VOLUMES)
        short = tmp_path / "short"
        short.write_bytes(rig.image.path.read_bytes()[:-512])
        with refused(rig):
            rig.driver.volumes.ensure_image(replace(rig.image, id=uuid4(), path=short), rig.deadline)

    def test_an_image_is_not_removed_under_its_volumes(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        image = replace(rig.image, id=uuid4())
        spec = VolumeSpec(uuid4(), image.virtual_size_bytes, image_id=image.id)
        with unchanged(rig):
            rig.driver.volumes.ensure_image(image, rig.deadline)
            rig.driver.volumes.ensure(spec, rig.deadline)
            with refused(rig):
                rig.driver.volumes.remove_image(image.id, rig.deadline)
            rig.driver.volumes.remove(spec.id, rig.deadline)
            rig.driver.volumes.remove_image(image.id, rig.deadline)

    def test_a_volume_is_never_smaller_than_its_image(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        rig.driver.volumes.ensure_image(rig.image, rig.deadline)
        with refused(rig):
            spec = VolumeSpec(uuid4(), rig.image.virtual_size_bytes - MIB, image_id=rig.image.id)
            rig.driver.volumes.ensure(spec, rig.deadline)
        larger = VolumeSpec(uuid4(), rig.image.virtual_size_bytes + MIB, image_id=rig.image.id)
        made = rig.driver.volumes.ensure(larger, rig.deadline)
        rig.driver.volumes.remove(larger.id, rig.deadline)
        assert made.size_bytes == larger.size_bytes

    def test_a_volume_of_an_unknown_source_is_refused(self, rig: Rig) -> None:
        rig.need(Capability.VOLUMES)
        with refused(rig):
            rig.driver.volumes.ensure(VolumeSpec(uuid4(), rig.volume_bytes, image_id=uuid4()), rig.deadline)
        with refused(rig, api.Refused if rig.has(Capability.VOLUME_SNAPSHOT) else api.Unsupported):
            rig.driver.volumes.ensure(VolumeSpec(uuid4(), rig.volume_bytes, snapshot_id=uuid4()), rig.deadline)

    # --------------------------------------------------------------------------------- snapshots

    def test_a_snapshot_outlives_its_volume(self, rig: Rig) -> None:
        driver = rig.driver
        if not isinstance(driver, api.Snapshots):
            rig.lacking(Capability.VOLUME_SNAPSHOT)
            return
        snapshot_id, child = uuid4(), uuid4()
        with unchanged(rig):
            with rig.volume() as volume:
                for _ in range(2):
                    made = driver.snapshot(volume, snapshot_id, rig.deadline)
                    assert (made.id, made.size_bytes) == (snapshot_id, rig.volume_bytes)
                assert [each.id for each in driver.list_snapshots(rig.deadline)].count(snapshot_id) == 1
            spec = VolumeSpec(child, rig.volume_bytes * 2, snapshot_id=snapshot_id)
            assert driver.volumes.ensure(spec, rig.deadline).size_bytes == rig.volume_bytes * 2
            for _ in range(2):
                driver.remove_snapshot(snapshot_id, rig.deadline)
            assert driver.volumes.inspect(child, rig.deadline) is not None
            driver.volumes.remove(child, rig.deadline)
        rig.works(Capability.VOLUME_SNAPSHOT)

    def test_a_snapshot_of_a_volume_in_use(self, rig: Rig) -> None:
        driver = rig.driver
        if not isinstance(driver, api.Snapshots):
            rig.lacking(Capability.VOLUME_SNAPSHOT)
            return
        snapshot_id = uuid4()
        with rig.volume() as volume, rig.machine(volume) as machine:
            rig.power(machine.id, PowerAction.ON)
            assert driver.snapshot(volume, snapshot_id, rig.deadline).size_bytes == rig.volume_bytes
            driver.remove_snapshot(snapshot_id, rig.deadline)
            seen = driver.machines.inspect(machine.id, rig.deadline)
            assert seen is not None
            assert (seen.power, dict(seen.volumes)) == (api.Power.RUNNING, {volume: "vda"})

    def test_snapshots_refuse(self, rig: Rig) -> None:
        driver = rig.driver
        if not isinstance(driver, api.Snapshots):
            rig.lacking(Capability.VOLUME_SNAPSHOT)
            return
        with refused(rig):
            driver.snapshot(uuid4(), uuid4(), rig.deadline)
        snapshot_id = uuid4()
        with rig.volume() as volume:
            driver.snapshot(volume, snapshot_id, rig.deadline)
            with refused(rig):
                driver.volumes.ensure(VolumeSpec(uuid4(), rig.volume_bytes // 2, snapshot_id=snapshot_id), rig.deadline)
            driver.remove_snapshot(snapshot_id, rig.deadline)
        with unchanged(rig):
            driver.remove_snapshot(uuid4(), rig.deadline)
