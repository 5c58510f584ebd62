"""The volumes, base images and snapshots of a simulated host: :class:`drivers.api.Volumes` with a real host's rules.

A volume's data is kept as the name of its content: blank is ``zeros``, a volume of an image has the image's checksum,
a copy has what its source had, and a guest's write (``DataCentre.write``) makes a new name. So tests can tell whether
data survived without a byte being stored. Image files are read whole and their checksum is computed for real. Space is
counted as provisioned: the sizes of all volumes together do not exceed the host's disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from drivers.api import (
    Capability,
    Deadline,
    HostAtFault,
    ImageSpec,
    Power,
    Refused,
    Snapshot,
    Volume,
    VolumeSpec,
)
from drivers.sim import moments
from drivers.sim.faults import conditions
from drivers.sim.gate import Gate
from drivers.sim.power import tally
from drivers.sim.records import ImageRecord, MachineRecord, SnapshotRecord, VolumeRecord
from drivers.sim.store import Transaction

GIB = 1024**3
ZEROS = "zeros"
METADATA_BYTES = 196_608
CHUNK_BYTES = 1024 * 1024


class SimVolumes:
    """See :class:`drivers.api.Volumes`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def ensure(self, spec: VolumeSpec, deadline: Deadline) -> Volume:
        """See :meth:`drivers.api.Volumes.ensure`."""
        with self._gate.verb("volumes.ensure", deadline) as transaction:
            there = transaction.get(VolumeRecord, str(spec.id))
            if there is not None:
                return seen(there)
            content = self._source(transaction, spec)
            self.claim(transaction, spec.size_bytes)
            image_id = None if spec.image_id is None else str(spec.image_id)
            made = VolumeRecord(str(spec.id), spec.size_bytes, content, METADATA_BYTES, image_id)
            transaction.put(made)
            if image_id is not None:
                transaction.hold(f"image:{image_id}", made.id)
            return seen(made)

    def remove(self, volume_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.remove`."""
        with self._gate.verb("volumes.remove", deadline) as transaction:
            volume = transaction.get(VolumeRecord, str(volume_id))
            if volume is None:
                return
            if transaction.holders(f"volume:{volume.id}"):
                raise Refused(f"a machine holds the volume {volume_id}")
            self.claim(transaction, -volume.size_bytes)
            if volume.image_id is not None:
                transaction.release(f"image:{volume.image_id}", volume.id)
            transaction.delete(VolumeRecord, volume.id)

    def inspect(self, volume_id: UUID, deadline: Deadline) -> Volume | None:
        """See :meth:`drivers.api.Volumes.inspect`."""
        with self._gate.verb("volumes.inspect", deadline, write=False) as transaction:
            volume = transaction.get(VolumeRecord, str(volume_id))
        return None if volume is None else seen(volume)

    def list(self, deadline: Deadline) -> Sequence[Volume]:
        """See :meth:`drivers.api.Volumes.list`."""
        with self._gate.verb("volumes.list", deadline, write=False) as transaction:
            volumes = transaction.all(VolumeRecord)
        return [seen(each) for each in volumes]

    def extend(self, volume_id: UUID, size_bytes: int, deadline: Deadline) -> Volume:
        """See :meth:`drivers.api.Volumes.extend`."""
        with self._gate.verb("volumes.extend", deadline) as transaction:
            volume = existing(transaction, volume_id)
            if size_bytes <= volume.size_bytes:
                return seen(volume)
            holders = transaction.holders(f"volume:{volume.id}")
            for each in holders:
                moments.check_none(transaction, each)
            if any(runs(transaction, each) for each in holders):
                self._gate.need(Capability.VOLUME_HOT_EXTEND)
            self.claim(transaction, size_bytes - volume.size_bytes)
            grown = replace(volume, size_bytes=size_bytes)
            transaction.put(grown)
            return seen(grown)

    def ensure_image(self, spec: ImageSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.ensure_image`."""

        def check_file() -> None:
            with self._gate.store.read(deadline) as transaction:
                there = transaction.get(ImageRecord, str(spec.id)) is not None
            if not there:
                _check_file(spec, deadline)

        # Ahead of the transaction: reading a large file would hold up every writer.
        with self._gate.verb("volumes.ensure_image", deadline, ahead=check_file) as transaction:
            if transaction.get(ImageRecord, str(spec.id)) is None:
                transaction.put(_image(spec))

    def remove_image(self, image_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.remove_image`."""
        with self._gate.verb("volumes.remove_image", deadline) as transaction:
            if transaction.holders(f"image:{image_id}"):
                raise Refused(f"a volume is built on the image {image_id}")
            transaction.delete(ImageRecord, str(image_id))

    def list_images(self, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.Volumes.list_images`."""
        with self._gate.verb("volumes.list_images", deadline, write=False) as transaction:
            return [UUID(each.id) for each in transaction.all(ImageRecord)]

    # ------------------------------------------------------------------------------------- parts

    def _source(self, transaction: Transaction, spec: VolumeSpec) -> str:
        """The content a new volume starts with."""
        if spec.size_bytes < 1:
            raise Refused("a volume has at least one byte")
        if spec.image_id is not None and spec.snapshot_id is not None:
            raise Refused("a volume has at most one source")
        if spec.image_id is not None:
            image = transaction.get(ImageRecord, str(spec.image_id))
            if image is None:
                raise Refused(f"the simulated host has no image {spec.image_id}")
            if spec.size_bytes < image.virtual_size_bytes:
                raise Refused(f"the image needs {image.virtual_size_bytes} bytes, the volume has {spec.size_bytes}")
            return image.sha256
        if spec.snapshot_id is not None:
            self._gate.need(Capability.VOLUME_SNAPSHOT)
            snapshot = transaction.get(SnapshotRecord, str(spec.snapshot_id))
            if snapshot is None:
                raise Refused(f"the simulated host has no snapshot {spec.snapshot_id}")
            if spec.size_bytes < snapshot.size_bytes:
                raise Refused(f"the snapshot needs {snapshot.size_bytes} bytes, the volume has {spec.size_bytes}")
            return snapshot.content
        return ZEROS

    def claim(self, transaction: Transaction, size_bytes: int) -> None:
        """Take so many bytes of the host's disk, or give them back."""
        used = tally(transaction)
        wish = used.disk_bytes + size_bytes
        full = conditions(transaction).full or wish > self._gate.options.disk_gib * GIB
        if size_bytes > 0 and full:
            raise HostAtFault("the simulated host has no disk space left", vendor_code="SIM_NO_SPACE")
        transaction.put(replace(used, disk_bytes=wish))


class SimSnapshots:
    """The snapshot verbs of a connection. See :class:`drivers.api.Snapshots`."""

    gate: Gate

    def snapshot(self, volume_id: UUID, snapshot_id: UUID, deadline: Deadline) -> Snapshot:
        """See :meth:`drivers.api.Snapshots.snapshot`."""
        with self.gate.verb("snapshots.snapshot", deadline) as transaction:
            there = transaction.get(SnapshotRecord, str(snapshot_id))
            if there is None:
                volume = existing(transaction, volume_id)
                there = SnapshotRecord(str(snapshot_id), volume.size_bytes, volume.content)
                transaction.put(there)
            return Snapshot(snapshot_id, there.size_bytes)

    def remove_snapshot(self, snapshot_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Snapshots.remove_snapshot`."""
        with self.gate.verb("snapshots.remove_snapshot", deadline) as transaction:
            transaction.delete(SnapshotRecord, str(snapshot_id))

    def list_snapshots(self, deadline: Deadline) -> Sequence[Snapshot]:
        """See :meth:`drivers.api.Snapshots.list_snapshots`."""
        with self.gate.verb("snapshots.list_snapshots", deadline, write=False) as transaction:
            return [Snapshot(UUID(each.id), each.size_bytes) for each in transaction.all(SnapshotRecord)]


def seen(volume: VolumeRecord) -> Volume:
    """The volume as the driver's callers see it."""
    return Volume(UUID(volume.id), volume.size_bytes, volume.allocated_bytes)


def _image(spec: ImageSpec) -> ImageRecord:
    return ImageRecord(str(spec.id), spec.format.value, spec.size_bytes, spec.virtual_size_bytes, spec.sha256)


def existing(transaction: Transaction, volume_id: UUID) -> VolumeRecord:
    """The volume of that id. Raises Refused."""
    volume = transaction.get(VolumeRecord, str(volume_id))
    if volume is None:
        raise Refused(f"the simulated host has no volume {volume_id}")
    return volume


def runs(transaction: Transaction, machine_id: str) -> bool:
    """Whether that machine runs."""
    machine = transaction.get(MachineRecord, machine_id)
    return machine is not None and machine.power == Power.RUNNING


def _check_file(spec: ImageSpec, deadline: Deadline) -> None:
    """Read the whole file and compare size and checksum with what it was said to be."""
    digest, size = hashlib.sha256(), 0
    try:
        with spec.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                deadline.check("reading an image file")
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise Refused(f"the image file cannot be read: {error.strerror}") from error
    if size != spec.size_bytes:
        raise Refused(f"the image file has {size} bytes, not {spec.size_bytes}")
    if digest.hexdigest() != spec.sha256.lower():
        raise Refused("the image file's checksum is not the one it was said to have")
