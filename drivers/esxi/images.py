"""Base images: one disk per image and datastore, whichever hosts use it, brought in once and counted when whole.

The image comes as a stream-optimized VMDK through a lease (see transport.py), under a lock of the datastore, so that
however many ask for it at once one of them brings it. A mark of each host that was told to have it says whose it is: it
is deleted with its last host. Volumes are children of it (see children.py); a child cannot grow, so a larger volume
stands on a copy of the image that was grown first, made once for each size and kept with the image. A volume says on
what it stands before it is made, and an image says that it is going before it looks for volumes, so that neither misses
the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from drivers.api import Deadline, DiskFile, ImageSpec, Refused, untold
from drivers.esxi import transport, turns
from drivers.esxi.site import Site, verb
from drivers.esxi.store import DISK, KIB, WHOLE, Folder, Store, kib

IMAGES = "images"
HOST, SIZED = "host_", "sized_"
OF = "of_"


class Images:
    """The image verbs of :class:`drivers.api.Volumes`."""

    site: Site
    store: Store
    shared: Store

    @verb
    def ensure_image(self, spec: ImageSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.ensure_image`."""
        folder = image_folder(spec.id)
        mine = self._host_mark(deadline)
        there = self.shared.search(folder, deadline).get("")
        if there is not None and is_whole(there) and mine in there.marks:
            return
        file = DiskFile(spec.path, spec.format, spec.size_bytes, spec.virtual_size_bytes, spec.sha256)
        transport.check(file)
        with turns.turn(self.site, self.shared, f"image_{spec.id}", deadline) as held:
            there = self.shared.search(folder, deadline).get("")
            if there is None or not is_whole(there):
                self.shared.delete(folder, deadline)
                self.shared.make_folder(f"{folder}/{mine}", deadline)
                target = self.shared.path(f"{folder}/{DISK}", deadline)
                try:
                    transport.bring(self.store, file, target, deadline, untold)
                except Refused:
                    self.shared.delete(folder, deadline)
                    raise
                held.check(deadline)
                self.shared.make_folder(f"{folder}/{WHOLE}", deadline)
            elif mine not in there.marks:
                self.shared.make_folder(f"{folder}/{mine}", deadline)

    @verb
    def remove_image(self, image_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.remove_image`."""
        folder, mine = image_folder(image_id), self._host_mark(deadline)
        with turns.turn(self.site, self.shared, f"image_{image_id}", deadline):
            there = self.shared.search(folder, deadline)
            if "" not in there:
                return
            if mine in there[""].marks:
                self.shared.delete(f"{folder}/{mine}", deadline)
            users = self.store.search("volumes", deadline)
            if any(f"{OF}{image_id}" in each.marks for each in users.values()):
                self.shared.make_folder(f"{folder}/{mine}", deadline)
                raise Refused(f"a volume is built on the image {image_id}")
            if not [each for each in there[""].marks if each.startswith(HOST) and each != mine]:
                self.shared.delete(folder, deadline)

    @verb
    def list_images(self, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.Volumes.list_images`."""
        mine = self._host_mark(deadline)
        found: list[UUID] = []
        for name, folder in self.shared.search(IMAGES, deadline).items():
            if is_whole(folder) and mine in folder.marks:
                with suppress(ValueError):
                    found.append(UUID(name))
        return found

    def image_disk(self, image_id: UUID, size_bytes: int, deadline: Deadline) -> str:
        """The whole path of a disk of the image that has that size, made if there is none. Raises Refused."""
        there = self._image(image_id, deadline)
        own_bytes, wanted = there.disks[DISK][0], kib(size_bytes)
        if own_bytes > wanted * KIB:
            raise Refused("the volume would be smaller than its image")
        folder = image_folder(image_id)
        if own_bytes == wanted * KIB:
            return self.shared.path(f"{folder}/{DISK}", deadline)
        name, mark = f"disk-{wanted}.vmdk", f"{SIZED}{wanted}"
        if mark not in there.marks or name not in there.disks:
            with turns.turn(self.site, self.shared, f"image_{image_id}", deadline) as held:
                there = self._image(image_id, deadline)
                if mark not in there.marks or name not in there.disks:
                    self._make_sized(folder, name, size_bytes, deadline)
                    held.check(deadline)
                    self.shared.make_folder(f"{folder}/{mark}", deadline)
        return self.shared.path(f"{folder}/{name}", deadline)

    def _make_sized(self, folder: str, name: str, size_bytes: int, deadline: Deadline) -> None:
        target = f"{folder}/{name}"
        if not self.site.goes_on(target):
            self.shared.delete_disk(target, deadline)
        self.shared.copy_disk(self.shared.path(f"{folder}/{DISK}", deadline), target, deadline)
        self.shared.extend_disk(target, size_bytes, deadline)

    def _image(self, image_id: UUID, deadline: Deadline) -> Folder:
        found = self.shared.search(image_folder(image_id), deadline).get("")
        if found is None or not is_whole(found) or self._host_mark(deadline) not in found.marks:
            raise Refused(f"there is no image {image_id} on this host")
        return found

    def _host_mark(self, deadline: Deadline) -> str:
        return f"{HOST}{self.site.place(deadline).folder.rpartition('/')[2]}"


def image_folder(image_id: UUID) -> str:
    """Where an image lies, relative to what all hosts on the datastore share."""
    return f"{IMAGES}/{image_id}"


def is_whole(folder: Folder) -> bool:
    """Whether an image's folder holds all of it."""
    return WHOLE in folder.marks and DISK in folder.disks
