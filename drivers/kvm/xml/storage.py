"""Storage pool, volumes and backup jobs as XML."""

from __future__ import annotations

from drivers.kvm.xml.common import E, Element


def pool(name: str, path: str) -> Element:
    """A directory pool."""
    return E.pool(E.name(name), E.target(E.path(path)), type="dir")


def volume(name: str, size_bytes: int, disk_format: str = "qcow2", backing: tuple[str, str] | None = None) -> Element:
    """A thin volume; ``backing`` is path and format of the image it is a clone of. qcow2 gets version 3 (``compat``
    1.1): version 2, libvirt's default, cannot hold what backups need.
    """
    target = E.target(E.format(type=disk_format))
    if disk_format == "qcow2":
        target.append(E.compat("1.1"))
    element = E.volume(E.name(name), E.capacity(str(size_bytes), unit="bytes"), E.allocation("0"), target)
    if backing:
        element.append(E.backingStore(E.path(backing[0]), E.format(type=backing[1])))
    return element


def backup(device: str, other_devices: list[str], path: str) -> Element:
    """A full push backup of one disk of a running machine into an existing file, and of no other."""
    disks = E.disks(E.disk(E.driver(type="qcow2"), E.target(file=path), name=device, backup="yes", type="file"))
    disks.extend(E.disk(name=each, backup="no") for each in other_devices)
    return E.domainbackup(disks, mode="push")
