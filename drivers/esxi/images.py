"""Base images: one disk per image and datastore, brought in once and only counted when it arrived whole.

The image comes RAW: it is the extent of a disk as it lies, sent through the host's file service with a descriptor of
ours beside it, which is the one way that needs no conversion on the host. Size and SHA-256 are checked while it is
sent. It is refused while a volume that was made from it is there, as the contract says, though volumes are copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

from drivers.api import Deadline, DiskFormat, ImageSpec, Refused
from drivers.esxi.site import Site, verb
from drivers.esxi.store import DISK, WHOLE, Store

IMAGES = "images"
FLAT = DISK.replace(".vmdk", "-flat.vmdk")
SECTOR_BYTES = 512
CHUNK_BYTES = 1024**2
DESCRIPTOR = """\
# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="vmfs"

# Extent description
RW {sectors} VMFS "{flat}"

# The Disk Data Base
#DDB
ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "{cylinders}"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.virtualHWVersion = "13"
"""


class Images:
    """The image verbs of :class:`drivers.api.Volumes`."""

    site: Site
    store: Store

    def image_folder(self, image_id: UUID) -> str:
        """Where an image lies."""
        return f"{IMAGES}/{image_id}"

    @verb
    def ensure_image(self, spec: ImageSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.ensure_image`."""
        if spec.format is not DiskFormat.RAW:
            raise Refused(f"an ESXi host takes images as RAW, not {spec.format}")
        folder = self.image_folder(spec.id)
        with self.site.only(deadline, "image", str(spec.id)):
            there = self.store.search(folder, deadline).get("")
            if there is not None and there.whole is not None:
                return
            check_size(spec)
            self.store.delete(folder, deadline)
            self.store.make_folder(folder, deadline)
            if not self._send(spec, folder, deadline):
                self.store.delete(folder, deadline)
                raise Refused("the image's content does not have its checksum")
            self.store.make_folder(f"{folder}/{WHOLE}", deadline)

    @verb
    def remove_image(self, image_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.remove_image`."""
        with self.site.only(deadline, "image", str(image_id)):
            users = self.store.search("volumes", deadline)
            if any(each.whole == f"{WHOLE}_{image_id}" for each in users.values()):
                raise Refused(f"a volume is built on the image {image_id}")
            self.store.delete(self.image_folder(image_id), deadline)

    @verb
    def list_images(self, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.Volumes.list_images`."""
        found = self.store.search(IMAGES, deadline)
        return [UUID(name) for name, folder in found.items() if folder.whole is not None]

    def _send(self, spec: ImageSpec, folder: str, deadline: Deadline) -> bool:
        """Bring extent and descriptor there; whether the content is what it should be."""
        digest = hashlib.sha256()
        size_bytes = -(-spec.size_bytes // SECTOR_BYTES) * SECTOR_BYTES
        padding = bytes(size_bytes - spec.size_bytes)

        def chunks() -> Iterator[bytes]:
            for chunk in _read(spec.path):
                digest.update(chunk)
                yield chunk
            if padding:
                yield padding

        self.store.upload(f"{folder}/{FLAT}", chunks(), size_bytes, deadline)
        if digest.hexdigest() != spec.sha256.lower():
            return False
        text = descriptor(size_bytes).encode()
        self.store.upload(f"{folder}/{DISK}", [text], len(text), deadline)
        return True


def check_size(spec: ImageSpec) -> None:
    """Raise Refused for a file of another length than it should have, before anything is sent."""
    size_bytes = spec.path.stat().st_size
    if size_bytes != spec.size_bytes or spec.size_bytes < spec.virtual_size_bytes:
        raise Refused(f"the image's file has {size_bytes} bytes instead of {spec.size_bytes}")


def descriptor(size_bytes: int) -> str:
    """The text beside a flat extent of so many bytes (whole sectors)."""
    sectors = size_bytes // SECTOR_BYTES
    return DESCRIPTOR.format(sectors=sectors, flat=FLAT, cylinders=max(1, sectors // (255 * 63)))


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
