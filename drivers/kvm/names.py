"""Our ids as libvirt sees them: names of domains, networks, filters, bridges and files of the storage pool.

A name is a pure function of one id (and of a nonce for unfinished work), and can be read back. That is how the driver
finds what is its own in bulk answers which carry names and UUIDs but no metadata: a domain or network is ours when it
is called after its own UUID. Nothing here talks to libvirt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

PREFIX = "sg-"
RECORD_FILTER = "sg-record"

_KINDS = "volume|image|snapshot|seed|console|export|overlay"
_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_FILE = re.compile(rf"({_KINDS})-({_ID})\.(qcow2|raw|iso|log|log\.\d)")
_MAKING = re.compile(rf"making-({_KINDS})-({_ID})-([0-9a-f]{{12}})")
_PORT = re.compile(rf"sg-port-({_ID})")
_ADOPTED = re.compile(rf"adopted-({_ID})-({_ID})-([0-9a-f]{{16}})\.json")


@dataclass(frozen=True, slots=True)
class PoolFile:
    """A file of the pool which is ours: ``kind`` is volume, image, snapshot, seed, console, export or overlay."""

    kind: str
    id: UUID
    extension: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.id}.{self.extension}"


@dataclass(frozen=True, slots=True)
class Making:
    """The marker of a file that is not whole yet; ``nonce`` tells the makers apart."""

    kind: str
    id: UUID
    nonce: str

    def __str__(self) -> str:
        return f"making-{self.kind}-{self.id}-{self.nonce}"


@dataclass(frozen=True, slots=True)
class AdoptedFile:
    """The record of a domain that others made and that is a machine of ours: the domain's own UUID, our id, and the
    beginning of the SHA-256 of what the record says, so that a file of this name never says anything else.
    """

    domain: UUID
    id: UUID
    digest: str

    def __str__(self) -> str:
        return f"adopted-{self.domain}-{self.id}-{self.digest}.json"


def is_uuid(text: str) -> bool:
    """Whether that is a UUID as libvirt writes it."""
    return re.fullmatch(_ID, text) is not None


def of(our_id: UUID) -> str:
    """The name of a domain or network."""
    return f"{PREFIX}{our_id.hex}"


def is_ours(name: str, uuid: UUID) -> bool:
    """Whether a domain or network of that name and UUID was made by this driver."""
    return name == of(uuid)


def bridge(network_id: UUID) -> str:
    """The Linux bridge of a network: 14 characters (15 are allowed) from the id's random end."""
    return f"sg{network_id.hex[-12:]}"


def port_filter(port_id: UUID) -> str:
    """The nwfilter of a port."""
    return f"sg-port-{port_id}"


def port_of(filter_name: str) -> UUID | None:
    """The port whose filter that is."""
    found = _PORT.fullmatch(filter_name)
    return UUID(found[1]) if found else None


def alias(our_id: UUID) -> str:
    """The device alias of a disk (volume id) or an interface (port id); ``ua-`` marks it as chosen by the user."""
    return f"ua-{our_id}"


def from_alias(name: str) -> UUID | None:
    """The id in a device's alias, None when it is none of ours."""
    try:
        return UUID(name.removeprefix("ua-")) if name.startswith("ua-") else None
    except ValueError:
        return None


def serial(volume_id: UUID) -> str:
    """The serial number a guest sees: virtio has room for 20 characters."""
    return volume_id.hex[:20]


def pool_file(name: str) -> PoolFile | None:
    """What a file of the pool is to us, None when it is not ours. Takes a path as well."""
    found = _FILE.fullmatch(name.rpartition("/")[2])
    return PoolFile(found[1], UUID(found[2]), found[3]) if found else None


def making(name: str) -> Making | None:
    """The marker of that name."""
    found = _MAKING.fullmatch(name)
    return Making(found[1], UUID(found[2]), found[3]) if found else None


def adopted_file(name: str) -> AdoptedFile | None:
    """The record of that name."""
    found = _ADOPTED.fullmatch(name)
    return AdoptedFile(UUID(found[1]), UUID(found[2]), found[3]) if found else None
