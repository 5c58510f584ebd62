"""Volumes and base images: qcow2 files of the storage pool.

A volume from an image is a thin clone which keeps the image in place; one from a snapshot is a full copy that depends
on nothing. Images are checked against size and checksum while they are uploaded and count only when they are whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from drivers.api import (
    Capability,
    Deadline,
    DiskFile,
    DiskFormat,
    ImageSpec,
    Progress,
    Refused,
    Transient,
    Unsupported,
    Volume,
    VolumeSpec,
)
from drivers.kvm import files, holders, rewinding, transport, xml
from drivers.kvm.errors import told
from drivers.kvm.link import Link
from drivers.kvm.names import PoolFile
from drivers.kvm.xml.common import strings

_SECTOR_BYTES = 512
_EXTENSIONS = {DiskFormat.QCOW2: "qcow2", DiskFormat.RAW: "raw"}


class PoolVolumes:
    """The facet :class:`drivers.api.Volumes`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def ensure(self, spec: VolumeSpec, deadline: Deadline) -> Volume:
        """Make the volume exist."""
        if spec.image_id is not None and spec.snapshot_id is not None:
            raise Refused("a volume has at most one source")
        if spec.size_bytes <= 0:
            raise Refused("a volume needs a size")

        def work(where: Any) -> None:
            if spec.snapshot_id is not None:
                self._copy_snapshot(where, spec, deadline)
            else:
                where.createXML(xml.text(self._thin(where, spec)), 0)

        with told(f"making volume {spec.id}", Capability.VOLUMES):
            files.make(self._link, PoolFile("volume", spec.id, "qcow2"), work, deadline)
        return self._present(spec.id, deadline)

    def remove(self, volume_id: UUID, deadline: Deadline) -> None:
        """Delete the volume unless a domain uses it."""
        with told(f"removing volume {volume_id}", Capability.VOLUMES), self._link.only(deadline, "claims"):
            where = files.pool(self._link, deadline)
            volume = files.look_up(where, PoolFile("volume", volume_id, "qcow2"))
            if volume is not None:
                users = holders.of_file(self._link.open(deadline), volume.path())
                if users:
                    raise Refused(f"volume {volume_id} is used by {users[0].domain.name()}")
            files.remove(where, "export", volume_id)
            files.remove(where, "volume", volume_id)

    def inspect(self, volume_id: UUID, deadline: Deadline) -> Volume | None:
        """The volume as it is now."""
        with told(f"looking at volume {volume_id}", Capability.VOLUMES):
            volume = files.whole(files.pool(self._link, deadline), "volume", volume_id)
            sizes = files.info(volume) if volume is not None else None
        return Volume(volume_id, *sizes) if sizes else None

    def list(self, deadline: Deadline) -> Sequence[Volume]:
        """Every whole volume of ours."""
        with told("listing volumes", Capability.VOLUMES):
            there = files.all_whole(files.pool(self._link, deadline), "volume")
            sized = [(file, files.info(volume)) for file, volume in there]
        return [Volume(file.id, *sizes) for file, sizes in sized if sizes]

    def extend(self, volume_id: UUID, size_bytes: int, deadline: Deadline) -> Volume:
        """Grow the volume, under a running machine too."""
        wanted = -(-size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES
        with told(f"growing volume {volume_id}", Capability.VOLUME_HOT_EXTEND):
            volume = files.whole(files.pool(self._link, deadline), "volume", volume_id)
            sizes = files.info(volume) if volume is not None else None
            if volume is None or sizes is None:
                raise Refused(f"there is no volume {volume_id}")
            if sizes[0] < wanted:
                self._grow(volume, wanted, deadline)
        return self._present(volume_id, deadline)

    def _grow(self, volume: Any, size_bytes: int, deadline: Deadline) -> None:
        with self._link.only(deadline, "claims"):
            held = holders.of_file(self._link.open(deadline), volume.path())
            for each in held:
                rewinding.check_none(each.domain)
            running = [each for each in held if each.active]
            deadline.check("growing a volume")
            if running:
                import libvirt

                running[0].domain.blockResize(running[0].device, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
            else:
                volume.resize(size_bytes, 0)

    def bring(self, volume_id: UUID, file: DiskFile, deadline: Deadline, progress: Progress) -> Volume:
        """See :meth:`drivers.api.DiskTransport.import_disk`."""
        transport.bring(self._link, volume_id, file, deadline, progress)
        return self._present(volume_id, deadline)

    def _present(self, volume_id: UUID, deadline: Deadline) -> Volume:
        volume = self.inspect(volume_id, deadline)
        if volume is None:
            raise Transient(f"volume {volume_id} went away while it was looked at")
        return volume

    def _thin(self, where: Any, spec: VolumeSpec) -> xml.Element:
        if spec.image_id is None:
            return xml.volume(f"volume-{spec.id}.qcow2", spec.size_bytes)
        image = files.whole(where, "image", spec.image_id)
        sizes = files.info(image) if image is not None else None
        if image is None or sizes is None:
            raise Refused(f"there is no image {spec.image_id} on this host")
        _check_size(spec, sizes[0])
        backing_format = "raw" if image.name().endswith(".raw") else "qcow2"
        return xml.volume(f"volume-{spec.id}.qcow2", spec.size_bytes, backing=(image.path(), backing_format))

    def _copy_snapshot(self, where: Any, spec: VolumeSpec, deadline: Deadline) -> None:
        assert spec.snapshot_id is not None  # noqa: S101 - the caller asked for it; this tells mypy
        snapshot = files.whole(where, "snapshot", spec.snapshot_id)
        sizes = files.info(snapshot) if snapshot is not None else None
        if snapshot is None or sizes is None:
            raise Refused(f"there is no snapshot {spec.snapshot_id} on this host")
        _check_size(spec, sizes[0])
        deadline.check("copying a snapshot")
        volume = where.createXMLFrom(xml.text(xml.volume(f"volume-{spec.id}.qcow2", sizes[0])), snapshot, 0)
        if sizes[0] < spec.size_bytes:
            volume.resize(-(-spec.size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES, 0)

    # ------------------------------------------------------------------------------------- images

    def ensure_image(self, spec: ImageSpec, deadline: Deadline) -> None:
        """Bring a base image to the host, whole and checked."""
        if spec.format not in _EXTENSIONS:
            raise Unsupported(Capability.VOLUMES, f"images of format {spec.format} must be converted first")
        if len(spec.sha256) != hashlib.sha256().digest_size * 2:
            raise Refused("the image's checksum is not a SHA-256")

        def work(where: Any) -> None:
            _upload_image(where, spec, deadline)

        with told(f"bringing in image {spec.id}", Capability.VOLUMES):
            files.make(self._link, PoolFile("image", spec.id, _EXTENSIONS[spec.format]), work, deadline)

    def remove_image(self, image_id: UUID, deadline: Deadline) -> None:
        """Delete a base image that no volume is built on."""
        with told(f"removing image {image_id}", Capability.VOLUMES):
            where = files.pool(self._link, deadline)
            image = files.whole(where, "image", image_id)
            if image is not None:
                path = image.path()
                for file, volume in files.all_whole(where, "volume"):
                    deadline.check("looking for volumes of the image")
                    if path in strings(xml.parse(volume.XMLDesc(0)), "backingStore/path/text()"):
                        raise Refused(f"volume {file.id} is built on image {image_id}")
            files.remove(where, "image", image_id)

    def list_images(self, deadline: Deadline) -> Sequence[UUID]:
        """The whole images of ours."""
        with told("listing images", Capability.VOLUMES):
            return [file.id for file, _ in files.all_whole(files.pool(self._link, deadline), "image")]


def _check_size(spec: VolumeSpec, source_bytes: int) -> None:
    if spec.size_bytes < source_bytes:
        raise Refused(f"a volume of {spec.size_bytes} bytes is smaller than its source of {source_bytes}")


def _upload_image(where: Any, spec: ImageSpec, deadline: Deadline) -> None:
    """Create the file in its own format, so that libvirt reads its real size from it, and fill it."""
    checksum = hashlib.sha256()
    extension = _EXTENSIONS[spec.format]
    with ExitStack() as stack:
        try:
            source = stack.enter_context(spec.path.open("rb"))
        except OSError as error:
            raise Transient(f"the image file cannot be read on the worker: {error}") from error
        size = spec.path.stat().st_size
        if size != spec.size_bytes:
            raise Refused(f"the image file has {size} bytes instead of {spec.size_bytes}")
        start_bytes = size if spec.format is DiskFormat.RAW else 0
        volume = where.createXML(xml.text(xml.volume(f"image-{spec.id}.{extension}", start_bytes, extension)), 0)
        files.upload(volume, source, spec.size_bytes, deadline, checksum.update)
    if checksum.hexdigest() != spec.sha256.lower():
        raise Refused("the image file does not have the checksum it should have")
