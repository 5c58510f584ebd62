"""Which domains of others are machines of ours: one small file of the pool for each, and nothing in the domain itself.

libvirt neither changes a domain's UUID nor tells metadata in bulk, and what an owner defines anew loses a mark. A
record in our own pool leaves the domain exactly as it was, is found by one call for all, and its name holds a digest of
what it says, so that what was read once never has to be read again and a record half written never counts.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any
from uuid import UUID

from drivers.api import Deadline, Refused
from drivers.kvm import files, names, xml
from drivers.kvm.errors import found
from drivers.kvm.names import AdoptedFile

MOST_BYTES = 64 * 1024
READ_SECONDS = 10.0


@dataclass(frozen=True)
class Record:
    """A domain that was adopted: its UUID, our id and name for it, and by our volume id each disk's name in the domain
    (``sda``) and in the contract (``vda``).
    """

    domain: UUID
    id: UUID
    name: str
    disks: Mapping[UUID, tuple[str, str]]
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def volumes(self) -> dict[UUID, str]:
        """Our volume ids and device names."""
        return {volume_id: device for volume_id, (_, device) in self.disks.items()}

    @property
    def keys(self) -> frozenset[str]:
        """The disks' names in the domain."""
        return frozenset(key for key, _ in self.disks.values())

    @cached_property
    def content(self) -> bytes:
        """What the record's file says."""
        disks = {str(volume_id): list(each) for volume_id, each in self.disks.items()}
        said = {"name": self.name, "marks": dict(self.marks), "disks": disks}
        return json.dumps(said, sort_keys=True).encode()

    @cached_property
    def file(self) -> AdoptedFile:
        """The record's file."""
        return AdoptedFile(self.domain, self.id, _digest(self.content))


class Register:
    """The records of one host, as this process read them."""

    def __init__(self) -> None:
        self._known: dict[AdoptedFile, Record] = {}

    def everything(self, where: Any) -> dict[UUID, Record]:
        """All records by their domain: one call, and three for each that was never read before."""
        there = _files(where)
        known = {file: record for file in there if (record := self._known.get(file) or _read(where, file)) is not None}
        self._known = known
        return {file.domain: known[file] for file in reversed(there) if file in known}

    def of_machine(self, where: Any, machine_id: UUID) -> Record | None:
        """The record of a machine."""
        return next((each for each in self.everything(where).values() if each.id == machine_id), None)

    def of_volume(self, where: Any, volume_id: UUID) -> Record | None:
        """The record of the machine that was adopted with that disk."""
        return next((each for each in self.everything(where).values() if volume_id in each.disks), None)


def write(where: Any, record: Record) -> None:
    """Keep the record; other records of the same domain stay."""
    size = len(record.content)
    if size > MOST_BYTES:
        raise Refused(f"what is to be kept of the machine takes {size} bytes, more than {MOST_BYTES}")
    files.delete(where, record.file)  # what a worker that died left of it
    volume = where.createXML(xml.text(xml.volume(str(record.file), size, "raw")), 0)
    files.upload(volume, io.BytesIO(record.content), size, Deadline(READ_SECONDS), lambda _: None)


def remove(where: Any, doomed: Iterable[AdoptedFile]) -> None:
    """Forget these records."""
    files.delete(where, *doomed)


def of_domain(where: Any, domain: UUID) -> list[AdoptedFile]:
    """Every record of a domain, whole or not."""
    return [file for file in _files(where) if file.domain == domain]


def _files(where: Any) -> list[AdoptedFile]:
    """Every record there is, in one order for everybody."""
    return sorted((file for each in where.listVolumes() if (file := names.adopted_file(each))), key=str)


def _read(where: Any, file: AdoptedFile) -> Record | None:
    """The record, None when it is gone or not whole yet."""
    volume = files.look_up(where, file)
    sizes = files.info(volume) if volume is not None else None
    if volume is None or sizes is None or not 0 < sizes[0] <= MOST_BYTES:
        return None
    content = found(partial(files.download, volume, 0, sizes[0], Deadline(READ_SECONDS)), "NO_STORAGE_VOL")
    if content is None or _digest(content) != file.digest:
        return None
    said = json.loads(content)
    disks = {UUID(volume_id): (key, device) for volume_id, (key, device) in said["disks"].items()}
    return Record(file.domain, file.id, said["name"], disks, said["marks"])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
