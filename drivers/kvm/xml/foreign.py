"""Reading the definition of a domain that others made: its disks, interfaces, firmware, and the word for its guest.

Only reading, and only what is plain: a disk's place is told where it is a file or a block device of the host, and what
stands in the way of using it is said in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from drivers.api import Firmware, ForeignNic
from drivers.kvm.xml.common import Element, strings

_OSINFO = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
_SOURCES = {"file": "file", "block": "dev"}
_LAST = 1 << 16


@dataclass(frozen=True, slots=True)
class DomainDisk:
    """A disk: its name in the domain, its path on the host (None: it has none there), its format, and why it cannot be
    taken over (None: it can).
    """

    key: str
    path: str | None
    format: str
    obstacle: str | None


def domain_disks(element: Element) -> list[DomainDisk]:
    """The hard disks, in the order in which they are booted from; CDs and floppies are none."""
    every = [each for each in element.iterfind("devices/disk") if each.get("device", "disk") in ("disk", "lun")]
    return [_disk(each) for each in sorted(every, key=_boot_order)]


def domain_nics(element: Element) -> tuple[ForeignNic, ...]:
    """The interfaces with a MAC address, and what the host calls what they are on."""
    return tuple(
        ForeignNic(mac.lower(), next(iter(strings(each, "source/@network | source/@bridge | source/@dev")), None))
        for each in element.iterfind("devices/interface")
        for mac in strings(each, "mac/@address")
    )


def firmware(element: Element) -> Firmware:
    """What starts the guest."""
    uefi = strings(element, "os[@firmware='efi']") or strings(element, "os/loader[@type='pflash']")
    return Firmware.UEFI if uefi else Firmware.BIOS


def guest(element: Element) -> str | None:
    """What the machine's maker said about its operating system, as virt-install and others keep it."""
    for each in element.iter(f"{{{_OSINFO}}}os"):
        return each.get("id")
    return None


def _disk(element: Element) -> DomainDisk:
    key = next(iter(strings(element, "target/@dev")), "")
    kind = element.get("type", "")
    path = next(iter(strings(element, f"source/@{_SOURCES[kind]}")), None) if kind in _SOURCES else None
    disk_format = next(iter(strings(element, "driver/@type")), "raw")
    return DomainDisk(key, path, disk_format, _obstacle(element, key, path))


def _obstacle(element: Element, key: str, path: str | None) -> str | None:
    if path is None:
        return f"its disk {key} is neither a file nor a block device of the host"
    if element.get("device") == "lun":
        return f"its disk {key} is a raw SCSI device"
    if element.find("shareable") is not None:
        return f"it shares its disk {key} with other machines"
    if element.find("source/encryption") is not None or element.find("encryption") is not None:
        return f"its disk {key} is encrypted"
    if element.find("transient") is not None:
        return f"what is written on its disk {key} is thrown away when it stops"
    return None


def _boot_order(element: Element) -> int:
    boot = element.find("boot")
    return int(boot.get("order") or _LAST) if isinstance(boot, etree._Element) else _LAST  # noqa: SLF001 - lxml gives its element type no public name
