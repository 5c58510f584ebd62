"""The options of an ESXi host beyond its address and trust: where things are put and which VLANs are ours.

Read once at connect, so that a wrong option is told at once. Nothing here asks the host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from drivers.api import HostConfig, Refused

VLAN_MOST = 4094
SHARED = re.compile(r"[a-z0-9-]{1,40}")


class SeedWay(StrEnum):
    """How first-boot data reaches the guest."""

    GUESTINFO = "guestinfo"
    ISO = "iso"


class DiskWay(StrEnum):
    """What a volume from an image is: a child that stands on it, or a copy on its own."""

    LINKED = "linked"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Options:
    """``datastore`` None means the host's only accessible one; ``vlans`` empty means that no network can be made."""

    datastore: str | None
    vlans: tuple[int, ...]
    vswitch: str
    seed: SeedWay
    disks: DiskWay = DiskWay.LINKED
    vm_folder: tuple[str, ...] = ()
    resource_pool: tuple[str, ...] = ()
    dvswitch: str | None = None
    shared: str | None = None


def read(config: HostConfig) -> Options:
    """The options of a host. Raises Refused for what is wrong."""
    given = config.options
    try:
        seed = SeedWay(given.get("seed", SeedWay.GUESTINFO))
    except ValueError:
        raise Refused("the option 'seed' is guestinfo or iso") from None
    try:
        disks = DiskWay(given.get("disks", DiskWay.LINKED))
    except ValueError:
        raise Refused("the option 'disks' is linked or full") from None
    vlans = _vlans(given.get("vlan_pool", ""))
    shared = given.get("shared")
    if shared is not None and not SHARED.fullmatch(shared):
        raise Refused("the option 'shared' is a short name of lower-case letters, digits and hyphens")
    if given.get("dvswitch") and given.get("vswitch"):
        raise Refused("give either 'dvswitch' or 'vswitch', not both")
    return Options(
        datastore=given.get("datastore"),
        vlans=vlans,
        vswitch=given.get("vswitch", "vSwitch0"),
        seed=seed,
        disks=disks,
        vm_folder=_path(given.get("folder", "")),
        resource_pool=_path(given.get("resource_pool", "")),
        dvswitch=given.get("dvswitch"),
        shared=shared,
    )


def _path(text: str) -> tuple[str, ...]:
    """``a/b`` as names, outermost first."""
    return tuple(filter(None, text.split("/")))


def _vlans(text: str) -> tuple[int, ...]:
    """``100-199,300`` as numbers, in the order given."""
    found: dict[int, None] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        first, _, last = part.partition("-")
        try:
            numbers = range(int(first), int(last or first) + 1)
        except ValueError:
            raise Refused(f"the option 'vlan_pool' is like 100-199,300, not {text!r}") from None
        if not numbers or numbers[0] < 1 or numbers[-1] > VLAN_MOST:
            raise Refused(f"a VLAN of the option 'vlan_pool' lies between 1 and {VLAN_MOST}, not {part!r}")
        found.update(dict.fromkeys(numbers))
    return tuple(found)
