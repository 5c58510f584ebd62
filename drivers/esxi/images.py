"""Base images: one disk per image and datastore, whichever hosts use it, brought in once and counted when whole.

The image comes as a stream-optimized VMDK through a lease (see transport.py), under a lock of the datastore, so that
however many ask for it at once one of them brings it. A mark of each host that was told to have it says whose it is: it
is deleted with its last host. Volumes are children of it (see children.py); a child cannot grow, so a larger volume
stands on a copy of the image that was grown first, made once for each size and kept with the image. A volume says on
what it stands before it is made, and an image says that it is going before it looks for volumes, so that neither misses
the other; and no image's disk is deleted while a folder of whatever host says that it stands on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from drivers.api import Deadline, DiskFile, DriverError, ImageSpec, Refused, untold
from drivers.esxi import transport, turns
from drivers.esxi.errors import as_driver_errors
from drivers.esxi.site import Site, verb
from drivers.esxi.store import DISK, KIB, WHOLE, Folder, Store, kib

IMAGES = "images"
HOST, GOING, SIZED = "host_", "going_", "sized_"
OF = "of_"


class Images:
    """The image verbs of :class:`drivers.api.Volumes`."""

    site: Site
    store: Store
    shared: Store
    everyones: Store

    @verb
    def ensure_image(self, spec: ImageSpec, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.ensure_image`."""
        folder = image_folder(spec.id)
        mine = self._mark(HOST, deadline)
        there = self.shared.search(folder, deadline).get("")
        if there is not None and is_whole(there) and mine in there.marks:
            if self._mark(GOING, deadline) in there.marks:
                self.stay(spec.id, deadline)
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
                except transport.NOTHING_CAME:
                    with suppress(DriverError), as_driver_errors():
                        self.shared.delete(folder, deadline)
                    raise
                held.check(deadline)
                self.shared.make_folder(f"{folder}/{WHOLE}", deadline)
            elif mine not in there.marks:
                self.shared.make_folder(f"{folder}/{mine}", deadline)

    @verb
    def remove_image(self, image_id: UUID, deadline: Deadline) -> None:
        """See :meth:`drivers.api.Volumes.remove_image`."""
        folder, mine, going = image_folder(image_id), self._mark(HOST, deadline), self._mark(GOING, deadline)
        with turns.turn(self.site, self.shared, f"image_{image_id}", deadline):
            there = self.shared.search(folder, deadline).get("")
            if there is None:
                return
            self.shared.make_folder(f"{folder}/{going}", deadline)
            users = self.store.search("volumes", deadline)
            if any(f"{OF}{image_id}" in each.marks for each in users.values()):
                self.shared.delete(f"{folder}/{going}", deadline)
                raise Refused(f"a volume is built on the image {image_id}")
            others = [each for each in there.marks if each.startswith(HOST) and each != mine]
            if others or self._used_anywhere(image_id, deadline):
                self.shared.delete(f"{folder}/{mine}", deadline)
                self.shared.delete(f"{folder}/{going}", deadline)
            else:
                self.shared.delete(folder, deadline)

    def _used_anywhere(self, image_id: UUID, deadline: Deadline) -> bool:
        """Whether a volume of whatever host stands on the image: its data would go with it."""
        every = self.everyones.search("", deadline)
        return any(f"{OF}{image_id}" in folder.marks for folder in every.values())

    def stay(self, image_id: UUID, deadline: Deadline) -> None:
        """Hold that an image is on this host for a volume that says it stands on it. Raises Refused when it went: who
        is removing it is waited for, and one that died over it is forgotten.
        """
        folder, going = image_folder(image_id), self._mark(GOING, deadline)
        if going in self._image(image_id, deadline).marks:
            with turns.turn(self.site, self.shared, f"image_{image_id}", deadline):
                if going in self._image(image_id, deadline).marks:
                    self.shared.delete(f"{folder}/{going}", deadline)

    @verb
    def list_images(self, deadline: Deadline) -> Sequence[UUID]:
        """See :meth:`drivers.api.Volumes.list_images`."""
        mine = self._mark(HOST, deadline)
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
        if found is None or not is_whole(found) or self._mark(HOST, deadline) not in found.marks:
            raise Refused(f"there is no image {image_id} on this host")
        return found

    def _mark(self, kind: str, deadline: Deadline) -> str:
        return f"{kind}{self.site.place(deadline).hardware_uuid}"


def image_folder(image_id: UUID) -> str:
    """Where an image lies, relative to what all hosts on the datastore share."""
    return f"{IMAGES}/{image_id}"


def is_whole(folder: Folder) -> bool:
    """Whether an image's folder holds all of it."""
    return WHOLE in folder.marks and DISK in folder.disks
